"""gRPC-Web: the calls of the contract over HTTP/1.1, for browsers and for programs without HTTP/2.

A call is served in this process by the servicers and the interceptor of the gRPC door; only what carries its bytes
is another. Who calls is told as for every HTTP request. Unary calls and server streams, as
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
from google.protobuf.message import DecodeError

from edbjobs_server.auth.authenticator import Authenticator, Principal
from edbjobs_server.contract.errors import entry, trailer
from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.grpcweb import wire
from edbjobs_server.gateway.rest.responses import error
from edbjobs_server.gateway.security import HEADERS, Guard
from edbjobs_server.rpc.interceptors import CallInterceptor
from edbjobs_server.util import timeouts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Methods = Mapping[str, Any]  # by path; grpc.RpcMethodHandler, whose attributes are not in the published types

MAX_BODY_BYTES = 16 * 1024 * 1024  # as through gRPC
_TYPES = frozenset(
    kind + codec for kind in ("application/grpc-web", "application/grpc-web-text") for codec in ("", "+proto")
)
# What clients of gRPC-Web send, and what is theirs to read: all else of an answer is in its last frame.
_REQUEST_HEADERS = "authorization, content-type, grpc-timeout, x-grpc-web, x-user-agent"
_PREFLIGHT_SECONDS = 7200


class GrpcWeb:
    """Serves gRPC-Web calls, and lets every other request pass.

    Parameters
    ----------
    methods : mapping of str to RpcMethodHandler
        What can be called, by path.
    guard : Guard
        Tells who calls.
    access : Authenticator
        Of this door.
    origins : collection of str
        Origins of pages that may call beside the service's own; they must send the token.
    count_error : callable
        Told the reason of each refusal that comes before a call.
    log : structlog logger, optional
        Of the calls; default: ``rpc``.
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
        """Tell whether a request is addressed to a service of the contract."""
        return request.path.rpartition("/")[0] in self._services

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a call; give other requests on."""
        if not self.serves(request):
            return await handler(request)
        try:
            self._guard.check_site(request, self._origins)
            if request.method == hdrs.METH_OPTIONS:
                return self._preflight(request)
            _check_kind(request)
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
            raise Refused("NOT_SERVED", f"there is no call {request.path}, or not through gRPC-Web")
        timeout = wire.timeout_of(request.headers.get("grpc-timeout", ""))
        metadata = wire.metadata_of(request.headers)
        handler = await self._interceptor.intercept_service(_finding(method), _Details(request.path, metadata))
        message = _message(handler, await _body(request))
        answer = _Answer(request, self._headers(request))
        context = WebContext(caller, metadata, handler.response_serializer, answer, timeout)
        try:
            running = (handler.unary_stream if handler.response_streaming else handler.unary_unary)(message, context)
            async with timeouts.timeout(timeout):
                found = await running
        except grpc.aio.AbortError:
            found = None
        except asyncio.TimeoutError:  # the servicer's own errors have become aborts
            found = None
            context.set_code(grpc.StatusCode.DEADLINE_EXCEEDED)
            context.set_details("the deadline of the call has passed")
        return await context.end(found)

    def _refuse(self, request: web.Request, refused: Refused) -> web.Response:
        """Refuse what did not become a call: as gRPC-Web tells it, if the client speaks that."""
        self._count_error(refused.reason)
        who = entry(refused).code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        write = self._log.warning if who else self._log.debug
        write("call refused", path=request.path, reason=refused.reason, peer=self._guard.peer(request).label)
        if request.content_type not in _TYPES:
            answer = error(refused)
            answer.headers.update(HEADERS)
            return answer
        text, key, details = trailer(refused)
        return _Answer(request, self._headers(request)).whole(
            wire.trailers(entry(refused).code, text, [(key, details)])
        )


class WebContext(grpc.aio.ServicerContext[Any, Any]):
    """What a servicer and the interceptor need of a call, over HTTP.

    Parameters
    ----------
    caller : Principal
        Who calls.
    metadata : sequence of (str, str or bytes)
        What the client sent.
    serialize : callable
        Makes bytes of an answer.
    answer : _Answer
        Takes the bytes.
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
        """Send what is left: the answer of a unary call, and the trailers."""
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
        """Set what comes after the last message."""
        self._trailing = tuple(trailing_metadata)

    def invocation_metadata(self) -> Any:
        """Tell what the client sent."""
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the code the call ends with."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the text the call ends with."""
        self._text = details

    def code(self) -> grpc.StatusCode:
        """Tell the code the call ends with."""
        return self._code

    def details(self) -> str:
        """Tell the text the call ends with."""
        return self._text

    def peer(self) -> str:
        """Tell where the call comes from."""
        return self.caller.peer

    def time_remaining(self) -> float:
        """Tell the seconds until the deadline; without one, infinity."""
        if self._deadline is None:
            return float("inf")
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Tell nothing: the HTTP door has no certificates of clients."""
        return {}

    def peer_identities(self) -> None:
        """Tell nothing, for the same reason."""

    def peer_identity_key(self) -> None:
        """Tell nothing, for the same reason."""

    async def read(self) -> NoReturn:
        """Refuse: a client of gRPC-Web sends one message, which the servicer has."""
        raise RuntimeError("a call through gRPC-Web has one request")

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing: messages go as they are."""

    def disable_next_message_compression(self) -> None:
        """Do nothing, for the same reason."""


class _Answer:
    """The HTTP response of a call: begun with the first message of a stream, or sent as a whole."""

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
                # A proxy (nginx) that kept the answer back until its end would make a watch useless.
                self._stream = web.StreamResponse(headers={**self.headers, "X-Accel-Buffering": "no"})
                await self._stream.prepare(self._request)
            await self._stream.write(self._encoded(frames))
        except ConnectionError as gone:
            raise asyncio.CancelledError("the client has gone") from gone

    async def end(self, frames: bytes) -> web.StreamResponse:
        if self._stream is None:
            return self.whole(frames)
        await self.write(frames)
        return self._stream

    def _encoded(self, frames: bytes) -> bytes:
        return base64.b64encode(frames) if self._text else frames


class _Interceptor(CallInterceptor):
    """The interceptor of the gRPC door; who calls, the HTTP door has told."""

    def identify(self, context: grpc.aio.ServicerContext[Any, Any]) -> Principal:
        return cast("WebContext", context).caller


@dataclass
class _Details:
    """What the interceptor is told of a call."""

    method: str
    invocation_metadata: Any


def _finding(method: Any) -> Callable[[Any], Awaitable[Any]]:
    async def continuation(_: Any) -> Any:
        return method

    return continuation


def _check_kind(request: web.Request) -> None:
    if request.method != hdrs.METH_POST:
        raise Refused("METHOD_NOT_ALLOWED", f"{request.path} takes POST, not {request.method}")
    if request.content_type not in _TYPES:
        raise Refused(
            "NOT_GRPC_WEB",
            f"a call is sent as `Content-Type: application/grpc-web+proto`, not as {request.content_type}; "
            "/openapi.json lists what takes JSON",
        )


async def _body(request: web.Request) -> bytes:
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise Refused("TOO_LARGE", f"a request may have at most {MAX_BODY_BYTES} bytes")
    if request.content_type.startswith("application/grpc-web-text"):
        return wire.from_text(bytes(body))
    return bytes(body)


def _message(handler: Any, body: bytes) -> Any:
    try:
        return handler.request_deserializer(wire.message_of(body))
    except DecodeError as wrong:
        raise Refused("INVALID_REQUEST", f"the request is not the message of this call: {wrong}") from None
