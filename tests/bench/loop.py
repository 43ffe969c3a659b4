"""The event loop under load, and the service when it is idle."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1 import jobs_service_pb2_grpc

from bench.fill import fill_ended
from bench.load import rate
from bench.service import projects, request, service
from bench.table import Row

LOAD_SECONDS = 6.0
WATCHERS = 100
IDLE_SECONDS = 12.0


def stall(folder: Path) -> Iterator[Row]:
    """Submits, runs, pages, batches and watchers at once: the longest time the loop did nothing else."""
    paths = projects(folder / "projects", 2000)
    report = folder / "stalls"
    fill_ended(folder / "s" / "state", 20_000)
    prelude = f"from bench import probed; probed.install({str(report)!r})"
    with service(folder / "s", prelude=prelude) as running:
        started_at = time.monotonic()
        asyncio.run(_load(running.target, paths))
        ended = time.monotonic()
    yield Row("longest stall of the event loop under load", longest_stall(report, started_at, ended), "ms", "< 30 ms")


def longest_stall(report: Path, started_at: float, ended: float) -> float:
    """Read a probe's report; gives the longest gap between two monotonic moments in ms, 5 ms where it saw none."""
    found = [line.split() for line in report.read_text().splitlines()] if report.exists() else []
    return max((float(taken) for moment, taken in found if started_at <= float(moment) <= ended), default=5.0)


async def _load(target: str, paths: list[Path]) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        jobs = jobs_service_pb2_grpc.JobsServiceStub(channel)
        watching = [asyncio.create_task(_watch(jobs)) for _ in range(WATCHERS)]

        async def submit(number: int) -> object:
            return await jobs.SubmitJob(request(paths[number % 1000], request_id=uuid.uuid4().hex))

        async def list_jobs(number: int) -> object:
            return await jobs.ListJobs(pb.ListJobsRequest(page_size=1000))

        async def submit_many(number: int) -> object:
            return await jobs.SubmitJobs(pb.SubmitJobsRequest(requests=[request(path) for path in paths[1000:]]))

        await asyncio.gather(
            rate(submit, 8, LOAD_SECONDS), rate(list_jobs, 1, LOAD_SECONDS), rate(submit_many, 1, LOAD_SECONDS)
        )
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


async def _watch(jobs: jobs_service_pb2_grpc.JobsServiceStub) -> None:
    answers: Any = jobs.WatchJobs(pb.WatchJobsRequest())
    async for _ in answers:
        pass


def idle(folder: Path) -> Iterator[Row]:
    """Processor time of the service and its launcher while nothing happens, of one core."""
    with service(folder / "s", http="127.0.0.1:0") as running:
        time.sleep(2)
        before, started_at = running.spent(), time.perf_counter()
        time.sleep(IDLE_SECONDS)
        share = (running.spent() - before) / (time.perf_counter() - started_at)
    yield Row("idle service", share * 100, "% of a core", "keep < 0.25 %")
