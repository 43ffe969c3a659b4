"""Interceptor of every call: authentication, error details, and a log line."""

from __future__ import annotations

import asyncio
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
from edbjobs_server.contract.errors import abort
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Any  # grpc.RpcMethodHandler: its attributes are not in the published types
_Body = Callable[[Any, _Context], Awaitable[Any]]

# RPCs that change nothing are frequent: they are logged at debug.
_READS = ("Get", "List", "Watch", "Wait", "Tail", "Preview", "Check", "ServerReflection")
_PRINCIPAL: ContextVar[Principal] = ContextVar("principal")


def current_principal() -> Principal:
    """Return the principal of the call that is being served."""
    return _PRINCIPAL.get()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates the caller, returns errors with their details, and logs the call.

    ``Refused`` ends the call with the reason's code; any other exception ends it as INTERNAL with a number
    that is in the log with the traceback. A cancellation is passed on.

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
        if handler is None:
            return None
        method = handler_call_details.method
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
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            self._guarded(method, body),
            request_deserializer=handler.request_deserializer,
            response_serializer=_serializer(handler.response_serializer),
        )

    def _guarded(self, method: str, body: _Body) -> _Body:
        read = method.rpartition("/")[2].startswith(_READS)

        async def call(request: Any, context: _Context) -> Any:
            start = time.perf_counter()
            code: grpc.StatusCode | None = None
            try:
                principal = self.identify(context)
                _PRINCIPAL.set(principal)
                require_rpc(principal, method)
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
        self._log.error("unexpected error", method=method, error_id=number, exc_info=error)
        text = f"an error inside the service; its log has the details under {number}"
        return Refused("INTERNAL", text, metadata={"error_id": number})

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
            peer=caller.address or context.peer() if caller else context.peer(),
            principal=caller.name if caller else None,
            authentication=caller.authentication.name.lower() if caller else None,
            code=code.name,
            ms=round(seconds * 1000, 2),
        )


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
