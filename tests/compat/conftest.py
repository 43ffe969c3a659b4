"""A private state folder for what hosts a service inside the tests' own process."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return this test's state folder; the demo solver is on."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("EDBJOBS_STATE_DIR", str(folder))
    monkeypatch.setenv("EDBJOBS_DEMO_SOLVER", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder
