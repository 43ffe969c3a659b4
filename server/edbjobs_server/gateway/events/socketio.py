"""The documented Socket.IO events, at ``/socket.io/``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import socketio
from aiohttp import web
from engineio.async_drivers.aiohttp import WebSocket
from socketio.exceptions import ConnectionRefusedError as NotLetIn

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.events.forwarder import BOUND, EventForwarder, TooSlow, watch_request
from edbjobs_server.gateway.events.frames import Frame, FrameEncoder
from edbjobs_server.gateway.security import CALLER, REFUSAL, Guard
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.util.keep_running import keep_running

log = logging.getLogger(__name__)
# Below warnings the protocol's libraries log every packet, with the tokens in them.
_protocol_log = logging.getLogger(f"{__name__}.protocol")
_protocol_log.setLevel(logging.WARNING)

PATH = "/socket.io/"
CONNECT_SECONDS = 10.0  # for a connection to say who it is
_SWEEP_SECONDS = 5.0
_MAX_MESSAGE_BYTES = 64 * 1024  # of what a client sends


class _WebSocket(WebSocket):  # type: ignore[misc]
    """The transport of engineio without compression, which would cost each client's copy of an event anew."""

    async def __call__(self, environ: Mapping[str, Any]) -> web.WebSocketResponse:
        self._sock = web.WebSocketResponse(max_msg_size=_MAX_MESSAGE_BYTES, compress=False)
        await self._sock.prepare(environ["aiohttp.request"])
        self.environ = environ
        await self.handler(self)
        return self._sock


class _Client:
    """A Socket.IO connection as a pump sees it."""

    def __init__(self, server: SocketIo, engine_sid: str) -> None:
        self._engine = server.server.eio
        self._sid = engine_sid

    def waiting(self) -> int:
        connection = self._engine.sockets.get(self._sid)
        return connection.queue.qsize() if connection is not None else 0

    def end(self) -> None:
        """Answer a long poll that is open; engineio lets it wait for its time-out."""
        connection = self._engine.sockets.get(self._sid)
        if connection is not None and not connection.upgraded:
            connection.queue.put_nowait(None)

    def put(self, frame: Frame) -> None:
        # The queue of engineio has no bound, so this never waits; the pump keeps it short.
        connection = self._engine.sockets.get(self._sid)
        if connection is not None and not connection.closed:
            connection.queue.put_nowait(frame.packet)


class SocketIo:
    """The Socket.IO server: a pump for each client.

    A client may give ``auth``: ``token``, and ``after_revision`` with ``store_id`` to go on from where it was.

    Parameters
    ----------
    manager : JobManager
        Has the events.
    guard : Guard
        Who gets in.
    shaper : FrameEncoder
        Makes the events.
    """

    def __init__(self, manager: JobManager, guard: Guard, shaper: FrameEncoder) -> None:
        self._manager = manager
        self._guard = guard
        self._shaper = shaper
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self._clients: dict[str, _Client] = {}
        self._upgrades: dict[str, web.BaseRequest] = {}
        self._sweeper: asyncio.Task[None] | None = None
        # An empty list of origins: python-socketio neither checks them nor sends CORS headers; the guard does.
        self.server = socketio.AsyncServer(
            async_mode="aiohttp",
            cors_allowed_origins=[],
            max_http_buffer_size=_MAX_MESSAGE_BYTES,
            logger=_protocol_log,
            engineio_logger=_protocol_log,
        )
        # The dictionary is shared by all servers of the process: ours gets one of its own.
        self.server.eio._async = {**self.server.eio._async, "websocket": _WebSocket}
        self.server.on("connect", self._connect)
        self.server.on("disconnect", self._disconnect)

    def attach(self, app: web.Application) -> None:
        """Answer on an application."""
        self.server.attach(app, PATH.strip("/"))

    def start(self) -> None:
        """Begin to close connections that never say who they are."""
        self._sweeper = asyncio.create_task(keep_running("closing connections of nobody", self._sweep))

    def note(self, request: web.BaseRequest) -> None:
        """Remember the request that turns a connection's long polling into a WebSocket."""
        sid = request.query.get("sid", "")
        # Only of a connection that is there: a request with an invented sid, from anybody, would be kept for good.
        if "Upgrade" in request.headers and sid in self.server.eio.sockets:
            self._upgrades[sid] = request

    @property
    def has_clients(self) -> bool:
        """Whether anybody is connected."""
        return bool(self._clients)

    def offer(self, frame: Frame) -> None:
        """Send what may be lost to all clients that keep up."""
        for client in self._clients.values():
            if client.waiting() < BOUND // 2:
                client.put(frame)

    async def close(self) -> None:
        """End all connections."""
        tasks = [*self._pumps.values(), *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for engine_sid in list(self.server.eio.sockets):
            await self._cut(engine_sid)
        await self.server.eio.shutdown()

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: Any = None) -> None:
        given = auth if isinstance(auth, dict) else {}
        request: web.Request = environ["aiohttp.request"]
        engine_sid = self.server.manager.eio_sid_from_sid(sid, "/")
        client = _Client(self, engine_sid)
        pump = EventForwarder(self._manager, self._shaper, client)
        try:
            self._let_in(request, str(given.get("token") or ""))
            await pump.open(watch_request(given))
        except Refused as refused:
            details = {"reason": refused.reason, "metadata": dict(refused.metadata)}
            raise NotLetIn(refused.message, details) from None
        self._clients[sid] = client
        self._pumps[sid] = asyncio.create_task(self._run(sid, engine_sid, pump), name=f"socketio {sid}")

    def _let_in(self, request: web.Request, token: str) -> None:
        """Let a connection in by its token, or as who its first request came from.

        With long polling that request is over by now, and its socket, which told the account, may be gone.
        """
        if token:
            self._guard.identify(request, token)
        elif CALLER not in request:
            raise request[REFUSAL]

    async def _run(self, sid: str, engine_sid: str, pump: EventForwarder) -> None:
        try:
            await pump.run()
        except (Refused, TooSlow) as error:
            log.info("Socket.IO client %s is disconnected: %s", sid, error)
        except Exception:
            log.exception("Socket.IO client %s is disconnected", sid)
        self._pumps.pop(sid, None)
        await self._cut(engine_sid)

    async def _cut(self, engine_sid: str) -> None:
        """End a connection from below, whatever waits for it.

        A client connects again by itself after that, and goes on from its last revision; after an orderly
        disconnect it would not, and one that takes nothing could not be disconnected in order.
        """
        upgrade = self._upgrades.pop(engine_sid, None)
        opening = self.server.environ.get(engine_sid, {}).get("aiohttp.request")
        connection = self.server.eio.sockets.pop(engine_sid, None)
        if connection is None:
            return
        await connection.close(wait=False, abort=True)
        connection.queue.put_nowait(None)
        for request in (upgrade, opening if connection.upgraded else None):
            if request is not None and request.transport is not None:
                request.transport.abort()

    async def _disconnect(self, sid: str, reason: str = "") -> None:
        self._upgrades.pop(self.server.manager.eio_sid_from_sid(sid, "/") or "", None)
        client = self._clients.pop(sid, None)
        if client is not None:
            client.end()
        task = self._pumps.pop(sid, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sweep(self) -> None:
        """Close connections that were opened, which needs no token, and went no further."""
        loop = asyncio.get_running_loop()
        first_seen: dict[str, float] = {}
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._upgrades = {sid: item for sid, item in self._upgrades.items() if sid in self.server.eio.sockets}
            known = {self.server.manager.eio_sid_from_sid(sid, "/") for sid in self._clients}
            strangers = self.server.eio.sockets.keys() - known
            first_seen = {sid: first_seen.get(sid, loop.time()) for sid in strangers}
            for sid, since in first_seen.items():
                if loop.time() - since > CONNECT_SECONDS:
                    await self._cut(sid)
