"""The context of a gRPC-Web call, with a small servicer on the endpoint alone."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.config.settings import load_settings
from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.grpcweb.endpoint import GrpcWeb
from edbjobs_server.gateway.security import Guard
from edbjobs_server.rpc.interceptors import current_principal
from support.grpcweb import Answer, Web, framed, frames_of

TOKEN = "t" * 43


class Service:
    """A servicer that does what the request names."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.remaining = 0.0

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.remaining = context.time_remaining()
        if request == b"refused":
            raise Refused("JOB_NOT_FOUND", "no job 100 % ü\n", fields={"name": "unknown"})
        if request == b"broken":
            raise ZeroDivisionError("secret detail")
        if request == b"abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "own words", (("x-own", "1"), ("x-own-bin", b"\0\xff")))
        if request == b"code":
            context.set_code(grpc.StatusCode.ABORTED)
            context.set_details("set")
        if request == b"metadata":
            await context.send_initial_metadata((("x-first", "1"),))
            context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\0\xff")))
            sent = dict(context.invocation_metadata())
            return f"{sent['x-text']} {sent['x-data-bin']!r}".encode()
        return current_principal().name.encode()

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            if request != b"empty":
                yield b"first"
            if request == b"refused":
                raise Refused("DRAINING", "stopping")
            if request == b"large":
                while True:
                    yield bytes(65536)
            if request == b"hang":
                await asyncio.Event().wait()
        finally:
            self.left.set()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Service, Web]]:
    service = Service()
    methods = {
        "/test.Test/GetIt": grpc.unary_unary_rpc_method_handler(service.unary, bytes, bytes),
        "/test.Test/WatchIt": grpc.unary_stream_rpc_method_handler(service.stream, bytes, bytes),
        "/test.Test/Both": grpc.stream_stream_rpc_method_handler(service.stream, bytes, bytes),
    }
    access = Authenticator(TOKEN)
    guard = Guard(access, TOKEN, load_settings({"state_dir": folder}), ("127.0.0.1", 0))
    endpoint = GrpcWeb(methods, guard, access, (), lambda _: None)
    runner = web.AppRunner(web.Application(middlewares=[endpoint.middleware]), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            yield service, Web(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


async def get(client: Web, request: bytes, **headers: str) -> Answer:
    return await client.call("/test.Test/GetIt", framed(request), **headers)


async def test_metadata_goes_both_ways(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        data = base64.b64encode(b"\0\xff\xfe").decode().rstrip("=")  # clients leave the padding out
        answer = await get(client, b"metadata", x_text="hello", x_data_bin=data)
        assert answer.messages == [b"hello b'\\x00\\xff\\xfe'"]
        assert answer.headers["x-first"] == "1"
        assert answer.trailers["x-last"] == "2"
        assert base64.b64decode(answer.trailers["x-last-bin"]) == b"\0\xff"


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (b"refused", grpc.StatusCode.NOT_FOUND, "no job 100 % ü\n"),
        (b"abort", grpc.StatusCode.DATA_LOSS, "own words"),
        (b"code", grpc.StatusCode.ABORTED, "set"),
    ],
)
async def test_errors_of_the_servicer_arrive(tmp_path: Path, request_: bytes, code: grpc.StatusCode, text: str) -> None:
    async with serving(tmp_path) as (_, client):
        answer = await get(client, request_)
        assert (answer.http, answer.code, answer.text, answer.messages) == (200, code.value[0], text, [])
        assert answer.trailers["grpc-message"].isascii()
        assert "\n" not in answer.trailers["grpc-message"]
        if request_ == b"abort":
            assert answer.trailers["x-own"] == "1"
            assert base64.b64decode(answer.trailers["x-own-bin"]) == b"\0\xff"


async def test_an_unexpected_error_has_no_details(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        answer = await get(client, b"broken")
        assert (answer.code, answer.reason) == (grpc.StatusCode.INTERNAL.value[0], "INTERNAL")
        assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("request_", "messages", "reason"),
    [(b"", [b"first"], ""), (b"empty", [], ""), (b"refused", [b"first"], "DRAINING")],
)
async def test_streams_end_with_trailers(tmp_path: Path, request_: bytes, messages: list[bytes], reason: str) -> None:
    async with serving(tmp_path) as (_, client):
        answer = await client.call("/test.Test/WatchIt", framed(request_))
        assert (answer.messages, answer.reason) == (messages, reason)
        assert answer.headers.get("X-Accel-Buffering") == ("no" if messages else None)


async def test_the_context_has_the_deadline(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, client):
        await get(client, b"", grpc_timeout="20S")
        assert 15 < service.remaining <= 20
        await get(client, b"")
        assert service.remaining == float("inf")


@pytest.mark.parametrize("request_", [b"hang", b"large"])
async def test_a_stream_ends_when_its_client_disconnects(tmp_path: Path, request_: bytes) -> None:
    async with serving(tmp_path) as (service, client):
        response = await client.post("/test.Test/WatchIt", framed(request_))
        async for _, message in frames_of(response.content.iter_any(), text=False):
            assert message == b"first"
            break
        assert not service.left.is_set()
        response.close()
        await asyncio.wait_for(service.left.wait(), 5)


async def test_a_client_stream_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        answer = await client.call("/test.Test/Both", framed(b""))
        assert answer.reason == "NOT_SERVED"
