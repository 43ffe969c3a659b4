"""The documented Socket.IO events, at ``/socket.io/``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import socketio
from aiohttp import web
from engineio.async_drivers.aiohttp import WebSocket
from socketio.exceptions import ConnectionRefusedError as ConnectRefused

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.events.forwarder import BOUND, EventForwarder, TooSlow, watch_request
from edbjobs_server.gateway.events.frames import Frame, FrameEncoder
from edbjobs_server.gateway.security import CALLER, REFUSAL, Guard
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.util.keep_running import keep_running

log = logging.getLogger(__name__)
# Below WARNING the protocol's libraries log every packet, tokens included.
_protocol_log = logging.getLogger(f"{__name__}.protocol")
_protocol_log.setLevel(logging.WARNING)

PATH = "/socket.io/"
CONNECT_SECONDS = 10.0  # limit for a connection to authenticate
_SWEEP_SECONDS = 5.0
_MAX_MESSAGE_BYTES = 64 * 1024  # from a client


class _WebSocket(WebSocket):  # type: ignore[misc]
    """The transport of engineio without compression, which would be computed again for each client."""

    async def __call__(self, environ: Mapping[str, Any]) -> web.WebSocketResponse:
        self._sock = web.WebSocketResponse(max_msg_size=_MAX_MESSAGE_BYTES, compress=False)
        await self._sock.prepare(environ["aiohttp.request"])
        self.environ = environ
        await self.handler(self)
        return self._sock


class _Client:
    """A Socket.IO connection as a receiver of events."""

    def __init__(self, server: SocketIo, engine_sid: str) -> None:
        self._engine = server.server.eio
        self._sid = engine_sid

    def waiting(self) -> int:
        connection = self._engine.sockets.get(self._sid)
        return connection.queue.qsize() if connection is not None else 0

    def end(self) -> None:
        """Answer an open long poll; engineio would let it wait for its timeout."""
        connection = self._engine.sockets.get(self._sid)
        if connection is not None and not connection.upgraded:
            connection.queue.put_nowait(None)

    def put(self, frame: Frame) -> None:
        # The queue of engineio is unbounded, so this never waits; the forwarder keeps it short.
        connection = self._engine.sockets.get(self._sid)
        if connection is not None and not connection.closed:
            connection.queue.put_nowait(frame.packet)


class SocketIo:
    """The Socket.IO server: an event forwarder for each client.

    A client may give ``auth``: ``token``, and ``after_revision`` with ``store_id`` to resume after a revision.

    Parameters
    ----------
    manager : JobManager
        Source of the events.
    guard : Guard
        Authenticates connections.
    encoder : FrameEncoder
        Encodes the events.
    """

    def __init__(self, manager: JobManager, guard: Guard, encoder: FrameEncoder) -> None:
        self._manager = manager
        self._guard = guard
        self._encoder = encoder
        self._forwarders: dict[str, asyncio.Task[None]] = {}
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
        # All servers of the process share this dictionary; this one gets a copy.
        self.server.eio._async = {**self.server.eio._async, "websocket": _WebSocket}
        self.server.on("connect", self._connect)
        self.server.on("disconnect", self._disconnect)

    def attach(self, app: web.Application) -> None:
        """Add the routes to an application."""
        self.server.attach(app, PATH.strip("/"))

    def start(self) -> None:
        """Start to close connections that do not authenticate."""
        self._sweeper = asyncio.create_task(keep_running("closing unauthenticated connections", self._sweep))

    def note_upgrade(self, request: web.BaseRequest) -> None:
        """Store the request that upgrades a connection from long polling to a WebSocket."""
        sid = request.query.get("sid", "")
        # Only for a connection that exists: requests with invented sids would never be removed.
        if "Upgrade" in request.headers and sid in self.server.eio.sockets:
            self._upgrades[sid] = request

    @property
    def has_clients(self) -> bool:
        """Whether a client is connected."""
        return bool(self._clients)

    def offer(self, frame: Frame) -> None:
        """Send an event, which may be lost, to all clients that keep up."""
        for client in self._clients.values():
            if client.waiting() < BOUND // 2:
                client.put(frame)

    async def close(self) -> None:
        """End all connections."""
        tasks = [*self._forwarders.values(), *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for engine_sid in list(self.server.eio.sockets):
            await self._abort(engine_sid)
        await self.server.eio.shutdown()

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: Any = None) -> None:
        given = auth if isinstance(auth, dict) else {}
        request: web.Request = environ["aiohttp.request"]
        engine_sid = self.server.manager.eio_sid_from_sid(sid, "/")
        client = _Client(self, engine_sid)
        forwarder = EventForwarder(self._manager, self._encoder, client)
        try:
            self._authenticate(request, str(given.get("token") or ""))
            await forwarder.open(watch_request(given, self._manager.store_id))
        except Refused as refused:
            details = {"reason": refused.reason, "metadata": dict(refused.metadata)}
            raise ConnectRefused(refused.message, details) from None
        self._clients[sid] = client
        self._forwarders[sid] = asyncio.create_task(self._run(sid, engine_sid, forwarder), name=f"socketio {sid}")

    def _authenticate(self, request: web.Request, token: str) -> None:
        """Authenticate a connection by its token, or by its first request.

        With long polling that request is over by now, and its socket, which identified the account, may be closed.
        """
        if token:
            self._guard.identify(request, token)
        elif CALLER not in request:
            raise request[REFUSAL]

    async def _run(self, sid: str, engine_sid: str, forwarder: EventForwarder) -> None:
        try:
            await forwarder.run()
        except (Refused, TooSlow) as error:
            log.info("disconnected Socket.IO client %s: %s", sid, error)
        except Exception:
            log.exception("disconnected Socket.IO client %s", sid)
        self._forwarders.pop(sid, None)
        await self._abort(engine_sid)

    async def _abort(self, engine_sid: str) -> None:
        """Close the transport of a connection, whatever is queued for it.

        A client reconnects by itself after that and resumes after its last revision. After an orderly disconnect
        it would not reconnect, and a client that does not read cannot be disconnected in an orderly way.
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
        task = self._forwarders.pop(sid, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sweep(self) -> None:
        """Close connections that were opened, which needs no token, and did not authenticate in time."""
        loop = asyncio.get_running_loop()
        first_seen: dict[str, float] = {}
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._upgrades = {sid: item for sid, item in self._upgrades.items() if sid in self.server.eio.sockets}
            authenticated = {self.server.manager.eio_sid_from_sid(sid, "/") for sid in self._clients}
            unauthenticated = self.server.eio.sockets.keys() - authenticated
            first_seen = {sid: first_seen.get(sid, loop.time()) for sid in unauthenticated}
            for sid, since in first_seen.items():
                if loop.time() - since > CONNECT_SECONDS:
                    await self._abort(sid)
