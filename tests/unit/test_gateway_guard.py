"""The owner of a connection is looked up once for each connection, and not for requests with credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from edbjobs_server.config.settings import Settings
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Authentication, Principal, Role
from edbjobs_server.gateway.security import Guard


class Authenticator:
    """Records the calls; refuses everybody while `closed`."""

    account = "us"

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.closed = False

    def identify(self, peer: str, metadata: Any) -> Principal:
        self.calls.append((peer, bool(metadata)))
        if self.closed:
            raise Refused("UNAUTHENTICATED", "closed")
        return Principal(self.account, Role.ADMIN, Authentication.LOOPBACK, peer)


@asynccontextmanager
async def guarded(access: Any) -> AsyncIterator[str]:
    guard = Guard(access, "t" * 32, Settings(), ("127.0.0.1", 1))

    async def answer(request: web.Request) -> web.Response:
        try:
            return web.Response(text=guard.identify(request).address)
        except Refused:
            return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, str]:
    async with http.get(url, headers=headers) as response:
        return response.status, await response.text()


async def test_each_connection_is_looked_up_once() -> None:
    access = Authenticator()
    async with guarded(access) as url:
        peers = []
        for _ in range(2):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
                peers += [(await get(http, url))[1] for _ in range(3)]
    assert access.calls == [(peers[0], False), (peers[3], False)]
    assert peers == [peers[0]] * 3 + [peers[3]] * 3
    assert peers[0] != peers[3]


async def test_a_refusal_is_not_cached_and_a_token_is_always_checked() -> None:
    access = Authenticator()
    access.closed = True
    connector = aiohttp.TCPConnector(limit=1)
    async with guarded(access) as url, aiohttp.ClientSession(connector=connector) as http:
        assert (await get(http, url))[0] == 401
        access.closed = False
        assert (await get(http, url))[0] == 200
        access.closed = True
        assert (await get(http, url))[0] == 200, "authenticated before"
        assert (await get(http, url, Authorization="Bearer wrong"))[0] == 401
        assert (await get(http, url, **{"X-Forwarded-For": "10.0.0.1"}))[0] == 401, "it came through a proxy"
    assert [with_token for _, with_token in access.calls] == [False, False, True]
