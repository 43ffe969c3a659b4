"""The HTTP endpoint: submits a second, events to many Socket.IO clients; compared with an echo and the old service.

Run it alone: ``cd tests && ../.venv/bin/python -m bench.gateway``.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
from edbjobs_server.solver.demo import example_project
from support.reference import reference_python, run_reference
from support.service import DEADLINE
from support.web import WebService

WARM_SECONDS = 3.0
SECONDS = 6.0
CLIENTS = 16
EVENTS = 200

ECHO = """
from aiohttp import web
async def echo(request):
    return web.json_response({"success": True, "job_id": (await request.json())["config"]["jobid"]})
app = web.Application()
app.router.add_post("/jobs/submit", echo)
async def started(app): pass
import asyncio
async def main():
    runner = web.AppRunner(app, access_log=None); await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
OLD = """
import logging, os, socket, sys
from pyedb.workflows.job_manager.backend.job_manager_handler import JobManagerHandler
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
handler = JobManagerHandler(host="127.0.0.1", port=port)
logging.disable(logging.CRITICAL)  # it writes every request to stderr, which would cost it half its rate
handler.start_service()
print(port, file=sys.__stdout__, flush=True)
import threading; threading.Event().wait()
"""


class Figure(NamedTuple):
    """A rate, and the server's processor time for each item, which hardly depends on other load."""

    rate: float
    microseconds: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} ({self.microseconds:,.0f} us)"


class Row(NamedTuple):
    """One figure."""

    measure: str
    value: Figure
    unit: str
    beside: str = ""


@contextlib.contextmanager
def process(line: list[str], folder: Path, **environment: str) -> Iterator[str]:
    """Run a server that prints its port; yield its URL."""
    with (folder / "out").open("wb") as errors:
        running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, env=environment or None, cwd=folder)
    assert running.stdout is not None
    try:
        while not (output := running.stdout.readline().strip()).isdigit():
            assert running.poll() is None, (folder / "out").read_text()
        yield f"http://127.0.0.1:{output.decode()}"
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


@contextlib.contextmanager
def old_service(folder: Path) -> Iterator[str]:
    """Run the old service with a solver that never ends, so that it does nothing but queue."""
    run_reference(folder, "-c", "pass")  # makes the installation it looks for
    solver = folder / "v252" / "AnsysEM" / "ansysedt"
    solver.write_text("#!/bin/sh\nexec sleep 1000\n")
    line = [str(reference_python()), "-W", "ignore", "-c", OLD]
    with process(line, folder, ANSYSEM_ROOT252=str(solver.parent), PATH="/usr/bin:/bin") as url:
        yield url


async def submit_rate(url: str, config: Callable[[str], dict[str, Any]]) -> tuple[float, int]:
    """Submit from 16 clients at once; return answers a second, after a warm-up, and their number.

    The old service samples the host for two seconds when it starts, and does not answer in that time.
    """
    done = 0
    end = time.perf_counter() + WARM_SECONDS + SECONDS

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            body = {"config": config(f"b{number}-{done}"), "priority": 0}
            async with session.post("/jobs/submit", json=body) as response:
                assert response.status == 200, await response.text()
                await response.read()
            done += 1

    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        clients = [asyncio.create_task(client(session, number)) for number in range(CLIENTS)]
        await asyncio.sleep(WARM_SECONDS)
        measured_from, before = time.perf_counter(), done
        await asyncio.gather(*clients)
        return (done - before) / (time.perf_counter() - measured_from), done


async def fan_out(url: str, clients: int) -> tuple[float, int]:
    """Send changes to many clients; return deliveries a second, and their number."""
    heard = 0
    ready = 0

    async def listen(session: aiohttp.ClientSession) -> None:
        nonlocal heard, ready
        async with session.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
            await socket.send_str("40")
            async for message in socket:
                text: str = message.data
                if text.startswith("42") and '"limits_updated"' in text[:20]:
                    heard += 1
                    if heard == clients * EVENTS:
                        all_heard.set()
                elif text.startswith("40"):
                    ready += 1
                elif text == "2":
                    await socket.send_str("3")

    async def change(session: aiohttp.ClientSession, first: int) -> None:
        for number in range(first, EVENTS, CLIENTS):  # each value once: without a change there is no event
            async with session.put("/pool/limits", json={"max_cpu_percent": 1 + number / 10}) as response:
                assert response.status == 200

    all_heard = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        tasks = [asyncio.create_task(listen(session)) for _ in range(clients)]
        end = time.monotonic() + DEADLINE
        while ready < clients:
            assert time.monotonic() < end, f"{ready} of {clients} connected"
            await asyncio.sleep(0.01)
        started = time.perf_counter()
        await asyncio.gather(*(change(session, first) for first in range(CLIENTS)))
        await asyncio.wait_for(all_heard.wait(), 120)
        took = time.perf_counter() - started
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return clients * EVENTS / took, clients * EVENTS


def measured(url: str, what: Callable[[str], Coroutine[Any, Any, tuple[float, int]]]) -> Figure:
    """Measure at the server behind a URL."""
    port = int(url.rpartition(":")[2])
    found = (item for item in psutil.net_connections("tcp") if item.status == "LISTEN" and item.laddr[1:2] == (port,))
    server = psutil.Process(next(found).pid)
    before = sum(server.cpu_times()[:2])
    rate, number = asyncio.run(what(url))
    return Figure(rate, (sum(server.cpu_times()[:2]) - before) / number * 1e6)


def run() -> list[Row]:
    """Measure; return each figure with its reference."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = str(example_project(folder / "p"))

        def config(job_id: str) -> dict[str, Any]:
            return {"jobid": job_id, "user": "bench", "project_path": project}

        submit = partial(submit_rate, config=config)
        places = [folder / part for part in ("echo", "old", "old-events", "own", "own-events")]
        for place in places:
            place.mkdir()
        with process([sys.executable, "-c", ECHO], places[0]) as url:
            floor = measured(url, submit)
        with old_service(places[1]) as url:
            old = measured(url, submit)
        with WebService(places[3], max_local_jobs=0) as service:
            own = measured(service.url, submit)
        beside = f"bare echo {floor}, the old service in memory {old}"
        rows = [Row(f"durable submits over REST, {CLIENTS} clients", own, "1/s", beside)]
        for clients in (100, 1000):
            with old_service(places[2]) as url:
                before = measured(url, partial(fan_out, clients=clients))
            with WebService(places[4] / str(clients), max_local_jobs=0) as service:
                after = measured(service.url, partial(fan_out, clients=clients))
            text = f"the old service {before}"
            rows.append(Row(f"events to {clients} Socket.IO clients", after, "deliveries/s", text))
        return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row.measure:42} {row.value!s:>18} {row.unit:13} {row.beside}", flush=True)
