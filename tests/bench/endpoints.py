"""The same call through each endpoint: gRPC, gRPC-Web and REST; and how soon a watch's first message comes.

Run it alone: ``cd tests && ../.venv/bin/python -m bench.endpoints``.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import grpc.aio
from edbjobs.v1 import jobs_messages_pb2, jobs_service_pb2_grpc, resources_service_pb2, resources_service_pb2_grpc
from support.grpcweb import Web, framed, frames_of
from support.web import WebService

WARM_SECONDS = 1.0
SECONDS = 3.0
CLIENTS = 16
STREAMS = 100

Call = Callable[[], Awaitable[Any]]


class Row(NamedTuple):
    """One figure."""

    measure: str
    value: float
    unit: str
    beside: str = ""


async def rate(call: Call, clients: int, pid: int) -> tuple[float, str]:
    """Call from so many clients at once; gives answers a second, and what each costs the service's processor."""
    done = 0
    end = time.perf_counter() + WARM_SECONDS + SECONDS

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    running = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(WARM_SECONDS)
    started_at, before, used = time.perf_counter(), done, processor_seconds(pid)
    await asyncio.gather(*running)
    made = done - before
    cost = (processor_seconds(pid) - used) / made
    return made / (time.perf_counter() - started_at), f"{1e6 * cost:.0f} µs of the service's processor each"


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used: fields 14 and 15 of /proc/<pid>/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def first_message(open_and_read: Call) -> float:
    """Open streams one after the other; gives the median time until the first message, seconds."""
    times = []
    for _ in range(STREAMS):
        started_at = time.perf_counter()
        await open_and_read()
        times.append(time.perf_counter() - started_at)
    return statistics.median(times)


async def measure(service: WebService) -> list[Row]:
    """Ask for the queue, which costs the service next to nothing, through every endpoint."""
    queue, watch = resources_service_pb2.GetQueueRequest(), jobs_messages_pb2.WatchJobsRequest()
    address = str(service.endpoint["grpc"])
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(connector=connector) as session, grpc.aio.insecure_channel(address) as channel:
        web = Web(session, service.url)
        resources: Any = resources_service_pb2_grpc.ResourcesServiceStub(channel)
        jobs: Any = jobs_service_pb2_grpc.JobsServiceStub(channel)

        async def rest() -> None:
            async with session.get(f"{service.url}/queue") as response:
                await response.json()

        async def stream() -> None:
            call = jobs.WatchJobs(watch)
            await call.read()
            call.cancel()

        async def web_stream() -> None:
            async with web.post("/edbjobs.v1.JobsService/WatchJobs", framed(watch.SerializeToString())) as response:
                async for _ in frames_of(response.content.iter_any(), text=False):
                    return

        calls: dict[str, Call] = {
            "gRPC": lambda: resources.GetQueue(queue),
            "gRPC-Web": lambda: web.call("/edbjobs.v1.ResourcesService/GetQueue", queue),
            "REST": rest,
        }

        async def rated(call: Call, clients: int) -> tuple[float, str, str]:
            value, cost = await rate(call, clients, service.endpoint["pid"])
            return value, "1/s", cost

        rows = [
            Row(f"GetQueue through {endpoint}, {clients} at once", *await rated(call, clients))
            for clients in (1, CLIENTS)
            for endpoint, call in calls.items()
        ]
        native = 1000 * await first_message(stream)
        own = 1000 * await first_message(web_stream)
        return [*rows, Row("first message of a watch through gRPC-Web", own, "ms", f"gRPC {native:.1f} ms")]


def run() -> list[Row]:
    """Measure, client and service sharing this machine."""
    with tempfile.TemporaryDirectory() as name, WebService(Path(name)) as service:
        return asyncio.run(measure(service))


if __name__ == "__main__":
    for row in run():
        print(f"{row.measure:45} {row.value:10,.1f} {row.unit:14} {row.beside}")
