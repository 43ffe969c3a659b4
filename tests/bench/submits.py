"""Durable submits: one client, sixteen clients, a thousand jobs in one call; REST beside the reference's."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import grpc.aio
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1 import jobs_service_pb2_grpc
from support.service import ServiceProcess

from bench import references
from bench.echo import ECHO, echo_server
from bench.load import Call, latencies, rate
from bench.postgres import postgres
from bench.service import NOOP, pause, projects, request, service
from bench.table import Row, percentile

ROUNDS = 3
CLIENTS = 16
REST_PATH = "/jobs/submit"


def one_client(folder: Path) -> Iterator[Row]:
    """Time of a submit that is on disk when it is answered."""
    (project,) = projects(folder / "projects", 1)
    with service(folder / "s") as running, echo_server(folder) as echo:
        pause(running)

        async def measure() -> list[tuple[float, float, float, float]]:
            async with grpc.aio.insecure_channel(running.target) as channel, grpc.aio.insecure_channel(echo) as other:
                submit, bare = submitter(channel, project), _echo(other, project)
                return [(*await latencies(submit, 500), *await latencies(bare, 500)) for _ in range(ROUNDS)]

        p50, p99, bare50, bare99 = (statistics.median(values) for values in zip(*asyncio.run(measure()), strict=True))
    with postgres() as database:
        paths = projects(folder / "projects", references.SUBMITS)
        others = references.submit_times(folder, paths, NOOP, database)
    for part, value, bare, goal in ((0.5, p50, bare50, "< 1.2 ms"), (0.99, p99, bare99, "< 5 ms")):
        found = references.figures(others, partial(percentile, part=part))
        name = f"durable submit, one client, p{part * 100:.0f}"
        yield Row(name, value, "ms", goal, bare, "gRPC echo", found)


def many_clients(folder: Path) -> Iterator[Row]:
    """Submits of sixteen clients at once."""
    (project,) = projects(folder / "projects", 1)
    with service(folder / "s") as running, echo_server(folder) as echo:
        pause(running)

        async def measure() -> list[tuple[float, float]]:
            async with grpc.aio.insecure_channel(running.target) as channel, grpc.aio.insecure_channel(echo) as other:
                submit, bare = submitter(channel, project), _echo(other, project)
                await rate(submit, CLIENTS, 0.5)
                return [(await rate(submit, CLIENTS), await rate(bare, CLIENTS)) for _ in range(ROUNDS)]

        rounds = asyncio.run(measure())
    value, floor = (statistics.median(values) for values in zip(*rounds, strict=True))
    goal = "≥ 0.5 of the echo"
    yield Row("durable submits, 16 clients, gRPC", value, "/s", goal, floor, "gRPC echo", more_is_better=True)


def rest(folder: Path) -> Iterator[Row]:
    """The same through the documented route, beside the reference, which keeps its jobs in memory."""
    (project,) = projects(folder / "projects", 1)
    with service(folder / "s", http="127.0.0.1:0") as running:
        pause(running)
        with references.rest_server(folder) as reference:
            urls = {"": running.endpoint["http"] + REST_PATH}
            if reference is not None:
                urls["reference"] = reference + REST_PATH
            rates = asyncio.run(_rest_rates(urls, project, running.settings["solvers"][0]))
    value = rates.pop("")
    others: dict[str, float | None] = {"reference, in memory": rates.get("reference")}
    goal = "≥ 3,500/s, then ahead of the reference"
    yield Row("durable submits, 16 clients, REST", value, "/s", goal, others=others, more_is_better=True)


def batch(folder: Path) -> Iterator[Row]:
    """A thousand jobs in one call."""
    paths = projects(folder / "projects", 1000)
    taken = []
    with service(folder / "s") as running:
        pause(running)
        for _ in range(7):
            items = pb.SubmitJobsRequest(requests=[request(path, request_id=uuid.uuid4().hex) for path in paths])
            taken.append(batch_time(running, items))
    yield Row("SubmitJobs of 1,000 jobs", statistics.median(taken[1:]), "ms", "< 40 ms")


def batch_time(running: ServiceProcess, items: pb.SubmitJobsRequest) -> float:
    """Submit jobs in one call; gives the time in ms."""
    started_at = time.perf_counter()
    answer = running.jobs.SubmitJobs(items)
    taken = (time.perf_counter() - started_at) * 1000
    assert all(item.HasField("response") for item in answer.results)
    return taken


def submitter(channel: grpc.aio.Channel, project: Path) -> Call:
    """Make what submits one job of a project."""
    stub = jobs_service_pb2_grpc.JobsServiceStub(channel)

    async def submit(number: int) -> object:
        return await stub.SubmitJob(request(project, request_id=uuid.uuid4().hex))

    return submit


def _echo(channel: grpc.aio.Channel, project: Path) -> Call:
    call = channel.unary_unary(ECHO, pb.SubmitJobRequest.SerializeToString, pb.SubmitJobRequest.FromString)

    async def echo(number: int) -> object:
        return await call(request(project, request_id=uuid.uuid4().hex))

    return echo


async def _rest_rates(urls: dict[str, str], project: Path, program: str) -> dict[str, float]:
    """Measure all servers in turn, so that each round is under the same conditions."""
    rounds: dict[str, list[float]] = {name: [] for name in urls}
    for i in range(ROUNDS + 1):
        for name, url in urls.items():
            value = await rest_rate(url, project, program, 2.0 if i else 0.5)
            rounds[name] += [value] if i else []  # the first round warms up
    return {name: statistics.median(values) for name, values in rounds.items()}


async def rest_rate(url: str, project: Path, program: str, seconds: float) -> float:
    """Submit from many clients over REST; gives answers a second."""
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:

        async def submit(number: int) -> object:
            config = {"project_path": str(project), "jobid": uuid.uuid4().hex, "user": "bench"}
            config["ansys_edt_path"] = program  # the reference has no other way to find one
            async with session.post(url, data=json.dumps({"config": config})) as answer:
                body = await answer.read()
                assert answer.status == 200, body
                return body

        return await rate(submit, CLIENTS, seconds)
