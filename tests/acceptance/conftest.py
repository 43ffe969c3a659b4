"""A service that tests of one file share, and projects for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edbjobs_server.solver.demo import example_project
from support.service import ServiceProcess


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A running service with the demo solver."""
    with ServiceProcess(tmp_path_factory.mktemp("service"), max_local_jobs=8, max_cores=16) as running:
        yield running


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Path]:
    """Make an example project under a name of its own."""

    def make(name: str = "p") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return example_project(folder)

    return make
