"""The TypeScript client in Node, over gRPC and over gRPC-Web, and in Chromium."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.chromium import Page, chromium, quoted
from support.service import ServiceProcess
from support.web_client import build

from interop.driver import Driver, ProcessDriver


def node(service: ServiceProcess, _: pytest.TempPathFactory) -> Driver:
    """Speak gRPC from Node, with the service that endpoint.json names."""
    return ProcessDriver(["node", build() / "lines.js"], {"EDBJOBS_RUNTIME_DIR": str(service.runtime_dir)})


def node_web(service: ServiceProcess, _: pytest.TempPathFactory) -> Driver:
    """Speak gRPC-Web from Node."""
    return ProcessDriver(["node", build() / "lines.js"], {"EDBJOBS_TEST_URL": _url(service)})


def browser(service: ServiceProcess, factory: pytest.TempPathFactory) -> Driver:
    """Speak gRPC-Web from a page of the service."""
    return BrowserDriver(_url(service), (build() / "browser.js").read_text(), factory.mktemp("profile"))


def _url(service: ServiceProcess) -> str:
    """Return the URL of the HTTP endpoint, which stays the same when the service is restarted."""
    url = str(service.endpoint["http"])
    service.settings["http"] = urlsplit(url).netloc
    return url


class BrowserDriver(Driver):
    """The client in a page."""

    def __init__(self, url: str, script: str, profile: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._exit = AsyncExitStack()
        self._page = self._loop.run_until_complete(self._open(url, script, profile))

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        self._run(f"edbjobsTest.call({{}}, {quoted(json.dumps(call))})")
        return self._next()

    def watch(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self._run(f"edbjobsTest.call({{}}, {quoted(json.dumps(call))})")
        while "event" in (line := self._next()):
            yield json.loads(line["event"])
        assert line["code"] == 0, line

    def close(self) -> None:
        self._loop.run_until_complete(self._exit.aclose())
        self._loop.close()

    async def _open(self, url: str, script: str, profile: Path) -> Page:
        page = await self._exit.enter_async_context(chromium(profile))
        await page.open(f"{url}/")
        await page.run(script)
        return page

    def _run(self, script: str) -> Any:
        return self._loop.run_until_complete(self._page.run(script))

    def _next(self) -> dict[str, Any]:
        return dict(json.loads(self._run("edbjobsTest.next()")))
