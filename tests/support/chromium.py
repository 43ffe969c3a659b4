"""A headless Chromium of one's own, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

DEADLINE = 60.0
Socket = Any  # aiohttp.ClientWebSocketResponse, generic for type checkers only
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, where the sandbox cannot
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-port=0",
)


class Page:
    """One page; scripts run in it as its own would."""

    def __init__(self, socket: Socket, session: str) -> None:
        self._socket = socket
        self._session = session
        self._numbers = itertools.count(1)

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await _call(self._socket, next(self._numbers), method, parameters, self._session)

    async def open(self, url: str) -> None:
        """Show a page, and wait until it is there."""
        await self._call("Page.enable")
        found = await self._call("Page.navigate", url=url)
        assert not found.get("errorText"), found
        end = asyncio.get_running_loop().time() + DEADLINE
        while await self.run("document.readyState + location.href") != "complete" + url:
            assert asyncio.get_running_loop().time() < end, await self.run("location.href")
            await asyncio.sleep(0.05)

    async def run(self, script: str) -> Any:
        """Run a script; gives the value of its last expression, awaited."""
        found = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")


async def _call(
    socket: Socket, number: int, method: str, parameters: dict[str, Any], session: str = ""
) -> dict[str, Any]:
    message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
    await socket.send_json(message)
    while True:
        answer = await asyncio.wait_for(socket.receive_json(), DEADLINE)
        if answer.get("id") == number and answer.get("sessionId", "") == session:
            assert "error" not in answer, answer
            return dict(answer["result"])


@asynccontextmanager
async def chromium(folder: Path, *flags: str) -> AsyncIterator[Page]:
    """Run a browser with one empty page."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed")
    process = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS,
        *flags,
        f"--user-data-dir={folder}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HOME": str(folder)},
        start_new_session=True,
    )
    try:
        url = await asyncio.wait_for(_devtools(process), DEADLINE)
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            target = await _call(socket, 1, "Target.createTarget", {"url": "about:blank"})
            attached = await _call(
                socket, 2, "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}
            )
            yield Page(socket, attached["sessionId"])
            await socket.send_json({"id": 3, "method": "Browser.close"})
            await asyncio.wait_for(process.wait(), DEADLINE)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
            await process.wait()


async def _devtools(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode(errors="replace"):
        if line.startswith("DevTools listening on "):
            return line.removeprefix("DevTools listening on ").strip()
    raise AssertionError("chromium ended without saying where it listens")


def quoted(value: Any) -> str:
    """Write a value into a script."""
    return json.dumps(value)
