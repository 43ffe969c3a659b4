"""The examples run as they stand, against a real service with the demo solver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.service import ServiceProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLINE = 100.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tmp_path_factory.mktemp("service"), max_local_jobs=4, max_cores=8)
    process.environment = {"ANS_EDBJOBS_DEMO": "seconds=0.5"}  # the service's own reaches its runs
    with process:
        yield process


def run(service: ServiceProcess, name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        env={**os.environ, "EDBJOBS_TARGET": service.target, "TMPDIR": str(folder), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr + service.output()
    return done.stdout


def test_one_solve(service: ServiceProcess, tmp_path: Path) -> None:
    *_, last = run(service, "solve.py", tmp_path).splitlines()
    assert "completed, normal, evidence solver_log: Setup1: normal completion after 6 adaptive passes" in last


def test_many_solves(service: ServiceProcess, tmp_path: Path) -> None:
    lines = run(service, "many_variants.py", tmp_path).splitlines()
    assert sum(" completed " in line for line in lines) == 4
    assert sum(" started " in line for line in lines) == 4
    revisions = [int(line.split()[0]) for line in lines]
    assert revisions == sorted(set(revisions))


def test_asyncio(service: ServiceProcess, tmp_path: Path) -> None:
    text = run(service, "solve_async.py", tmp_path)
    assert text.count("Pass Number") == 6
    assert text.count("completed, ") == 2


def test_failures(service: ServiceProcess, tmp_path: Path) -> None:
    found = {line.split()[0]: line.split()[1:4] for line in run(service, "failures.py", tmp_path).splitlines()}
    assert found == {
        "license": ["failed", "license", "solver_log"],
        "engine": ["failed", "solver_error", "solver_log"],
        "sweep": ["failed", "solver_error", "solver_log"],
        "cut": ["failed", "unverified", "solver_log"],
        "nothing": ["failed", "nothing_solved", "solver_log"],
        "nolog": ["completed", "normal", "exit_code"],
        "exit": ["failed", "exit_code", "exit_code"],
        "killed": ["failed", "exit_code", "exit_code"],
        "convergence": ["completed", "normal", "solver_log"],
        "(none)": ["completed", "normal", "solver_log"],
    }


def test_every_example_is_tried_and_listed() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {"solve.py", "many_variants.py", "solve_async.py", "failures.py"}
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in names)
