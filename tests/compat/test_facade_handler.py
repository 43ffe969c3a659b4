"""JobManagerHandler: what programs that are not asynchronous see."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.handler import JobManagerHandler
from edbjobs_pyedb.jobs import JobId, JobInfo, JobStatus
from edbjobs_server.core.job import Job
from edbjobs_server.store import Store
from support.facade import ROOT, config, program

SLOW = 60.0  # seconds of a solve that is cancelled by its test


@pytest.fixture
def open_handler(state: Path) -> Iterator[Callable[..., JobManagerHandler]]:
    made: list[JobManagerHandler] = []

    def make(start: bool = True, **settings: Any) -> JobManagerHandler:
        made.append(JobManagerHandler(port=0, **settings))
        if start:
            made[-1].start_service()
        return made[-1]

    yield make
    for handler in made:
        if handler.started:
            end_all(handler)
        handler.close()


def end_all(handler: JobManagerHandler) -> None:
    handler.resume()
    for job_id in handler.manager.jobs:
        asyncio.run(handler.manager.cancel_job(job_id))
    handler.wait_until_all_done()


def get(handler: JobManagerHandler, path: str) -> Any:
    with urllib.request.urlopen(handler.url + path, timeout=10) as response:
        return json.load(response)


def test_a_job_from_submit_to_its_end(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler()
    job_id = handler.submit_job(config(tmp_path), priority=3)
    assert handler.wait_until_done(job_id) == "completed"
    info = handler.manager.jobs[job_id]
    assert isinstance(info, JobInfo)
    assert (info.status, info.return_code, info.priority) == ("completed", 0, 3)
    assert info.status is JobStatus.COMPLETED
    assert info.status in {"completed", "failed"}
    assert info.start_time is not None
    assert info.end_time is not None
    assert info.start_time < info.end_time
    assert info.start_time.tzinfo is None
    assert "Converged" in info.output or "normal completion" in info.output.lower()
    assert info.error == ""
    assert info.config.project_path == str(tmp_path / "patch_antenna.aedt")
    assert info.job is not None
    assert info.job.outcome is not None
    assert info.job.outcome.evidence == "solver_log"
    assert [job["id"] for job in get(handler, "/jobs")] == [job_id]


def test_the_id_is_a_text_that_can_be_awaited(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler()
    plain = handler.submit_job(config(tmp_path / "a"))
    ran: str = asyncio.run(handler.submit_job(config(tmp_path / "b")))

    async def awaited() -> list[str]:
        one = await handler.submit_job(config(tmp_path / "c"))
        many = await asyncio.gather(*(handler.submit_job(config(tmp_path / name)) for name in "de"))
        return [one, *many]

    ids = [plain, ran, *asyncio.run(awaited())]
    assert all(isinstance(job_id, str) and job_id in handler.manager.jobs for job_id in ids)
    assert len(set(ids)) == 5
    assert json.dumps(plain) == f'"{plain}"'
    end_all(handler)


def test_an_id_passes_on_what_is_thrown_into_it() -> None:
    with pytest.raises(KeyError, match="x"):
        JobId("a").throw(KeyError("x"))
    with pytest.raises(ValueError, match="y"):
        JobId("a").throw(ValueError, ValueError("y"))


def test_limits_act(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler(start=False)
    handler.manager.resource_limits.max_concurrent_jobs = 0
    handler.start_service()
    assert get(handler, "/pool/limits")["max_concurrent_jobs"] == 0
    job_id = handler.submit_job(config(tmp_path, SLOW))
    assert handler.manager.job_pool.get_queue_stats()["total_queued"] == 1
    handler.manager.resource_limits.max_concurrent_jobs = 4
    assert get(handler, "/pool/limits")["max_concurrent_jobs"] == 4
    wait_for(lambda: handler.manager.job_pool.running_jobs == {job_id})
    assert handler.resource_limits.max_concurrent_jobs == 4
    with pytest.raises(JobManagerError, match="integer") as error:
        handler.manager.resource_limits.max_concurrent_jobs = True
    assert error.value.reason == "INVALID_LIMITS"
    with pytest.raises(AttributeError, match="there is no limit"):
        handler.manager.resource_limits.max_jobs = 1  # type: ignore[attr-defined]


def wait_for(is_so: Callable[[], bool], deadline: float = 30.0) -> None:
    ended = threading.Event()
    for _ in range(int(deadline / 0.02)):
        if is_so():
            return
        ended.wait(0.02)
    raise AssertionError("it did not come true in time")


def on_disk(handler: JobManagerHandler) -> tuple[Job, ...]:
    """Live jobs in the store of a handler that is closed."""
    assert handler.manager.state_dir is not None
    store = Store.open(handler.manager.state_dir)
    found = store.snapshot().jobs
    asyncio.run(store.close())
    return found


def test_what_close_leaves_is_held_until_resume(
    open_handler: Callable[..., JobManagerHandler], tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = open_handler()
    running = first.submit_job(config(tmp_path / "a", 3.0))
    wait_for(lambda: first.manager.jobs[running].status == "running")
    waiting = first.submit_job(config(tmp_path / "b", jobid="waits"))
    first.close()
    assert "1 solve goes on running, 1 job stays queued and held" in capsys.readouterr().out
    assert [job.held for job in on_disk(first) if job.id == waiting] == [True]
    second = open_handler()
    assert "held since an earlier session: waits; resume() starts them" in capsys.readouterr().out
    assert second.manager.held == [waiting]
    assert second.manager.jobs[running].status == "running"
    new = second.submit_job(config(tmp_path / "c"))
    second.wait_until_all_done()
    assert second.manager.jobs[running].status == "completed", "it went on while no service ran"
    assert second.manager.jobs[new].status == "completed", "held jobs block no others"
    held = second.manager.jobs[waiting].job
    assert held is not None
    assert held.waiting is not None
    assert (held.state, held.held, held.waiting.reason) == ("queued", True, "held")
    assert second.resume() == 1
    assert second.wait_until_done(waiting) == "completed"
    second.close()
    assert "0 solves go on running, 0 jobs stay queued and held" in capsys.readouterr().out


def test_jobs_of_a_program_that_died_are_held_too(
    open_handler: Callable[..., JobManagerHandler], tmp_path: Path, state: Path
) -> None:
    lines = f"""
import os
from pathlib import Path
from edbjobs_pyedb.handler import JobManagerHandler
from edbjobs_server.store import Store
from support.facade import ROOT, config, program
handler = JobManagerHandler(port=0, state_dir={str(tmp_path / "kept")!r})
handler.start_service()
handler.submit_job(config(Path({str(tmp_path / "a")!r}), 60))
handler.submit_job(config(Path({str(tmp_path / "b")!r}), jobid="waits"))
os._exit(3)
"""
    assert program(state, "-c", lines, PYTHONPATH=str(ROOT / "tests")).returncode == 3
    handler = open_handler(state_dir=tmp_path / "kept")
    assert handler.manager.held == ["waits"]


def test_any_thread_may_ask(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler(start=False)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: handler.start_service(), range(8)))
        ids = list(pool.map(lambda n: handler.submit_job(config(tmp_path / str(n), 0.05)), range(6)))
        assert set(pool.map(handler.wait_until_done, ids)) == {"completed"}
    assert list(handler.manager.jobs) == sorted(ids, key=lambda i: handler.manager.jobs[i].job.create_time)  # type: ignore
    assert len(handler.manager.jobs) == 6


def test_a_port_in_use_is_reported_at_once(open_handler: Callable[..., JobManagerHandler], state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        handler = JobManagerHandler(port=port)
        with pytest.raises(JobManagerError, match=f"localhost:{port} is not available") as error:
            handler.start_service()
        assert error.value.reason == "PORT_IN_USE"
    handler.start_service()
    handler.close()


def test_a_setting_that_is_wrong(open_handler: Callable[..., JobManagerHandler]) -> None:
    with pytest.raises(JobManagerError, match=r"no\.such\.host:8080. is not allowed"):
        JobManagerHandler(host="no.such.host").start_service()
    with pytest.raises(JobManagerError, match="there is no setting --foo"):
        open_handler(foo=1)


def test_without_an_aedt(
    open_handler: Callable[..., JobManagerHandler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDBJOBS_DEMO_SOLVER")
    handler = open_handler()
    assert handler.ansys_path is None
    cfg = handler.create_simulation_config(config(tmp_path).project_path)
    with pytest.raises(JobManagerError, match="no AEDT is installed") as error:
        handler.submit_job(cfg)
    assert error.value.reason == "SOLVER_NOT_FOUND"
    assert list(handler.manager.jobs) == []


def test_a_cluster_is_refused_by_name(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler()
    cfg = handler.create_simulation_config(config(tmp_path).project_path, scheduler_type="slurm", cpu_cores=16)
    assert handler.scheduler_type == "none"
    with pytest.raises(JobManagerError, match="cannot hand jobs to slurm") as error:
        handler.submit_job(cfg)
    assert error.value.reason == "NO_SCHEDULER"


def test_a_live_id_answers_with_its_job(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler()
    handler.submit_job(config(tmp_path / "a", SLOW, jobid="one"))
    with pytest.warns(UserWarning, match="this configuration was not submitted"):
        assert handler.submit_job(config(tmp_path / "b", SLOW, jobid="one")) == "one"
    assert len(handler.manager.jobs) == 1


def test_a_stale_aedt_is_warned_of(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler()
    cfg = config(tmp_path, SLOW)
    layout = tmp_path / "patch_antenna.aedb"
    layout.mkdir()
    (layout / "edb.def").touch()
    os.utime(cfg.project_path, (1e9, 1e9))
    with pytest.warns(UserWarning, match="patch_antenna.aedt is older"):
        handler.submit_job(cfg)


def test_a_submitted_configuration_is_a_copy(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler()
    handler.manager.resource_limits.max_concurrent_jobs = 0
    cfg = config(tmp_path, SLOW)
    job_id = handler.submit_job(cfg)
    cfg.machine_nodes[0].cores = 2
    cfg.project_path = "/elsewhere.aedt"
    kept = handler.manager.jobs[job_id].config
    assert (kept.machine_nodes[0].cores, kept.project_path) == (1, str(tmp_path / "patch_antenna.aedt"))


def test_after_close_it_says_so(open_handler: Callable[..., JobManagerHandler], tmp_path: Path) -> None:
    handler = open_handler(start=False)
    with pytest.raises(JobManagerError, match=r"start_service\(\)"):
        handler.submit_job(config(tmp_path))
    handler.start_service()
    handler.start_service()
    job_id = handler.submit_job(config(tmp_path / "p", SLOW))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handler.wait_until_done, job_id)
        wait_for(lambda: handler.manager.jobs[job_id].status == "running")
        handler.close()
        with pytest.raises(JobManagerError, match="not running"):
            waiting.result(10)
    handler.close()
    with pytest.raises(JobManagerError) as error:
        handler.manager.jobs["x"]
    assert error.value.reason == "NOT_RUNNING"
    handler.start_service()
    asyncio.run(handler.manager.cancel_job(job_id))
    assert handler.wait_until_done(job_id) == "cancelled"


def test_stop_service_and_unknown_jobs(open_handler: Callable[..., JobManagerHandler]) -> None:
    handler = open_handler()
    assert "nothing" not in handler.manager.jobs
    with pytest.raises(KeyError):
        handler.manager.jobs["nothing"]
    with pytest.raises(JobManagerError, match="there is no job"):
        handler.wait_until_done("nothing")
    asyncio.run(handler.stop_service())
    assert not handler.started


def test_the_program_keeps_what_is_its_own(
    open_handler: Callable[..., JobManagerHandler], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = os.umask(0o022)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    handler = open_handler()
    try:
        handler.submit_job(config(tmp_path))
        handler.wait_until_all_done()
        assert (list(root.handlers), root.level) == (handlers, level)
        assert handler.manager.state_dir is not None
        assert handler.manager.state_dir.stat().st_mode & 0o077 == 0
        change = urllib.request.Request(handler.url + "/system/start_monitoring", method="POST")
        urllib.request.urlopen(change, timeout=10).close()
        handler.close()
        lines = (handler.manager.state_dir / "edbjobs.log").read_text().splitlines()
        assert "/system/start_monitoring" in [json.loads(line).get("path") for line in lines]
    finally:
        handler.close()
        assert os.umask(before) == 0o022
    assert capfd.readouterr().err == ""
    assert not structlog.is_configured()
    assert logging.getLogger("edbjobs_server").handlers == []


def test_versions_choose_the_release(state: Path) -> None:
    class Edb:
        version = "2025.2"

    made = JobManagerHandler(edb=Edb()).create_simulation_config("/p/a.aedb", cpu_cores=4)
    assert (made.native().aedt_version, made.native().machine_nodes[0].cores) == ("2025.2", 4)
    made = JobManagerHandler(version="252").create_simulation_config("/p/a.aedb", user="ann")
    assert (made.native().aedt_version, made.native().user) == ("252", "ann")
    made = JobManagerHandler(version="252").create_simulation_config("/p/a.aedb", ansys_edt_path="/opt/ansysedt")
    assert (made.native().aedt_version, made.native().ansys_edt_path) == ("", "/opt/ansysedt")
