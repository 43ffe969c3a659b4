"""Clients that do not read: each is disconnected in time, delays no other, and has a bounded queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio
from aiohttp import ClientSession, web
from edbjobs.v1 import jobs_messages_pb2
from edbjobs_server.core.errors import Refused
from edbjobs_server.events.log import Message
from edbjobs_server.gateway.events import forwarder, websocket
from edbjobs_server.gateway.events.forwarder import EventForwarder, TooSlow, watch_request
from edbjobs_server.gateway.events.frames import Frame
from edbjobs_server.gateway.events.socketio import SocketIo
from edbjobs_server.gateway.events.websocket import WebSockets
from edbjobs_server.gateway.security import CALLER
from support.web import until

BIG = "x" * 100_000
BOUND = 20


class Log:
    """An endless event log."""

    def __init__(self) -> None:
        self.closed = False

    async def watch(self, request: jobs_messages_pb2.WatchJobsRequest) -> AsyncIterator[Message]:
        for number in range(1, 1_000_000):
            if self.closed:
                raise Refused("DRAINING", "over")
            yield Message(str(number).encode())
            await asyncio.sleep(0)


class Manager:
    """The part of a manager that a forwarder uses."""

    store_id = "store"

    def __init__(self) -> None:
        self.events = Log()
        self.watch = self.events.watch


class FrameEncoder:
    """One large event for each message."""

    async def frames(self, message: Message) -> list[Frame]:
        return [Frame("changed", {"revision": int(message.serialized), "text": BIG})]


class Guard:
    """Accepts everybody."""

    def identify(self, request: web.Request, token: str) -> None:
        pass


@asynccontextmanager
async def serving(log_of: Manager) -> AsyncIterator[tuple[str, SocketIo]]:
    anything: Any = log_of, Guard(), FrameEncoder()
    manager, guard, encoder = anything
    server, sockets = SocketIo(manager, guard, encoder), WebSockets(manager, encoder)

    @web.middleware
    async def authenticate(request: web.Request, handler: Any) -> web.StreamResponse:
        known: Any = "somebody"
        request[CALLER] = known
        server.note_upgrade(request)
        answer: web.StreamResponse = await handler(request)
        return answer

    app = web.Application(middlewares=[authenticate])
    app.router.add_get("/ws/events", sockets.events)
    server.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", server
    finally:
        await asyncio.wait_for(server.close(), 10)
        await runner.cleanup()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "BOUND", BOUND)
    monkeypatch.setattr(forwarder, "DRAIN_SECONDS", 0.5)
    monkeypatch.setattr(websocket, "DRAIN_SECONDS", 0.5)


async def stuck(url: str, path: str, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket by hand and read nothing from it after its first lines."""
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readline()
    writer.write(first)
    return reader, writer


def masked(text: bytes) -> bytes:
    """Make a client's text frame."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


async def test_a_socket_io_client_that_does_not_read_is_disconnected_alone() -> None:
    async with serving(Manager()) as (url, server):
        _, writer = await stuck(url, "/socket.io/?EIO=4&transport=websocket", masked(b"40"))
        received: list[int] = []
        client = socketio.AsyncClient(reconnection=False)
        client.on("changed", lambda data: received.append(data["revision"]))
        await client.connect(url, transports=["websocket"])
        longest = 0

        async def cut() -> bool:
            nonlocal longest
            longest = max([longest, *(item.queue.qsize() for item in server.server.eio.sockets.values())])
            return len(server.server.eio.sockets) == 1

        await until(cut, 20)
        before = len(received)

        async def goes_on() -> bool:
            return len(received) > before + 20

        await until(goes_on, 20)
        assert longest <= BOUND + 1
        assert received == list(range(1, len(received) + 1))
        await client.disconnect()
        writer.close()


async def test_a_websocket_that_does_not_read_is_closed_alone() -> None:
    async with serving(Manager()) as (url, _):
        reader, writer = await stuck(url, "/ws/events")
        async with ClientSession(url) as http, http.ws_connect("/ws/events") as socket:
            end = asyncio.get_running_loop().time() + 2
            revision = 0
            while asyncio.get_running_loop().time() < end:
                event = json.loads(await asyncio.wait_for(socket.receive_str(), 5))
                assert event["data"]["revision"] == revision + 1
                revision += 1
        assert revision > 20
        # Data in the buffers of the system comes first, then the end.
        while await asyncio.wait_for(reader.read(1_000_000), 5):
            pass
        writer.close()


async def test_clients_are_disconnected_when_the_service_stops() -> None:
    manager = Manager()
    async with serving(manager) as (url, _):
        gone = asyncio.Event()
        client = socketio.AsyncClient(reconnection=False)
        client.on("disconnect", lambda: gone.set())
        await client.connect(url, transports=["websocket"])
        manager.events.closed = True
        await asyncio.wait_for(gone.wait(), 10)


async def test_a_client_that_reads_slowly_stays_connected() -> None:
    class Client:
        def __init__(self) -> None:
            self.left = BOUND + 30
            self.taken = 0

        def waiting(self) -> int:
            self.left -= 1
            return self.left

        def put(self, frame: Frame) -> None:
            self.taken += 1

    manager: Any = Manager()
    encoder: Any = FrameEncoder()
    client = Client()
    forwarding = EventForwarder(manager, encoder, client)
    await forwarding.open(watch_request({}, "store"))
    task = asyncio.create_task(forwarding.run())

    async def taken() -> bool:
        return client.taken > 100

    await until(taken)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    never: Any = type("Never", (), {"waiting": lambda self: BOUND, "put": lambda self, frame: None})()
    forwarding = EventForwarder(manager, encoder, never)
    await forwarding.open(watch_request({"after_revision": 0}, "store"))
    with pytest.raises(TooSlow):
        await asyncio.wait_for(forwarding.run(), 10)


def test_documented_watchers_get_each_change_of_each_job() -> None:
    request = watch_request({}, "store")
    assert request.filter.include_superseded
    assert request.include_service_changes
    assert not request.include_updates, "progress is sent as job_progress"
