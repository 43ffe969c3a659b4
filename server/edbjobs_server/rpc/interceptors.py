"""Interceptor of every call: authentication, the check of the request, deadline, error details, and a log line."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import grpc
import structlog

from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.auth.roles import require_rpc
from edbjobs_server.contract import request_check, unserved
from edbjobs_server.contract.errors import abort
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal
from edbjobs_server.util import timeouts

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Any  # grpc.RpcMethodHandler: its attributes are not in the published types
_Body = Callable[[Any, _Context], Awaitable[Any]]

# RPCs that change nothing are frequent: they are logged at debug.
_READS = ("Get", "List", "Watch", "Wait", "Read", "Preview", "Inspect", "Check", "ServerReflection")
# A call is ended this much before its deadline, so that its error reaches the client in time: at the deadline the
# client itself ends the call, and knows no reason.
_MARGIN_SECONDS = 0.1
_MARGIN_SHARE = 0.1
_OURS = f"/{request_check.PACKAGE}."
_PRINCIPAL: ContextVar[Principal] = ContextVar("principal")


def current_principal() -> Principal:
    """Return the principal of the call that is being served."""
    return _PRINCIPAL.get()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates the caller, checks the request, returns errors with their details, and logs the call.

    ``Refused`` ends the call with the reason's code; any other exception ends it as INTERNAL with a number
    that is in the log with the traceback. A cancellation is passed on. A call whose deadline passes ends with DEADLINE.

    Parameters
    ----------
    access : Authenticator
        Authenticates callers.
    log : structlog logger, optional
        Default: ``rpc``.
    """

    def __init__(self, access: Authenticator, log: Any = None) -> None:
        self._access = access
        self._log = log if log is not None else structlog.get_logger("rpc").bind()
        self._wrapped: dict[str, tuple[_Handler, _Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Return the method's handler, wrapped; each is wrapped once."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return self._unknown(method)
        cached = self._wrapped.get(method)
        if cached is None or cached[0] is not handler:
            cached = self._wrapped[method] = handler, self._wrap(method, handler)
        return cached[1]

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        behavior = getattr(handler, kind)
        body = _writing(behavior) if handler.response_streaming else behavior
        read = handler.request_deserializer
        if method.startswith(_OURS) and request_check.rpc_name(method) in unserved.RPCS:
            body, read = _not_served(method), bytes  # whatever it asks for
        elif method.startswith(_OURS):
            read = request_check.deserializer(read)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            self._guarded(method, body),
            request_deserializer=read,
            response_serializer=_serializer(handler.response_serializer),
        )

    def _unknown(self, method: str) -> _Handler:
        """Return a handler for a method of the contract that this release does not know; None: of another one."""
        if not method.startswith(_OURS):
            return None
        return grpc.unary_unary_rpc_method_handler(self._guarded(method, _not_served(method)))

    def _guarded(self, method: str, body: _Body) -> _Body:
        read = method.rpartition("/")[2].startswith(_READS)

        async def call(request: Any, context: _Context) -> Any:
            start = time.perf_counter()
            code: grpc.StatusCode | None = None
            limit = _seconds_left(context)
            try:
                principal = self.identify(context)
                _PRINCIPAL.set(principal)
                require_rpc(principal, method)
                _raise_refused(request)
                async with timeouts.timeout(limit):
                    response = await body(request, context)
                code = grpc.StatusCode.OK
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Refused as refused:
                await abort(context, refused)
            except grpc.aio.AbortError:  # a servicer ended the call itself
                raise
            except Exception as error:
                if isinstance(error, asyncio.TimeoutError) and _has_passed(limit, start):
                    await abort(context, _deadline())
                await abort(context, self._unexpected(method, error))
            finally:
                self._line(method, read, context, code, time.perf_counter() - start)
            return response

        return call

    def identify(self, context: _Context) -> Principal:
        """Return the principal of a call, or refuse it."""
        metadata = context.invocation_metadata() or ()
        auth = context.auth_context() if self._access.mtls else None
        return self._access.identify(context.peer(), metadata, auth)

    def _unexpected(self, method: str, error: Exception) -> Refused:
        number = secrets.token_hex(6)
        self._log.error("unexpected error", method=method, incident=number, exc_info=error)
        text = f"an error inside the service; its log has the details under {number}"
        return Refused("INTERNAL", text, metadata={"incident": number})

    def _line(self, method: str, read: bool, context: _Context, code: grpc.StatusCode | None, seconds: float) -> None:
        code = code or context.code() or grpc.StatusCode.UNKNOWN
        if code is grpc.StatusCode.UNAUTHENTICATED:
            write = self._log.warning
        else:
            write = self._log.debug if read else self._log.info
        caller = _PRINCIPAL.get(None)
        write(
            "call",
            method=method,
            peer=caller.address if caller and caller.address else context.peer(),
            principal=caller.name if caller else None,
            authentication=caller.authentication.name.lower() if caller else None,
            code=code.name,
            ms=round(seconds * 1000, 2),
        )


def _raise_refused(request: Any) -> None:
    """Raise what is wrong with a request: its deserializer has returned that in its place."""
    if isinstance(request, Refused):
        raise request


def _seconds_left(context: _Context) -> float | None:
    """Return the seconds after which a call is ended because of its deadline; None: it has none."""
    left = context.time_remaining()
    if left is None or left == math.inf:
        return None
    return left - min(_MARGIN_SECONDS, left * _MARGIN_SHARE)


def _has_passed(limit: float | None, start: float) -> bool:
    # Timers may fire a little early: by 16 ms on Windows.
    return limit is not None and time.perf_counter() - start >= 0.9 * limit - 0.02


def _deadline() -> Refused:
    return Refused(
        "DEADLINE",
        "the deadline of the call has passed before the service was done, and what was asked for may still happen; "
        "repeat the call with a later deadline, and with the same request_id if it has one",
    )


def _not_served(method: str) -> _Body:
    async def body(request: Any, context: _Context) -> None:
        raise request_check.rpc_not_served(method)

    return body


def _serializer(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Pass on what is serialized already: a message to a thousand watchers is serialized once."""
    return lambda response: response if isinstance(response, bytes) else serialize(response)


def _writing(behavior: Callable[[Any, _Context], Any]) -> _Body:
    """Wrap a generator of responses in a coroutine that writes them, so that every kind of call is guarded alike."""
    if asyncio.iscoroutinefunction(behavior):
        return behavior

    async def body(request: Any, context: _Context) -> None:
        responses: AsyncIterator[Any] = behavior(request, context)
        async with aclosing(responses):  # type: ignore[type-var]
            async for response in responses:
                await context.write(response)

    return body
