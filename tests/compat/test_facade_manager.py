"""JobManager by itself: what asynchronous programs see."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.jobs import JobStatus
from edbjobs_pyedb.service import JobManager, ResourceLimits, ResourceMonitor
from support.facade import ROOT, config, program
from support.web import until

SLOW = 60.0


@pytest.fixture
async def manager(state: Path) -> AsyncIterator[JobManager]:
    made = JobManager(ResourceLimits(max_concurrent_jobs=4))
    yield made
    for job_id in list(made.jobs) if made.running else ():
        await made.cancel_job(job_id)
    if made.running:
        await made.wait_until_all_done()
    await asyncio.to_thread(made.close)


async def test_a_job_from_submit_to_its_end(manager: JobManager, state: Path, tmp_path: Path) -> None:
    assert not manager.running
    assert manager.resource_limits.max_concurrent_jobs == 4
    job_id = await manager.submit_job(config(tmp_path), priority=5)
    await manager.wait_until_all_done()
    assert manager.jobs[job_id].status == JobStatus.COMPLETED
    assert manager.jobs[job_id].status == "completed"
    assert manager.jobs[job_id].priority == 5
    assert manager.resource_limits.max_concurrent_jobs == 4
    assert manager.url == ""
    folder = manager.state_dir
    assert folder is not None
    assert folder.parent == state / "embedded"
    manager.close()
    assert not folder.exists(), "nothing of it is left"


async def test_each_manager_is_one_of_its_own(manager: JobManager, tmp_path: Path) -> None:
    other = JobManager()
    one = await manager.submit_job(config(tmp_path / "a", SLOW))
    two = await other.submit_job(config(tmp_path / "b"))
    assert (list(manager.jobs), list(other.jobs)) == ([one], [two])
    await other.wait_until_all_done()
    other.close()


async def test_it_serves_more_than_one_loop(manager: JobManager, tmp_path: Path) -> None:
    cfg = config(tmp_path)
    job_id = await asyncio.to_thread(lambda: asyncio.run(manager.submit_job(cfg)))
    await manager.wait_until_all_done()
    assert manager.jobs[job_id].status == "completed"


async def test_cancel(manager: JobManager, tmp_path: Path) -> None:
    job_id = await manager.submit_job(config(tmp_path, SLOW))
    assert await manager.cancel_job(job_id)
    await manager.wait_until_all_done()
    assert manager.jobs[job_id].status == "cancelled"
    assert not await manager.cancel_job(job_id)
    assert not await manager.cancel_job("nothing")


async def test_a_wait_can_be_cancelled_and_ends_with_the_manager(manager: JobManager, tmp_path: Path) -> None:
    await manager.submit_job(config(tmp_path, SLOW))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(manager.wait_until_all_done(), 0.05)
    waiting = asyncio.create_task(manager.wait_until_all_done())
    await asyncio.sleep(0)
    left = await asyncio.to_thread(manager.close)
    assert (left.running, left.queued) == (1, 0)
    with pytest.raises(JobManagerError, match="not running"):
        await asyncio.wait_for(waiting, 10)
    with pytest.raises(JobManagerError, match="not running"):
        await manager.submit_job(config(tmp_path))
    manager.start()


async def test_limits(manager: JobManager) -> None:
    assert await manager.edit_concurrent_limits({}) is None
    limits = await manager.edit_concurrent_limits({"max_concurrent_jobs": 3, "min_disk_gb": 1})
    assert limits == {"max_concurrent_jobs": 3, "max_cpu_percent": 0.0, "min_memory_gb": 0.0, "min_disk_gb": 1.0}
    with pytest.raises(JobManagerError) as error:
        await manager.edit_concurrent_limits({"max_concurrent_jobs": 9, "nonsense": 1})
    assert error.value.fields == {"nonsense": "no such limit"}
    assert manager.resource_limits.max_concurrent_jobs == 3
    manager.resource_limits = ResourceLimits(max_cpu_percent=80.0)
    assert (manager.resource_limits.max_cpu_percent, manager.resource_limits.max_concurrent_jobs) == (80.0, 3)


def test_a_default_that_was_not_set_is_no_limit() -> None:
    assert ResourceLimits() == ResourceLimits(1, 80.0, 2.0, 2.0)
    assert ResourceLimits().given() == {}
    assert ResourceLimits(1, min_disk_gb=2.0).given() == {"max_concurrent_jobs": 1, "min_disk_gb": 2.0}


async def test_the_scheduler_of_a_manager(state: Path, tmp_path: Path) -> None:
    manager = JobManager(scheduler_type="slurm")
    with pytest.raises(JobManagerError, match="cannot hand jobs to slurm"):
        await manager.submit_job(config(tmp_path))
    manager.close()


async def test_a_configuration_that_cannot_be(manager: JobManager, tmp_path: Path) -> None:
    cfg = config(tmp_path)
    cfg.machine_nodes[0].cores = 0
    with pytest.raises(ValueError, match="cores"):
        await manager.submit_job(cfg)
    assert not manager.running


async def _usage(monitor: ResourceMonitor) -> object:
    return monitor.current_usage


async def test_the_host_is_watched(manager: JobManager) -> None:
    manager.start()
    alone = ResourceMonitor(update_interval=1)
    watching = asyncio.create_task(alone.monitor_resources())
    for monitor in (manager.resource_monitor, alone):
        await until(partial(_usage, monitor))
        assert {"cpu_percent", "memory_total_gb", "disk_free_gb", "timestamp"} <= monitor.current_usage.keys()
    watching.cancel()
    await manager.resource_monitor.monitor_resources()


PROGRAM = """
import asyncio
from pathlib import Path
from edbjobs_pyedb.service import JobManager
from support.facade import config
manager = JobManager()
print(asyncio.run(manager.submit_job(config(Path({folder!r}), {seconds}))))
{then}
"""


def test_a_program_that_ends_says_what_goes_on(state: Path, tmp_path: Path) -> None:
    then = "import time\nwhile not any(manager.jobs[job].status == 'running' for job in manager.jobs): time.sleep(0.02)"
    lines = PROGRAM.format(folder=str(tmp_path / "p"), seconds=3, then=then)
    done = program(state, "-c", lines, PYTHONPATH=str(ROOT / "tests"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "the program ends: 1 solve goes on running, 0 jobs stay queued and held" in done.stdout
    (folder,) = (state / "embedded").iterdir()
    manager = JobManager(state_dir=folder)
    manager.start()
    asyncio.run(manager.wait_until_all_done())
    assert [manager.jobs[job_id].status for job_id in manager.jobs] == ["completed"]
    manager.close()
    assert folder.exists(), "it was given, so it is not this manager's to remove"


def test_a_program_that_has_seen_the_end_leaves_nothing(state: Path, tmp_path: Path) -> None:
    then = "asyncio.run(manager.wait_until_all_done())"
    lines = PROGRAM.format(folder=str(tmp_path / "p"), seconds=0.1, then=then)
    done = program(state, "-c", lines, PYTHONPATH=str(ROOT / "tests"))
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert list((state / "embedded").iterdir()) == []


def test_a_forked_child_touches_nothing(state: Path, tmp_path: Path) -> None:
    then = "import multiprocessing as m; p = m.get_context('fork').Process(target=int); p.start(); p.join()\n"
    then += "asyncio.run(manager.wait_until_all_done()); print(manager.state_dir.exists())"
    lines = PROGRAM.format(folder=str(tmp_path / "p"), seconds=0.5, then=then)
    quiet = {"GRPC_VERBOSITY": "ERROR", "PYTHONWARNINGS": "ignore"}
    done = program(state, "-c", lines, PYTHONPATH=str(ROOT / "tests"), **quiet)
    assert (done.returncode, done.stderr, done.stdout.split()[-1]) == (0, "", "True")
    assert "program ends" not in done.stdout


def test_the_environment_decides_on_the_stand_in(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBJOBS_DEMO_SOLVER", "0")
    assert os.environ["EDBJOBS_STATE_DIR"] == str(state)
    manager = JobManager()
    assert manager.ansys_path is None
    manager.close()
    manager = JobManager(demo_solver=True)
    assert manager.ansys_path is not None
    assert "demo" in manager.ansys_path
    manager.close()
