"""Unit tests bear the mark that `make check` selects by, unless they need a system package."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test of this folder."""
    if item.get_closest_marker("system") is None:
        item.add_marker(pytest.mark.unit)
