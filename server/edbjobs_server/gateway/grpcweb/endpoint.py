"""gRPC-Web: the calls of the contract over HTTP/1.1, for browsers and for programs without HTTP/2.

A call is served in this process by the servicers and the interceptor of the gRPC endpoint; only the transport
differs. Callers are authenticated as for every HTTP request. Unary calls and server streams are supported, as
``application/grpc-web+proto`` or, in base64, ``application/grpc-web-text``.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import grpc
import structlog
from aiohttp import hdrs, web

from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.contract.errors import entry, trailer
from edbjobs_server.contract.request_check import MAX_REQUEST_BYTES, rpc_not_served, too_large
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal
from edbjobs_server.gateway.grpcweb import wire
from edbjobs_server.gateway.http_errors import HttpRefused, word_of
from edbjobs_server.gateway.rest.responses import error
from edbjobs_server.gateway.security import HEADERS, Guard
from edbjobs_server.rpc.interceptors import CallInterceptor

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Methods = Mapping[str, Any]  # by path; grpc.RpcMethodHandler, whose attributes are not in the published types

_TYPES = frozenset(
    kind + codec for kind in ("application/grpc-web", "application/grpc-web-text") for codec in ("", "+proto")
)
# Headers that clients of gRPC-Web send.
_REQUEST_HEADERS = "authorization, content-type, grpc-timeout, x-grpc-web, x-user-agent"
_PREFLIGHT_SECONDS = 7200


class GrpcWeb:
    """Middleware that serves gRPC-Web calls and passes every other request on.

    Parameters
    ----------
    methods : mapping of str to RpcMethodHandler
        The methods that can be called, by path.
    guard : Guard
        Authenticates the callers.
    access : Authenticator
        The authenticator of the HTTP endpoint.
    origins : collection of str
        Further origins whose pages may call; these must send the token.
    count_error : callable
        Called with the reason code of each request that is refused before it becomes a call.
    log : structlog logger, optional
        Logger of the calls; default: ``rpc``.
    """

    def __init__(
        self,
        methods: Methods,
        guard: Guard,
        access: Authenticator,
        origins: Iterable[str],
        count_error: Callable[[str], None],
        log: Any = None,
    ) -> None:
        self._methods = methods
        self._services = frozenset(path.rpartition("/")[0] for path in methods)
        self._guard = guard
        self._origins = frozenset(origins)
        self._count_error = count_error
        self._log = structlog.get_logger("http")
        self._interceptor = _Interceptor(access, log)

    def serves(self, request: web.Request) -> bool:
        """Return whether a request is addressed to a service of the contract."""
        return request.path.rpartition("/")[0] in self._services

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a call; pass other requests to the next handler."""
        if not self.serves(request):
            return await handler(request)
        try:
            self._guard.check_site(request, self._origins)
            if request.method == hdrs.METH_OPTIONS:
                return self._preflight(request)
            _check_content_type(request)
            return await self._call(request, self._guard.identify(request))
        except Refused as refused:
            return self._refuse(request, refused)

    def _preflight(self, request: web.Request) -> web.Response:
        headers = {
            **self._headers(request),
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
        }
        return web.Response(status=204, headers=headers)

    def _headers(self, request: web.Request) -> dict[str, str]:
        origin = request.headers.get(hdrs.ORIGIN, "")
        if origin not in self._origins:
            return dict(HEADERS)
        return {**HEADERS, "Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    async def _call(self, request: web.Request, caller: Principal) -> web.StreamResponse:
        method = self._methods.get(request.path)
        if method is None or method.request_streaming:
            raise rpc_not_served(request.path)
        timeout = wire.timeout_of(request.headers.get("grpc-timeout", ""))
        metadata = wire.metadata_of(request.headers)
        handler = await self._interceptor.intercept_service(_continue_with(method), _Details(request.path, metadata))
        message = handler.request_deserializer(wire.message_of(await _body(request)))
        answer = _Answer(request, self._headers(request))
        context = WebContext(caller, metadata, handler.response_serializer, answer, timeout)
        try:
            found = await (handler.unary_stream if handler.response_streaming else handler.unary_unary)(
                message, context
            )
        except grpc.aio.AbortError:
            found = None
        return await context.end(found)

    def _refuse(self, request: web.Request, refused: Refused) -> web.Response:
        """Answer a request that did not become a call: with trailers if it is gRPC-Web, else with JSON."""
        self._count_error(word_of(refused))
        denied = entry(refused).code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        write = self._log.warning if denied else self._log.debug
        write("call refused", path=request.path, reason=word_of(refused), peer=self._guard.peer(request).label)
        if request.content_type not in _TYPES:
            answer = error(refused)
            answer.headers.update(HEADERS)
            return answer
        text, key, details = trailer(refused)
        return _Answer(request, self._headers(request)).whole(
            wire.trailers(entry(refused).code, text, [(key, details)])
        )


class WebContext(grpc.aio.ServicerContext[Any, Any]):
    """Context of a call over HTTP, as servicers and the interceptor use it.

    Parameters
    ----------
    caller : Principal
        The authenticated caller.
    metadata : sequence of (str, str or bytes)
        Metadata that the client sent.
    serialize : callable
        Serializes a message of the answer.
    answer : _Answer
        Sends the bytes.
    timeout : float, optional
        Seconds until the client's deadline.
    """

    def __init__(
        self,
        caller: Principal,
        metadata: tuple[tuple[str, str | bytes], ...],
        serialize: Callable[[Any], bytes],
        answer: _Answer,
        timeout: float | None,
    ) -> None:
        self.caller = caller
        self._metadata = metadata
        self._serialize = serialize
        self._answer = answer
        self._deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self._code = grpc.StatusCode.OK
        self._text = ""
        self._trailing: wire.Metadata = ()

    async def end(self, found: Any) -> web.StreamResponse:
        """Send the answer of a unary call, if any, and the trailers."""
        last = wire.trailers(self._code, self._text, self._trailing)
        if found is not None and self._code is grpc.StatusCode.OK:
            last = wire.frame(self._serialize(found)) + last
        return await self._answer.end(last)

    async def write(self, message: Any) -> None:
        """Send one message of a stream."""
        await self._answer.write(wire.frame(self._serialize(message)))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: wire.Metadata = ()) -> NoReturn:
        """End the call with an error."""
        self._code, self._text = code, details
        self._trailing = trailing_metadata or self._trailing
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with an error."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send headers; they go with the first message."""
        self._answer.headers.update({key: value for key, value in initial_metadata if isinstance(value, str)})

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the metadata that follows the last message."""
        self._trailing = tuple(trailing_metadata)

    def invocation_metadata(self) -> Any:
        """Return the metadata that the client sent."""
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code of the call."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the status text of the call."""
        self._text = details

    def code(self) -> grpc.StatusCode:
        """Return the status code of the call."""
        return self._code

    def details(self) -> str:
        """Return the status text of the call."""
        return self._text

    def peer(self) -> str:
        """Return the address of the client."""
        return self.caller.address

    def time_remaining(self) -> float:
        """Return the seconds until the deadline; infinity without one."""
        if self._deadline is None:
            return float("inf")
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return nothing: the HTTP endpoint has no client certificates."""
        return {}

    def peer_identities(self) -> None:
        """Return nothing, for the same reason."""

    def peer_identity_key(self) -> None:
        """Return nothing, for the same reason."""

    async def read(self) -> NoReturn:
        """Raise: a gRPC-Web client sends one message, which the servicer was called with."""
        raise RuntimeError("a call through gRPC-Web has one request")

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing: messages are sent without compression."""

    def disable_next_message_compression(self) -> None:
        """Do nothing, for the same reason."""


class _Answer:
    """The HTTP response of a call: started with the first message of a stream, or sent as a whole."""

    def __init__(self, request: web.Request, headers: dict[str, str]) -> None:
        self._request = request
        self._text = request.content_type.startswith("application/grpc-web-text")
        self.headers = {**headers, hdrs.CONTENT_TYPE: request.content_type}
        self._stream: web.StreamResponse | None = None

    def whole(self, frames: bytes) -> web.Response:
        return web.Response(body=self._encoded(frames), headers=self.headers)

    async def write(self, frames: bytes) -> None:
        try:
            if self._stream is None:
                # nginx would otherwise buffer the answer until its end, and a watch would receive nothing.
                self._stream = web.StreamResponse(headers={**self.headers, "X-Accel-Buffering": "no"})
                await self._stream.prepare(self._request)
            await self._stream.write(self._encoded(frames))
        except ConnectionError as gone:
            raise asyncio.CancelledError("the client has disconnected") from gone

    async def end(self, frames: bytes) -> web.StreamResponse:
        if self._stream is None:
            return self.whole(frames)
        await self.write(frames)
        return self._stream

    def _encoded(self, frames: bytes) -> bytes:
        return base64.b64encode(frames) if self._text else frames


class _Interceptor(CallInterceptor):
    """The interceptor of the gRPC endpoint; the HTTP endpoint has authenticated the caller already."""

    def identify(self, context: grpc.aio.ServicerContext[Any, Any]) -> Principal:
        return cast("WebContext", context).caller


@dataclass
class _Details:
    """The details of a call that the interceptor reads."""

    method: str
    invocation_metadata: Any


def _continue_with(method: Any) -> Callable[[Any], Awaitable[Any]]:
    async def continuation(_: Any) -> Any:
        return method

    return continuation


def _check_content_type(request: web.Request) -> None:
    if request.method != hdrs.METH_POST:
        raise HttpRefused("METHOD_NOT_ALLOWED", f"{request.path}: expected POST, got {request.method}")
    if request.content_type not in _TYPES:
        raise HttpRefused(
            "NOT_GRPC_WEB",
            f"expected `Content-Type: application/grpc-web+proto`, got {request.content_type}; "
            "for JSON use the routes of /openapi.json",
        )


async def _body(request: web.Request) -> bytes:
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_REQUEST_BYTES:
            raise too_large(MAX_REQUEST_BYTES)
    if request.content_type.startswith("application/grpc-web-text"):
        return wire.from_text(bytes(body))
    return bytes(body)
