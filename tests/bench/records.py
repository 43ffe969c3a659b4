"""Many jobs on record: a page of a million, memory with a hundred thousand, a restart with ten thousand waiting."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from edbjobs.v1 import job_pb2, job_state_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs_server.store.database import FILE
from support.service import ServiceProcess

from bench.fill import fill_ended
from bench.service import pause, projects, request, service
from bench.table import Row

MANY = 1_000_000
FEW = 1_000
ENDED = 100_000
QUEUED = 10_000
RUNNING = 100
PAGES = 50
KEPT: dict[str, Any] = {"retention_days": 0.0, "retention_jobs": 0}


def page(folder: Path) -> Iterator[Row]:
    """A hundred jobs out of a million: the first page and those that follow."""
    few, many = (_page_time(folder / str(number), number) for number in (FEW, MANY))
    yield Row(f"page of 100 of {MANY:,} jobs, p50", many, "ms", "keep < 2 ms", few, f"of {FEW:,} jobs")


def _page_time(folder: Path, number: int) -> float:
    folder.mkdir()
    fill_ended(folder / "state", number)
    taken = []
    with service(folder, **KEPT) as running:
        token = ""
        for _ in range(PAGES):
            started_at = time.perf_counter()
            answer = running.jobs.ListJobs(
                pb.ListJobsRequest(page_size=100, page_token=token, order=pb.JOB_ORDER_CREATE_TIME_DESCENDING)
            )
            taken.append((time.perf_counter() - started_at) * 1000)
            assert len(answer.jobs) == 100
            token = answer.next_page_token
    (folder / "state" / FILE).unlink()  # a million jobs are a gigabyte
    return statistics.median(taken[1:])


def memory(folder: Path) -> Iterator[Row]:
    """Resident memory of the whole service, all endpoints open, after its records were paged through."""
    sizes = [_resident(folder / str(number), number) for number in (0, ENDED)]
    yield Row(
        f"memory with {ENDED:,} ended jobs on record", sizes[1], "MiB", "keep < 100 MiB", sizes[0], "none on record"
    )


def _resident(folder: Path, number: int) -> float:
    folder.mkdir()
    fill_ended(folder / "state", number)
    with service(folder, http="127.0.0.1:0") as running:
        token = ""
        for _ in range(20):
            answer = running.jobs.ListJobs(pb.ListJobsRequest(page_size=1000, page_token=token))
            token = answer.next_page_token
        assert running.process is not None
        return float(psutil.Process(running.process.pid).memory_info().rss / 2**20)


def restart(folder: Path) -> Iterator[Row]:
    """Kill -9 with jobs waiting and running; the time until the next service answers, all runs adopted."""
    paths = projects(folder / "projects", QUEUED + RUNNING)
    empty = _restart_time(folder / "empty", [])
    full = _restart_time(folder / "full", paths)
    name = f"restart with {QUEUED:,} queued and {RUNNING} running jobs"
    yield Row(name, full, "s", "keep < 1 s", empty, "no jobs")


def _restart_time(folder: Path, paths: list[Path]) -> float:
    with service(folder, script="exec sleep 600", max_local_jobs=RUNNING, max_cores=RUNNING) as running:
        for begin in range(0, len(paths), 1000):
            part = [request(path, request_id=path.name) for path in paths[begin : begin + 1000]]
            running.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=part))
        before = wait_until_running(running, RUNNING if paths else 0)
        pause(running)  # what is ended below must not make room for others
        try:
            running.kill()
            started_at = time.perf_counter()
            running.start()
            running.jobs.ListJobs(pb.ListJobsRequest(page_size=1))
            taken = time.perf_counter() - started_at
            assert wait_until_running(running, len(before)) == before, "not all runs were adopted"
        finally:
            for pid in before:
                os.kill(pid, signal.SIGKILL)
    return taken


def wait_until_running(running: ServiceProcess, expected: int) -> set[int]:
    """Wait until so many jobs run; gives the pids of their solvers."""
    states = pb.JobFilter(states=[job_state_pb2.JOB_STATE_RUNNING])
    deadline = time.monotonic() + 60
    while True:
        answer = running.jobs.ListJobs(pb.ListJobsRequest(filter=states, page_size=1000, view=job_pb2.JOB_VIEW_FULL))
        pids = {job.attempts[-1].pid for job in answer.jobs if job.attempts[-1].pid}
        if len(pids) >= expected:
            return pids
        assert time.monotonic() < deadline, f"{len(pids)} of {expected} run"
        time.sleep(0.05)
