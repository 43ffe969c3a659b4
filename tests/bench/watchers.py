"""Events to a thousand watchers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
from edbjobs.v1 import event_pb2, jobs_service_pb2_grpc
from edbjobs.v1 import jobs_messages_pb2 as pb

from bench.echo import FAN, PUBLISH, echo_server
from bench.service import pause, projects, request, service
from bench.table import Row, median_of

WATCHERS = 1000
EVENTS = 200
CLIENTS = 4
ROUNDS = 3
WAIT_SECONDS = 60
EVENT_BYTES = 400


def watchers(folder: Path) -> Iterator[Row]:
    """One change after the other, each to everybody, until everybody has the last; none may be missing."""
    (project,) = projects(folder / "projects", 1)
    with service(folder / "s") as running, echo_server(folder) as echo:
        pause(running)
        value = median_of(ROUNDS, lambda: asyncio.run(events_rate(running.target, project)))
        floor = median_of(ROUNDS, lambda: asyncio.run(_fan_rate(echo)))
    goal = "≥ 45,000/s, none lost"
    name = "events to 1,000 watchers"
    yield Row(name, value, "/s", goal, floor, "bare gRPC, a message each", more_is_better=True)


async def events_rate(target: str, project: Path) -> float:
    """Change jobs while a thousand clients watch; gives the events they get a second, all together."""
    async with grpc.aio.insecure_channel(target) as channel:
        jobs = jobs_service_pb2_grpc.JobsServiceStub(channel)
        first = (await jobs.ListJobs(pb.ListJobsRequest(page_size=1))).position.revision
        ready: asyncio.Queue[None] = asyncio.Queue()
        watching = [asyncio.create_task(_watch(jobs, first, ready)) for _ in range(WATCHERS)]
        for _ in watching:
            await ready.get()
        started_at = time.perf_counter()

        async def client() -> None:
            for _ in range(EVENTS // CLIENTS):
                await jobs.SubmitJob(request(project))

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await asyncio.gather(*watching)
        return WATCHERS * EVENTS / (time.perf_counter() - started_at)


async def _watch(jobs: jobs_service_pb2_grpc.JobsServiceStub, revision: int, ready: asyncio.Queue[None]) -> None:
    """Read until the last event; every revision must come, once and in order."""
    last = revision + EVENTS
    answers: Any = jobs.WatchJobs(
        pb.WatchJobsRequest(after=event_pb2.Position(revision=revision)), timeout=WAIT_SECONDS
    )
    async for message in answers:
        if message.caught_up:
            ready.put_nowait(None)
        for event in message.events:
            assert event.revision == revision + 1, f"{event.revision} came after {revision}"
            revision = event.revision
        if revision == last:
            return


async def _fan_rate(target: str) -> float:
    async with grpc.aio.insecure_channel(target) as channel:
        publish: Any = channel.unary_unary(PUBLISH)
        fan: Any = channel.unary_stream(FAN)
        ready: asyncio.Queue[None] = asyncio.Queue()

        async def subscribe() -> None:
            left = EVENTS
            async for message in fan(b""):
                if message == b"ready":
                    ready.put_nowait(None)
                    continue
                left -= 1
                if not left:
                    return

        watching = [asyncio.create_task(subscribe()) for _ in range(WATCHERS)]
        for _ in watching:
            await ready.get()
        started_at = time.perf_counter()
        for _ in range(EVENTS):
            await publish(bytes(EVENT_BYTES))
        await asyncio.gather(*watching)
        return WATCHERS * EVENTS / (time.perf_counter() - started_at)
