"""The documented commands: their options, what they print, how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from edbjobs_pyedb import http, start_service, submit_batch_jobs, submit_job_on_scheduler, submit_local_job
from edbjobs_pyedb.configuration import create_hfss_config
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.handler import JobManagerHandler
from edbjobs_server.solver.demo import example_project
from support.facade import BACKEND, environment
from support.web import until

DEADLINE = 30.0


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def handler(state: Path) -> Iterator[JobManagerHandler]:
    """A job manager that starts nothing."""
    made = JobManagerHandler(port=0, max_concurrent_jobs=0)
    made.start_service()
    yield made
    made.close()


@pytest.fixture
def command(handler: JobManagerHandler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command's main function against that job manager."""
    monkeypatch.setenv(http.HOST_VARIABLE, "127.0.0.1")
    monkeypatch.setenv(http.PORT_VARIABLE, handler.url.rpartition(":")[2])

    def run(module: ModuleType, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        code = 0
        try:
            module.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    return run


def test_submit_local_job(command: Command, handler: JobManagerHandler, tmp_path: Path) -> None:
    project = example_project(tmp_path)
    done = command(submit_local_job, "--project-path", str(project), "--num-cores", "2")
    assert (done.code, done.err) == (0, "")
    (job_id,) = handler.manager.jobs
    assert done.out == f"submitted {job_id}\n"
    job = handler.manager.jobs[job_id].job
    assert job is not None
    assert (job.project_path, job.reservation.cores, job.state) == (str(project), 2, "queued")


def test_options_are_before_the_environment(command: Command, tmp_path: Path) -> None:
    project = str(example_project(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    done = command(submit_local_job, "--host", "localhost", "--port", port, "--project-path", project)
    assert (done.code, done.out) == (1, "")
    assert "error: the job manager cannot be reached" in done.err
    assert port in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--project-path", "p.aedt", "--num-cores", "0"),
        ("--project-path", "p.aedt", "--port", "x"),
        ("--project-path", "p.aedt", "--nonsense"),
    ],
)
def test_a_wrong_call_ends_with_2(command: Command, arguments: tuple[str, ...]) -> None:
    done = command(submit_local_job, *arguments)
    assert done.code == 2
    assert "usage:" in done.err


def test_a_wrong_port_in_the_environment_ends_with_2(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.PORT_VARIABLE, "eighty")
    assert "expected a port from 0 to 65535, got 'eighty'" in command(submit_local_job, "--project-path", "p.aedt").err


def test_a_refused_job_ends_with_1(command: Command, tmp_path: Path) -> None:
    done = command(submit_local_job, "--project-path", str(tmp_path / "no.aedb"))
    assert (done.code, done.out) == (1, "")
    assert "does not exist" in done.err
    assert "must be a .aedt" in command(submit_local_job, "--project-path", "board.txt").err


def test_warnings_are_told(command: Command, tmp_path: Path) -> None:
    project = example_project(tmp_path)
    layout = project.with_suffix(".aedb")
    layout.mkdir()
    (layout / "edb.def").touch()
    os.utime(project, (1e9, 1e9))
    done = command(submit_local_job, "--project-path", str(layout), "--num-cores", "4000")
    assert done.code == 0
    assert f"warning: {project.name} is older" in done.err
    assert "warning: asks for 4000 cores" in done.err


def test_submit_batch_jobs(command: Command, handler: JobManagerHandler, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a", "b", "deep/c"):
        example_project(root / name)
    (root / "a" / "x.aedtresults" / "y.aedt").parent.mkdir()
    assert command(submit_batch_jobs, "--root-dir", str(root)) == (1, "", f"error: there is no project in {root}\n")
    done = command(
        submit_batch_jobs, "--root-dir", str(root), "--recursive", "--num-cores", "1", "--delay-ms", "0", "-v"
    )
    assert (done.code, done.err) == (0, "")
    assert len(handler.manager.jobs) == done.out.count("submitted") == 3
    assert str(root / "deep" / "c" / "patch_antenna.aedt") in done.out


def test_a_bad_project_stops_no_other(command: Command, handler: JobManagerHandler, tmp_path: Path) -> None:
    example_project(tmp_path / "root")
    (tmp_path / "root" / "empty.aedb").mkdir()
    done = command(submit_batch_jobs, "--root-dir", str(tmp_path / "root"), "--delay-ms", "0")
    assert done.code == 1
    assert done.out.startswith("submitted ")
    assert "empty.aedb" in done.err
    assert "error: 1 of 2 projects were not submitted" in done.err
    assert command(submit_batch_jobs, "--root-dir", str(tmp_path / "none")).code == 2


def test_of_a_pair_the_newer_one_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = example_project(tmp_path / "a"), example_project(tmp_path / "b")
    for project, time_ in ((old, 1e9), (new, 2e9)):
        layout = project.with_suffix(".aedb")
        layout.mkdir()
        (layout / "edb.def").touch()
        os.utime(project, (time_, time_))
        os.utime(layout, (1.5e9, 1.5e9))
        os.utime(layout / "edb.def", (1.5e9, 1.5e9))
    assert submit_batch_jobs.scan_projects(tmp_path, recursive=True) == [old.with_suffix(".aedb"), new]
    assert f"warning: {old} is older than {old.stem}.aedb" in capsys.readouterr().err


def test_submit_job_on_scheduler_is_honest(command: Command, handler: JobManagerHandler, tmp_path: Path) -> None:
    project = str(example_project(tmp_path))
    done = command(submit_job_on_scheduler, "--project-path", project, "--run-limit", "unlimited", "--nodes", "2")
    assert done.code == 1
    assert "has no cluster" in done.err
    assert "no scheduler answers there" in done.err
    assert list(handler.manager.jobs) == []
    assert command(submit_job_on_scheduler, "--project-path", project, "--run-limit", "soon").code == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [("unlimited", ""), ("24", "1-00:00:00"), ("30", "1-06:00:00"), ("12:30:00", "12:30:00"), ("2-12:00:00",) * 2],
)
def test_run_limits(given: str, expected: str) -> None:
    assert submit_job_on_scheduler.scheduler_time(given) == expected


def test_submit_job_to_manager(handler: JobManagerHandler, tmp_path: Path) -> None:
    config = create_hfss_config(example_project(tmp_path), jobid="by-function")
    assert asyncio.run(http.submit_job_to_manager(config, 7, handler.url)) == "by-function"
    assert handler.manager.jobs["by-function"].priority == 7
    handler.close()
    with pytest.raises(JobManagerError, match="cannot be reached"):
        asyncio.run(http.submit_job_to_manager(config, manager_url=handler.url))


def test_another_http_server_is_reported(state: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async def submit() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            config = create_hfss_config("/p/board.aedb")
            await http.submit_job_to_manager(config, manager_url=f"http://127.0.0.1:{port}")

    with pytest.raises(JobManagerError, match="not that of a job manager"):
        asyncio.run(submit())


# The job manager itself as a program -------------------------------------------------------------------------


class Program:
    """A module of the documented path that runs."""

    def __init__(self, state: Path, module: str, *arguments: str) -> None:
        self.log = state / "program.out"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{BACKEND}.{module}", *arguments],
                env=environment(state),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def until(self, text: str) -> str:
        """Wait until it has printed a text; return its output."""
        end = time.monotonic() + DEADLINE
        while text not in (output := self.log.read_text()):
            assert self.process.poll() is None, output
            assert time.monotonic() < end, output
            time.sleep(0.02)
        return output

    def stop(self) -> str:
        """Request its end; return its output."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE) == 0
        return self.log.read_text()


@pytest.fixture
def run_module(state: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(module: str, *arguments: str) -> Program:
        started.append(Program(state, module, *arguments))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def test_the_documented_command_line(
    run_module: Callable[..., Program], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    service = run_module("job_manager_handler", "--host", "0.0.0.0", "--port", port)
    output = service.until("answers at")
    token = (state / "embedded" / f"0.0.0.0-{port}" / "token").read_text().strip()
    assert f":{port}/?token={token}" in output
    config = create_hfss_config(example_project(tmp_path), environment={"ANS_EDBJOBS_DEMO": "seconds=0.1"})
    url = f"http://127.0.0.1:{port}"
    with pytest.raises(JobManagerError, match="Bearer"):
        asyncio.run(http.submit_job_to_manager(config, manager_url=url))
    monkeypatch.setenv("EDBJOBS_TOKEN", token)
    asyncio.run(http.submit_job_to_manager(config, manager_url=url))
    assert f"edbjobs: closed {url}" in service.stop()
    assert os.listdir(state / "embedded") == [f"0.0.0.0-{port}"]


def test_start_service_holds_and_resumes(run_module: Callable[..., Program], tmp_path: Path, state: Path) -> None:
    port = free_port()
    here = ("start_service", "--port", port, "--min-disk", "0", "--min-memory", "0", "--max-concurrent-jobs", "1")
    service = run_module(*here)
    service.until("answers at")
    url = f"http://127.0.0.1:{port}"
    demo: dict[str, Any] = {"environment": {"ANS_EDBJOBS_DEMO": "seconds=60"}, "cancel_grace": 1}
    for name in ("first", "second"):
        config = create_hfss_config(example_project(tmp_path / name), jobid=name, **demo)
        asyncio.run(http.submit_job_to_manager(config, manager_url=url))
    asyncio.run(runs(url, "first"))
    assert "1 solve goes on running, 1 job stays queued and held" in service.stop()
    service = run_module(*here)
    output = service.until("answers at")
    assert "held since an earlier session: second" in output
    assert "start with --resume" in output
    service.stop()
    service = run_module(*here, "--resume")
    assert "1 jobs of an earlier session are released" in service.until("answers at")
    asyncio.run(cancel(url, "second", "first"))
    service.stop()


async def runs(url: str, name: str) -> None:
    async with http.get_session(url) as session:

        async def is_running() -> bool:
            return bool((await http.ask(session, "GET", f"/jobs/{name}"))["status"] == "running")

        await until(is_running)


async def cancel(url: str, *names: str) -> None:
    async with http.get_session(url) as session:
        for name in names:
            await http.ask(session, "POST", f"/jobs/{name}/cancel")


def test_a_service_that_cannot_start_exits_with_2(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(sys, "argv", ["start_service", "--port", str(taken.getsockname()[1])])
        with pytest.raises(SystemExit) as ended:
            start_service.main()
    for number, action in before.items():
        signal.signal(number, action)
    assert ended.value.code == 2
    assert "is not available" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--min-disk", "-1"), ("--min-memory", "nan"), ("--max-concurrent", "0")])
def test_limits_that_cannot_be(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["start_service", *arguments])
    with pytest.raises(SystemExit) as ended:
        start_service.parse_cli()
    assert ended.value.code == 2


def test_the_documented_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["start_service"])
    args = start_service.parse_cli()
    assert (args.host, args.port, args.max_concurrent, args.min_disk, args.min_memory) == ("localhost", 8080, 4, 10, 2)
