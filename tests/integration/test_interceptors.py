"""The interceptor alone, on a small server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.auth.peers import open_peer_sockets
from edbjobs_server.contract.errors import DETAILS_KEY
from edbjobs_server.core.errors import Refused
from edbjobs_server.rpc.interceptors import CallInterceptor, current_principal
from google.rpc import error_details_pb2, status_pb2

TOKEN = "t" * 43


class Service:
    """Behaves as its request names."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    async def unary(self, request: bytes, context: Any) -> bytes:
        if request == b"refused":
            raise Refused("JOB_NOT_FOUND", "no job ü", fields={"name": "unknown"}, metadata={"key": "x"})
        if request == b"broken":
            raise ZeroDivisionError("secret detail")
        if request == b"abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "own words")
        if request == b"hang":
            await self.hang()
        if request == b"own timeout":
            raise asyncio.TimeoutError
        caller = current_principal()
        return f"{caller.name} {caller.authentication.name} {caller.address}".encode()

    async def hang(self) -> None:
        try:
            self.entered.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        try:
            while request == b"large":
                yield bytes(65536)
        finally:
            if request == b"large":
                self.cancelled.set()
        if request == b"refused":
            raise Refused("DRAINING", "stopping")
        if request == b"hang":
            await self.hang()
        yield current_principal().authentication.name.encode()

    async def writer(self, request: bytes, context: Any) -> None:
        await context.write(b"written")

    async def both(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


class Log:
    """Collects log lines and notifies of enough of them: a client may have its response before the line is written."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.written = asyncio.Event()

    def __getattr__(self, level: str) -> Any:
        def write(event: str, **values: Any) -> None:
            self.calls.append((level, values))
            self.written.set()

        return write

    async def lines(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        async def enough() -> None:
            while len(self.calls) < count:
                self.written.clear()
                await self.written.wait()

        await asyncio.wait_for(enough(), 5)
        return list(self.calls)


class Setup:
    def __init__(self, service: Service, channel: grpc.aio.Channel, log: Log) -> None:
        self.service, self.channel, self.log = service, channel, log

    def unary(self, request: bytes, method: str = "ChangeIt", **more: Any) -> Any:
        call: Any = self.channel.unary_unary(f"/test.Test/{method}")
        return call(request, **more)

    def stream(self, request: bytes, method: str = "WatchIt", **more: Any) -> Any:
        call: Any = self.channel.unary_stream(f"/test.Test/{method}")
        return call(request, **more)


@asynccontextmanager
async def serving() -> AsyncIterator[Setup]:
    service, log = Service(), Log()
    access = Authenticator(TOKEN, sockets=open_peer_sockets())
    server = grpc.aio.server(interceptors=[CallInterceptor(access, log)])
    handlers: dict[str, Any] = {
        "ChangeIt": grpc.unary_unary_rpc_method_handler(service.unary),
        "GetIt": grpc.unary_unary_rpc_method_handler(service.unary),
        "WatchIt": grpc.unary_stream_rpc_method_handler(service.stream),
        "WatchWritten": grpc.unary_stream_rpc_method_handler(service.writer),
        "Both": grpc.stream_stream_rpc_method_handler(service.both),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    access.listen([("127.0.0.1", port)])
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Setup(service, channel, log)
    finally:
        await server.stop(None)
        access.close()


async def failing(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def details(error: grpc.aio.AioRpcError) -> tuple[Any, dict[str, Any]]:
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers[DETAILS_KEY])
    return status, {item.type_url.rpartition(".")[2]: item for item in status.details}


def reason(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    details(error)[1]["ErrorInfo"].Unpack(info)
    return str(info.reason)


async def test_a_call_knows_its_caller_and_is_logged_once() -> None:
    async with serving() as here:
        label = await here.unary(b"")
        assert b" LOOPBACK ipv4:127.0.0.1:" in label
        ((level, line),) = await here.log.lines(1)
        assert level == "info"
        assert (line["method"], line["code"], line["authentication"]) == ("/test.Test/ChangeIt", "OK", "loopback")
        assert 0 < line["ms"] < 5000


async def test_reads_are_logged_at_debug() -> None:
    async with serving() as here:
        await here.unary(b"", "GetIt")
        assert [level for level, _ in await here.log.lines(1)] == ["debug"]


async def test_a_refusal_carries_code_text_and_details() -> None:
    async with serving() as here:
        error = await failing(here.unary(b"refused"))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == "no job ü"
        status, found = details(error)
        assert (status.code, status.message) == (5, "no job ü")
        info = error_details_pb2.ErrorInfo()
        assert found["ErrorInfo"].Unpack(info)
        assert (info.reason, info.domain, dict(info.metadata)) == ("JOB_NOT_FOUND", "edbjobs", {"key": "x"})
        bad = error_details_pb2.BadRequest()
        assert found["BadRequest"].Unpack(bad)
        assert [(item.field, item.description) for item in bad.field_violations] == [("name", "unknown")]
        assert (await here.log.lines(1))[0][1]["code"] == "NOT_FOUND"


async def test_an_unexpected_error_is_internal_with_a_number_that_is_in_the_log() -> None:
    async with serving() as here:
        error = await failing(here.unary(b"broken"))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(error.details())
        (level, logged), (_, line) = await here.log.lines(2)
        assert level == "error"
        assert isinstance(logged["exc_info"], ZeroDivisionError)
        assert logged["incident"] in str(error.details())
        assert line["code"] == "INTERNAL"


async def test_an_abort_of_the_servicer_stays_as_it_is() -> None:
    async with serving() as here:
        error = await failing(here.unary(b"abort"))
        assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "own words")
        assert [line["code"] for _, line in await here.log.lines(1)] == ["DATA_LOSS"]


async def test_a_deadline_ends_a_call_with_its_reason() -> None:
    async with serving() as here:
        error = await failing(here.unary(b"hang", timeout=0.3))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason(error) == "DEADLINE"
        await asyncio.wait_for(here.service.cancelled.wait(), 5)
        assert [line["code"] for _, line in await here.log.lines(1)] == ["DEADLINE_EXCEEDED"]


async def test_a_deadline_ends_a_stream_with_its_reason() -> None:
    async with serving() as here:
        call = here.stream(b"hang", timeout=0.3)
        assert await call.read() == b"first"
        error = await failing(call.read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")
        await asyncio.wait_for(here.service.cancelled.wait(), 5)


async def test_a_deadline_that_nobody_reads_to_leaves_no_call_behind() -> None:
    async with serving() as here:
        call = here.stream(b"large", timeout=0.3)
        assert await call.read()
        await asyncio.wait_for(here.service.cancelled.wait(), 5)
        ((_, line),) = await here.log.lines(1)
        assert line["code"] in ("DEADLINE_EXCEEDED", "CANCELLED")


async def test_a_time_limit_of_the_servicer_itself_is_no_deadline() -> None:
    async with serving() as here:
        error = await failing(here.unary(b"own timeout", timeout=20))
        assert (error.code(), reason(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_cancelling_reaches_the_servicer() -> None:
    async with serving() as here:
        call = here.unary(b"hang")
        await asyncio.wait_for(here.service.entered.wait(), 5)
        call.cancel()
        await asyncio.wait_for(here.service.cancelled.wait(), 5)
        assert [line["code"] for _, line in await here.log.lines(1)] == ["CANCELLED"]


async def test_streams_know_their_caller_and_carry_errors() -> None:
    async with serving() as here:
        assert [item async for item in here.stream(b"")] == [b"first", b"LOOPBACK"]
        call = here.stream(b"refused")
        assert await call.read() == b"first"
        error = await failing(call.read())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        retry = error_details_pb2.RetryInfo()
        assert details(error)[1]["RetryInfo"].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == 2000


async def test_cancelling_a_stream_ends_its_generator() -> None:
    async with serving() as here:
        call = here.stream(b"hang")
        assert await call.read() == b"first"
        call.cancel()
        await asyncio.wait_for(here.service.cancelled.wait(), 5)


async def test_streams_that_write_and_streams_both_ways_pass() -> None:
    async with serving() as here:
        assert [item async for item in here.stream(b"", "WatchWritten")] == [b"written"]
        both: Any = here.channel.stream_stream("/test.Test/Both")
        assert [item async for item in both(iter([b"a", b"b"]))] == [b"a", b"b"]


async def test_a_refused_caller_reaches_no_servicer() -> None:
    async with serving() as here:
        wrong = (("authorization", "Bearer " + "w" * 43),)
        for call in (here.unary(b"", metadata=wrong), here.unary(b"broken", metadata=wrong)):
            error = await failing(call)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        lines = await here.log.lines(2)
        assert [level for level, _ in lines] == ["warning", "warning"]
        assert lines[0][1]["principal"] is None


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving() as here:
        error = await failing(here.unary(b"", "Nothing"))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
