"""Transports that send calls and streams over one channel: one for threads, one for asyncio.

Before the first call a transport checks the service with GetSystemStatus. When the service becomes unreachable
and endpoint.json has a new address, because the service was restarted, it connects to that address.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from edbjobs._calls import Call, status
from edbjobs._connection import Settings, check_service, make_stubs, metadata, to_error
from edbjobs._endpoint import Target
from edbjobs._exceptions import ConnectError, EdbJobsError

__all__ = ["AsyncTransport", "Transport"]

R = TypeVar("R")


@dataclass(frozen=True)
class _Connection:
    target: Target
    channel: Any
    stubs: dict[str, Any]
    metadata: tuple[tuple[str, str], ...]

    def method(self, service: str, rpc: str) -> Any:
        return getattr(self.stubs[service], rpc)


def _open(settings: Settings, module: Any) -> _Connection:
    """Open a channel; `module` is ``grpc`` or ``grpc.aio``, which have functions of the same names."""
    target = settings.resolve()
    options, credentials = settings.options(target), settings.credentials()
    if credentials is None:
        channel = module.insecure_channel(target.address, options=options)
    else:
        channel = module.secure_channel(target.address, credentials, options=options)
    return _Connection(target, channel, make_stubs(channel), metadata(target))


class Transport:
    """Transport for threads; thread-safe. `answered`: the service has answered and was checked at least once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.answered = False
        self._connection: _Connection | None = None

    def call(self, call: Call[R]) -> R:
        """Send one unary call and return its converted response."""
        connection = None
        try:
            connection = self._connect()
            return self._send(connection, call)
        except ConnectError:
            if not self._address_changed(connection):
                raise
            return self._send(self._connect(), call)

    def stream(self, service: str, rpc: str, request: Any) -> Iterator[Any]:
        """Open a stream and yield its messages."""
        connection = self._connect()
        stream = connection.method(service, rpc)(request, metadata=connection.metadata)
        try:
            yield from stream
        except grpc.RpcError as error:
            failed = to_error(error, connection.target)
            self._address_changed(connection)
            raise failed from error
        finally:
            stream.cancel()

    def close(self) -> None:
        """Close the channel; the next call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.channel.close()

    def _connect(self) -> _Connection:
        connection = self._connection
        if connection is None:
            connection = _open(self.settings, grpc)
            answer: Any
            try:
                answer = self._send(connection, status())
            except EdbJobsError as error:
                answer = error
            try:
                check_service(answer, connection.target)
            except EdbJobsError:
                connection.channel.close()
                raise
            self._connection, self.answered = connection, True
        return connection

    def _address_changed(self, connection: _Connection | None) -> bool:
        # Dropped, not closed: another thread may still have a call on it.
        if connection is None or self.settings.resolve() == connection.target:
            return False
        self._connection = None
        return True

    def _send(self, connection: _Connection, call: Call[R]) -> R:
        try:
            answer = connection.method(call.service, call.rpc)(
                call.request,
                timeout=self.settings.timeout + call.extra_time,
                metadata=connection.metadata,
            )
        except grpc.RpcError as error:
            raise to_error(error, connection.target) from error
        return call.convert(answer)


class AsyncTransport:
    """Transport for asyncio; bound to the event loop of its first call. `answered` as in `Transport`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.answered = False
        self._connection: _Connection | None = None

    async def call(self, call: Call[R]) -> R:
        """Send one unary call and return its converted response."""
        connection = None
        try:
            connection = await self._connect()
            return await self._send(connection, call)
        except ConnectError:
            if not self._address_changed(connection):
                raise
            return await self._send(await self._connect(), call)

    async def stream(self, service: str, rpc: str, request: Any) -> AsyncGenerator[Any, None]:
        """Open a stream and yield its messages."""
        connection = await self._connect()
        stream = connection.method(service, rpc)(request, metadata=connection.metadata)
        try:
            async for message in stream:
                yield message
        except grpc.RpcError as error:
            failed = to_error(error, connection.target)
            self._address_changed(connection)
            raise failed from error
        finally:
            stream.cancel()

    async def close(self) -> None:
        """Close the channel; the next call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.channel.close()

    async def _connect(self) -> _Connection:
        connection = self._connection
        if connection is None:
            connection = _open(self.settings, grpc.aio)
            answer: Any
            try:
                answer = await self._send(connection, status())
            except EdbJobsError as error:
                answer = error
            try:
                check_service(answer, connection.target)
            except EdbJobsError:
                await connection.channel.close()
                raise
            self._connection, self.answered = connection, True
        return connection

    def _address_changed(self, connection: _Connection | None) -> bool:
        if connection is None or self.settings.resolve() == connection.target:
            return False
        self._connection = None
        return True

    async def _send(self, connection: _Connection, call: Call[R]) -> R:
        try:
            answer = await connection.method(call.service, call.rpc)(
                call.request,
                timeout=self.settings.timeout + call.extra_time,
                metadata=connection.metadata,
            )
        except grpc.RpcError as error:
            raise to_error(error, connection.target) from error
        return call.convert(answer)
