"""What grows with the number of jobs, and what does not: with 1,000 and with 100,000 that wait beside 1,000,000 ended.

Stores are filled through the store's own transactions; nothing starts meanwhile.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
from edbjobs._calls import job_ref
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1 import jobs_service_pb2_grpc

from bench.fill import fill
from bench.load import latencies
from bench.loop import longest_stall
from bench.service import MeasuredService, projects, service
from bench.submits import submitter
from bench.table import Row

QUEUED, ENDED, FEW = 100_000, 1_000_000, 1_000
CALLS = 200
IDLE_SECONDS = 20.0
LISTS = 3
KEPT: dict[str, Any] = {"retention_days": 0.0, "retention_jobs": 0}
# What is measured, its unit, and how much of it is left to a store with many jobs.
_GROWTH = {
    "submit, one client, p50": ("ms", "as with few"),
    "page of 100, p50": ("ms", "as with few"),
    "hold and release, which plan, p50": ("ms", "as with few"),
    "/metrics, p50": ("ms", "as with few"),
    "idle, the loop's probe included": ("% of a core", "as with few"),
    "longest stall when idle": ("ms", "< 30 ms"),
    "restart after kill -9": ("s", "< 5 s"),
}


def growth(folder: Path) -> Iterator[Row]:
    """The same calls on a small store and on a large one; then both are killed and started again."""
    few, many = (_figures(folder / str(queued), queued, ended) for queued, ended in ((FEW, 0), (QUEUED, ENDED)))
    for name, (unit, goal) in _GROWTH.items():
        measure = f"{name}, {QUEUED:,} queued + {ENDED:,} ended"
        yield Row(measure, many[name], unit, goal, few[name], f"{FEW:,} queued")


def whole_list(folder: Path) -> Iterator[Row]:
    """`GET /jobs` without parameters: all live jobs in one answer."""
    with _filled(folder / "s", QUEUED, 0, http="127.0.0.1:0") as (running, report):
        resident, spent = psutil.Process(_pid(running)).memory_info().rss, running.spent()
        lists = [_list(running, report) for _ in range(LISTS)]
        cost = (running.spent() - spent) / LISTS
    seconds, stalls, peaks = zip(*lists, strict=True)
    name = f"GET /jobs with {QUEUED:,} queued"
    yield Row(f"{name}: time", statistics.median(seconds), "s", "< 3 s")
    yield Row(f"{name}: processor time", cost, "s", "")
    yield Row(f"{name}: longest stall of the event loop", statistics.median(stalls), "ms", "< 30 ms")
    yield Row(f"{name}: memory it takes", (max(peaks) - resident) / 2**20, "MiB", "< 60 MiB")


@contextmanager
def _filled(folder: Path, queued: int, ended: int, **settings: Any) -> Iterator[tuple[MeasuredService, Path]]:
    """Run a service that starts nothing on a filled store; gives the report of its event loop too."""
    folder.mkdir()
    fill(folder / "state", ended=ended, queued=queued)
    report = folder / "stalls"
    prelude = f"from bench import probed; probed.install({str(report)!r})"
    try:
        # Not paused, which would come after some had started: there is no room for any.
        with service(folder, prelude=prelude, max_local_jobs=0, **KEPT, **settings) as running:
            yield running, report
    finally:
        shutil.rmtree(folder / "state")  # a million jobs are a gigabyte


def _pid(running: MeasuredService) -> int:
    assert running.process is not None
    return running.process.pid


def _list(running: MeasuredService, report: Path) -> tuple[float, float, int]:
    """Read the whole list; gives seconds, the longest stall in ms, and the most memory meanwhile in bytes."""
    process = psutil.Process(_pid(running))
    peak, started_at = 0, time.monotonic()
    with urllib.request.urlopen(running.endpoint["http"] + "/jobs") as answer:
        while answer.read(1 << 20):
            peak = max(peak, process.memory_info().rss)
    ended = time.monotonic()
    time.sleep(0.1)  # for the probe's last line
    return ended - started_at, longest_stall(report, started_at, ended), peak


def _figures(folder: Path, queued: int, ended: int) -> dict[str, float]:
    with _filled(folder, queued, ended, http="127.0.0.1:0") as (running, report):
        (project,) = projects(folder / "projects", 1)
        found = asyncio.run(_latencies(running, project))
        url = running.endpoint["http"] + "/metrics"
        found.append(_median(lambda: urllib.request.urlopen(url).read()))
        spent, started_at = running.spent(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        over = time.monotonic()
        found += [(running.spent() - spent) / (over - started_at) * 100, longest_stall(report, started_at, over)]
        found.append(_restart_time(running))
    return dict(zip(_GROWTH, found, strict=True))


def _restart_time(running: MeasuredService) -> float:
    """Kill -9; gives the time in s until the next service answers."""
    running.kill()
    started_at = time.perf_counter()
    running.start()
    running.jobs.ListJobs(pb.ListJobsRequest(page_size=1))
    return time.perf_counter() - started_at


async def _latencies(running: MeasuredService, project: Path) -> list[float]:
    async with grpc.aio.insecure_channel(running.target) as channel:
        jobs: Any = jobs_service_pb2_grpc.JobsServiceStub(channel)
        submit = submitter(channel, project)
        uid = (
            (await jobs.ListJobs(pb.ListJobsRequest(page_size=1, order=pb.JOB_ORDER_CREATE_TIME_DESCENDING)))
            .jobs[0]
            .uid
        )

        async def page(number: int) -> object:
            return await jobs.ListJobs(pb.ListJobsRequest(page_size=100, order=pb.JOB_ORDER_CREATE_TIME_DESCENDING))

        async def hold(number: int) -> object:
            call = jobs.ReleaseJob if number % 2 else jobs.HoldJob
            kind = pb.ReleaseJobRequest if number % 2 else pb.HoldJobRequest
            return await call(kind(job=job_ref(uid)))

        return [(await latencies(call, CALLS))[0] for call in (submit, page, hold)]


def _median(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(CALLS // 4):
        started_at = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started_at) * 1000)
    return statistics.median(taken)
