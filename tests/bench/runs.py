"""Runs: no-op jobs from end to end, and how soon a submitted job's process is there."""

from __future__ import annotations

import asyncio
import os
import select
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc.aio
from edbjobs._calls import job_ref
from edbjobs.v1 import event_pb2, job_state_pb2, jobs_service_pb2_grpc
from edbjobs.v1 import jobs_messages_pb2 as pb
from support.service import ServiceProcess

from bench import references
from bench.postgres import postgres
from bench.service import NOOP, projects, request, service
from bench.table import Row

ROUNDS = 3
JOBS = 500
AT_ONCE = 2
STARTS = 40
WAIT_SECONDS = 60


def noop_jobs(folder: Path) -> Iterator[Row]:
    """Jobs that do nothing, submitted in one call, until the last end is on disk and reported."""
    paths = projects(folder / "projects", JOBS)
    values, floors = [], []
    others: dict[str, list[float | None]] = {name: [] for name in references.PEERS}
    with service(folder / "s", max_local_jobs=AT_ONCE) as running, postgres() as database:
        for _ in range(ROUNDS):
            values.append(asyncio.run(run_all(running, paths)))
            floors.append(_spawn_rate(folder / "ends"))
            for name, found in others.items():
                found.append(references.noop_rate(name, folder, paths, NOOP, database))
    yield Row(
        "no-op jobs end to end, 2 at a time",
        statistics.median(values),
        "/s",
        "ahead of the reference and the durable peers; ≥ 0.25 of the floor",
        statistics.median(floors),
        "spawn + one fsync",
        {name: _median(found) for name, found in others.items()},
        more_is_better=True,
    )


def _median(found: Sequence[float | None]) -> float | None:
    known = [value for value in found if value is not None]
    return statistics.median(known) if known else None


async def run_all(running: ServiceProcess, paths: list[Path]) -> float:
    """Run no-op jobs; return jobs a second, until the last end is on disk and reported."""
    async with grpc.aio.insecure_channel(running.target) as channel:
        jobs = jobs_service_pb2_grpc.JobsServiceStub(channel)
        started_at = time.perf_counter()
        answer = await jobs.SubmitJobs(pb.SubmitJobsRequest(requests=[request(path) for path in paths]))
        left = {result.response.job.uid for result in answer.results}
        after = min(result.response.job.revision for result in answer.results)
        async for message in jobs.WatchJobs(
            pb.WatchJobsRequest(after=event_pb2.Position(revision=after)), timeout=WAIT_SECONDS
        ):
            for event in message.events:
                if event.job_change.job.HasField("end_time"):
                    assert event.job_change.job.state == job_state_pb2.JOB_STATE_COMPLETED, event.job_change.job
                    left.discard(event.job_change.job.uid)
            if not left:
                break
        return len(paths) / (time.perf_counter() - started_at)


def _spawn_rate(log: Path) -> float:
    """The least that must be done: a process for each job, and its end on disk."""
    ends = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        started_at = time.perf_counter()
        started = ended = 0
        while ended < JOBS:
            while started < JOBS and started - ended < AT_ONCE:
                os.posix_spawn(NOOP, [NOOP], {})
                started += 1
            os.wait()
            ended += 1
            os.write(ends, b"ended\n")
            os.fsync(ends)
        return JOBS / (time.perf_counter() - started_at)
    finally:
        os.close(ends)


def start(folder: Path) -> Iterator[Row]:
    """From before the submit until the job's own process shows that it is there."""
    (project,) = projects(folder / "projects", 1)
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    shown = os.open(pipe, os.O_RDWR)  # a writer of our own, or it would be at its end between two jobs
    values, floors = [], []
    try:
        with service(folder / "s", script=f"echo > {pipe}", max_local_jobs=AT_ONCE) as running:
            script = running.settings["solvers"][0]

            def spawn() -> int:
                return subprocess.Popen([script]).wait()

            for _ in range(STARTS):
                values += start_times(running, project, shown, 1)
                floors.append(_until_shown(shown, spawn)[0])
    finally:
        os.close(shown)
    value, floor = statistics.median(values), statistics.median(floors)
    yield Row("submit → process started, p50", value, "ms", "< 6 ms", floor, "bare fork")


def start_times(running: ServiceProcess, project: Path, shown: int, number: int) -> list[float]:
    """Submit jobs, one after the other; gives how soon, in ms, the process of each has written to the pipe `shown`."""

    def submit() -> str:
        return str(running.jobs.SubmitJob(request(project)).job.uid)

    values = []
    for _ in range(number):
        taken, uid = _until_shown(shown, submit)
        values.append(taken)
        running.jobs.WaitJob(pb.WaitJobRequest(job=job_ref(uid)))
    return values


def _until_shown(pipe: int, begin: Callable[[], object]) -> tuple[float, str]:
    started_at = time.perf_counter()
    made = begin()
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    poller.poll(WAIT_SECONDS * 1000)
    taken = (time.perf_counter() - started_at) * 1000
    assert os.read(pipe, 16) == b"\n"
    return taken, str(made)
