"""Fixtures of several files: a local executor alone, and a whole job manager, each on a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.local_runs import Runs, local_runs
from support.manager_world import World


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
async def runs(root: Path) -> AsyncIterator[Runs]:
    async with local_runs(root, linger=0.3, unkillable_after=0.5) as it:
        yield it


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.open()
    yield world
    await world.close()
