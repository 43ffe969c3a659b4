"""The HTTP server: its address, its routes, and the middleware of every request."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from aiohttp import hdrs, web

from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.config.settings import Settings, SettingsError
from edbjobs_server.contract.request_check import too_large
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal
from edbjobs_server.gateway.dashboard.page import Page
from edbjobs_server.gateway.events.frames import Frame, FrameEncoder
from edbjobs_server.gateway.events.progress import send_progress
from edbjobs_server.gateway.events.socketio import PATH as SOCKETIO_PATH
from edbjobs_server.gateway.events.socketio import SocketIo
from edbjobs_server.gateway.events.websocket import WebSockets
from edbjobs_server.gateway.grpcweb.endpoint import GrpcWeb, Methods
from edbjobs_server.gateway.http_errors import HttpRefused, word_of
from edbjobs_server.gateway.metrics import Metrics
from edbjobs_server.gateway.rest.openapi import answer as describe
from edbjobs_server.gateway.rest.operations import OPERATIONS
from edbjobs_server.gateway.rest.requests import MAX_BODY_BYTES
from edbjobs_server.gateway.rest.responses import error
from edbjobs_server.gateway.rest.routes import Rest
from edbjobs_server.gateway.security import CALLER, HEADERS, REFUSAL, Guard
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.util.keep_running import keep_running

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BACKLOG = 1024
# Besides the open operations: a Socket.IO connection authenticates in its first message, a browser by the URL.
_OPEN_PATHS = frozenset({operation.path for operation in OPERATIONS if operation.open} | {SOCKETIO_PATH, "/"})


class Gateway:
    """The HTTP endpoint of a manager.

    Parameters
    ----------
    manager : JobManager
        Answers every request.
    access : Authenticator
        The authenticator of this endpoint.
    token : str
        The service's token.
    settings : Settings
        Address, names, proxies.
    methods : mapping of str to RpcMethodHandler
        Methods for gRPC-Web, by path.

    Raises
    ------
    SettingsError
        The address is in use or not available.
    """

    def __init__(
        self, manager: JobManager, access: Authenticator, token: str, settings: Settings, methods: Methods
    ) -> None:
        assert settings.web is not None, "the settings have an HTTP address"
        self._log = structlog.get_logger("http").bind()  # once, not for each line
        self._socket = _bind(*settings.web)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        access.listen([self.address])
        self._settings = settings
        self._token = token
        self._guard = Guard(access, token, settings, self.address)
        encoder = FrameEncoder(manager)
        self._websockets = WebSockets(manager, encoder)
        self._socketio = SocketIo(manager, self._guard, encoder)
        self._metrics = Metrics(manager)
        self._send_progress = partial(send_progress, manager, self._offer, self._has_clients)
        self._grpcweb = GrpcWeb(methods, self._guard, access, settings.cors_origins, self._metrics.count_error)
        self._tasks: list[asyncio.Task[None]] = []
        self._runner = web.AppRunner(
            self._application(manager),
            access_log=None,
            shutdown_timeout=1.0,
            handler_cancellation=True,  # a call is cancelled when its client disconnects, as through gRPC
        )

    def _application(self, manager: JobManager) -> web.Application:
        app = web.Application(middlewares=[self._grpcweb.middleware, self._handle], client_max_size=MAX_BODY_BYTES)
        rest = Rest(manager)
        for operation in OPERATIONS:
            app.router.add_route(operation.method, operation.path, getattr(rest, operation.handler))
        page = Page(manager, self._guard)
        app.router.add_get("/", page.index)
        app.router.add_get("/style.css", page.style)
        app.router.add_get("/openapi.json", describe)
        app.router.add_get("/metrics", self._metrics.answer)
        app.router.add_get("/ws/events", self._websockets.events)
        self._socketio.attach(app)
        return app

    @property
    def url(self) -> str:
        """Base URL for clients on this host."""
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def token_url(self) -> str:
        """URL with the token, for browsers on other hosts; empty if only this host can reach the endpoint."""
        host, port = self.address
        if self._settings.public_url:
            return f"{self._settings.public_url}/?token={self._token}"
        if host.startswith("127.") or host == "::1":
            return ""
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 (compared, not bound)
        return f"http://{shown}:{port}/?token={self._token}"

    async def start(self) -> None:
        """Start to serve requests."""
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket, backlog=_BACKLOG).start()
        self._socketio.start()
        self._tasks.append(asyncio.create_task(keep_running("sending progress", self._send_progress)))
        self._tasks.append(asyncio.create_task(keep_running("watching the event loop", self._metrics.watch_loop)))

    async def stop(self) -> None:
        """Close all connections. Call after the event log was closed, which ends the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socketio.close()
        await self._runner.cleanup()

    def _offer(self, frame: Frame) -> None:
        self._socketio.offer(frame)
        self._websockets.offer(frame)

    def _has_clients(self) -> bool:
        return self._socketio.has_clients or self._websockets.has_clients

    @web.middleware
    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        caller: Principal | None = None
        try:
            self._guard.check_site(request)
            caller = self._identify(request)
            if request.path == SOCKETIO_PATH:
                self._socketio.note_upgrade(request)
            response = await handler(request)
        except Refused as refused:
            response = self._refuse(refused)
        except web.HTTPException as raised:
            response = self._refuse(_of_aiohttp(raised, request))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as unexpected:
            response = self._refuse(self._unexpected(request, unexpected))
        if not response.prepared:
            response.headers.update(HEADERS)
        self._log_request(request, response.status, caller, time.perf_counter() - started)
        return response

    def _identify(self, request: web.Request) -> Principal | None:
        try:
            request[CALLER] = caller = self._guard.identify(request)
        except Refused as refused:
            if request.path not in _OPEN_PATHS:
                raise
            request[REFUSAL] = refused
            return None
        return caller

    def _refuse(self, refused: Refused) -> web.Response:
        self._metrics.count_error(word_of(refused))
        return error(refused)

    def _unexpected(self, request: web.Request, unexpected: Exception) -> Refused:
        number = secrets.token_hex(6)
        self._log.error(
            "unexpected error", method=request.method, path=request.path, incident=number, exc_info=unexpected
        )
        text = f"an error inside the service; its log has the details under {number}"
        return Refused("INTERNAL", text, metadata={"incident": number})

    def _log_request(self, request: web.Request, status: int, caller: Principal | None, seconds: float) -> None:
        changes = request.method in (hdrs.METH_POST, hdrs.METH_PUT) and request.path != SOCKETIO_PATH
        write = self._log.warning if status in (401, 403) else self._log.info if changes else self._log.debug
        write(
            "request",
            method=request.method,
            path=request.path,  # without the query, which may hold the token
            status=status,
            peer=self._guard.peer(request).label,
            principal=caller.name if caller else None,
            authentication=caller.authentication.name.lower() if caller else None,
            ms=round(seconds * 1000, 3),
        )


def _of_aiohttp(raised: web.HTTPException, request: web.Request) -> Refused:
    if isinstance(raised, web.HTTPMethodNotAllowed):
        known = ", ".join(sorted(raised.allowed_methods))
        return HttpRefused("METHOD_NOT_ALLOWED", f"{request.path}: expected {known}, got {request.method}")
    if isinstance(raised, web.HTTPRequestEntityTooLarge):
        return too_large(MAX_BODY_BYTES)
    if raised.status == 404:
        return HttpRefused("NO_SUCH_ROUTE", f"there is no route {request.path}; /openapi.json lists the routes")
    return Refused("INVALID_REQUEST", raised.reason)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # on Windows it would let two services share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise SettingsError(
            f"{shown} is in use or not an address of this host ({error.strerror}); choose another with --http, or "
            'port 0; --http "" disables HTTP'
        ) from error
    bound.setblocking(False)
    return bound
