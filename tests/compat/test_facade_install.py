"""The two wheels in a fresh environment: alone, beside PyEDB, and over a PyEDB that has a job manager of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from edbjobs_pyedb import pyedb_version
from edbjobs_pyedb.pyedb_version import refuse_old_pyedb
from edbjobs_server.solver.demo import example_project
from support.distributions import COMPAT, wheels
from support.facade import BACKEND, environment

OLD = "0.65.2"
INSTALL_SECONDS = 300
MODULES = (
    "job_manager_handler",
    "job_submission",
    "service",
    "start_service",
    "submit_local_job",
    "submit_batch_jobs",
    "submit_job_on_scheduler",
)
SOLVE = f"""
import asyncio, sys
import {", ".join(f"{BACKEND}.{module}" for module in MODULES)}
from {BACKEND}.job_submission import create_hfss_config
from {BACKEND}.service import JobManager

async def main():
    manager = JobManager()
    job_id = await manager.submit_job(create_hfss_config(sys.argv[1]))
    await manager.wait_until_all_done()
    print(manager.jobs[job_id].status)

asyncio.run(main())
"""


class Fresh:
    """An environment with nothing in it, in which nothing of the checkout is found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "env" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True, timeout=INSTALL_SECONDS)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = environment(self.folder / "state", PYTHONPATH="", ANS_EDBJOBS_DEMO="seconds=0.1")
        line = [str(self.python), *arguments]
        return subprocess.run(line, env=env, cwd=self.folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)

    def pip(self, *arguments: str) -> None:
        done = self.run("-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", *arguments)
        if done.returncode:
            pytest.skip(f"pip install {' '.join(arguments)}: {done.stderr[-300:]}")

    def check(self) -> str:
        done = self.run("-m", "pip", "check")
        return (done.stdout + done.stderr).strip()

    def solve(self) -> subprocess.CompletedProcess[str]:
        return self.run("-W", "ignore", "-c", SOLVE, str(example_project(self.folder)))


@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="the layout of the environment is that of POSIX")
def test_fresh_environments(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    edbjobs, compat = wheels(tmp_path_factory)
    fresh = Fresh(tmp_path)
    fresh.pip(str(edbjobs), str(compat))
    alone = fresh.solve()
    assert (alone.returncode, alone.stdout) == (0, "completed\n"), alone.stderr
    assert fresh.check() == "No broken requirements found."

    fresh.pip("pyedb>=0.66")
    beside = fresh.solve()
    assert (beside.returncode, beside.stdout) == (0, "completed\n"), beside.stderr
    assert fresh.check() == "No broken requirements found."
    where = fresh.run("-W", "ignore", "-c", "import pyedb.workflows.utilities as w; print(w.__file__)")
    assert where.stdout.strip().endswith("pyedb/workflows/utilities/__init__.py"), "PyEDB is whole"

    fresh.pip("--no-deps", f"pyedb=={OLD}")
    fresh.pip("--no-deps", "--force-reinstall", str(compat))
    over = fresh.solve()
    assert over.returncode == 1
    error = over.stderr.splitlines()[-1]
    assert error.startswith(f"ImportError: PyEDB {OLD} has a job manager of its own at this path")
    steps = re.findall(r"pip install (.+?)(?:, then|\. To)", error)
    assert steps == ['"pyedb>=0.66"', "--force-reinstall --no-deps edbjobs-pyedb"]
    fresh.pip("--no-deps", "pyedb>=0.66")
    fresh.pip("--no-deps", "--force-reinstall", str(compat))
    again = fresh.solve()
    assert (again.returncode, again.stdout) == (0, "completed\n"), again.stderr


@pytest.mark.parametrize(("found", "old"), [("0.65.2", True), ("0.9.0", True), ("0.66.0", False), ("1.2.dev0", False)])
def test_which_pyedb_is_too_old(found: str, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyedb_version, "version", lambda name: found)
    if not old:
        refuse_old_pyedb()
        return
    with pytest.raises(ImportError, match=f"PyEDB {re.escape(found)} has a job manager"):
        refuse_old_pyedb()


def test_the_wheel_is_of_this_release_and_reaches_no_higher() -> None:
    from edbjobs import __version__

    project = (COMPAT / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in project
    assert f'"edbjobs[server]=={__version__}"' in project
    above = [COMPAT / "pyedb" / "__init__.py", COMPAT / "pyedb" / "workflows" / "__init__.py"]
    assert not any(path.exists() for path in above), "these are PyEDB's own"
    modules = {path.stem for path in (COMPAT / BACKEND.replace(".", "/")).glob("*.py")}
    assert modules == {"__init__", *MODULES}
