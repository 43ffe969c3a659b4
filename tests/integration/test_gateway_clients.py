"""The socket.io-client of npm, in Node and in headless Chromium."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.chromium import chromium, quoted
from support.web import WebService, job_config, until

CLIENT = Path(__file__).resolve().parents[1] / "socketio-js"
BUNDLE = CLIENT / "node_modules" / "socket.io-client" / "dist" / "socket.io.min.js"
DOCUMENTED = ["job_queued", "job_started", "job_completed"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    if not BUNDLE.exists():
        pytest.skip("socket.io-client is not installed: npm is missing")
    with WebService(tmp_path_factory.mktemp("gateway"), max_local_jobs=2) as running:
        yield running


@pytest.fixture
async def http(service: WebService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url) as session:
        yield session


async def submit(http: aiohttp.ClientSession, config: dict[str, Any]) -> None:
    async with http.post("/jobs/submit", json={"config": config}) as response:
        assert response.status == 200, await response.text()


@asynccontextmanager
async def node(*arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    program = shutil.which("node")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, str(CLIENT / "listen.mjs"), *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def receive(lines: asyncio.StreamReader, name: str, job_id: str | None = None) -> list[dict[str, Any]]:
    received: list[dict[str, Any]] = []
    while True:
        line = await asyncio.wait_for(lines.readline(), 30)
        assert line, received
        received.append(json.loads(line))
        if received[-1]["event"] == name and job_id in (None, received[-1]["data"].get("job_id")):
            return received


async def test_the_client_of_npm_receives_the_documented_events_in_node(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with node(service.url) as lines:
        (mark,) = [item["data"] for item in await receive(lines, "caught_up") if item["event"] == "caught_up"]
        await submit(http, job_config(tmp_path, jobid="node"))
        received = await receive(lines, "job_completed", "node")
    assert [item["event"] for item in received if item["event"] in DOCUMENTED] == DOCUMENTED
    assert received[-1]["data"]["return_code"] == 0
    auth = json.dumps({"store_id": mark["store_id"], "after_revision": mark["revision"]})
    async with node(service.url, auth) as lines:
        again = await receive(lines, "job_completed", "node")
    revisions = [item["data"]["revision"] for item in received if item["event"] in DOCUMENTED]
    assert [item["data"]["revision"] for item in again if item["event"] in DOCUMENTED] == revisions


async def test_the_client_of_npm_gets_the_reason_of_a_refusal(service: WebService) -> None:
    async with node(service.url, json.dumps({"store_id": "x", "after_revision": 1})) as lines:
        (error,) = await receive(lines, "connect_error")
    assert error["data"]["data"]["reason"] == "OTHER_STORE"


@pytest.mark.system
async def test_a_page_of_the_service_receives_the_documented_events(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with chromium(tmp_path / "browser") as page:
        await page.open(service.url + "/")
        await page.run(BUNDLE.read_text())
        await page.run("received = []; socket = io(); socket.onAny((event, data) => received.push({event, data})); 1")

        async def names() -> list[str]:
            return [item["event"] for item in await page.run("received")]

        async def caught_up() -> bool:
            return "caught_up" in await names()

        await until(caught_up)
        await submit(http, job_config(tmp_path, jobid="browser"))

        async def completed() -> bool:
            return "job_completed" in await names()

        await until(completed)
        assert [name for name in await names() if name in DOCUMENTED] == DOCUMENTED
        assert await page.run("socket.io.engine.transport.name") == "websocket"


async def other_origin() -> tuple[web.AppRunner, int]:
    async def show(request: web.Request) -> web.Response:
        return web.Response(text="<p>another page", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, int(runner.addresses[0][1])


ATTACK = """(async (target, config) => {
  const body = JSON.stringify({config});
  const tried = {};
  const post = (name, options) => fetch(target + "/jobs/submit", {method: "POST", body, ...options})
    .then(async answer => { tried[name] = answer.type + " " + answer.status; }, () => { tried[name] = "failed"; });
  await post("plain", {mode: "no-cors", headers: {"Content-Type": "text/plain"}});
  await post("json", {headers: {"Content-Type": "application/json"}});
  await fetch(target + "/jobs").then(() => { tried.read = "read"; }, () => { tried.read = "failed"; });
  const blind = fetch(target + "/jobs", {mode: "no-cors"});
  await blind.then(answer => { tried.blind = answer.type; }, () => { tried.blind = "failed"; });
  tried.websocket = await new Promise(done => {
    const socket = new WebSocket(target.replace("http", "ws") + "/ws/events");
    socket.onopen = () => done("open"); socket.onerror = () => done("failed");
  });
  tried.socketio = await new Promise(done => {
    const socket = io(target, {reconnection: false});
    socket.on("connect", () => done("open")); socket.on("connect_error", () => done("failed"));
  });
  return tried;
})"""


@pytest.mark.system
async def test_a_page_of_another_origin_gets_nothing_and_changes_nothing(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    runner, port = await other_origin()
    config = job_config(tmp_path, jobid="attacked")
    try:
        async with chromium(tmp_path / "browser") as page:
            await page.open(f"http://127.0.0.1:{port}/")
            await page.run(BUNDLE.read_text())
            tried = await page.run(f"{ATTACK}({quoted(service.url)}, {quoted(config)})")
    finally:
        await runner.cleanup()
    # A no-cors answer is opaque to the page; the service is asked whether anything was done.
    assert tried.pop("plain") in ("opaque 0", "failed")
    assert set(tried.values()) == {"failed"}
    async with http.get("/jobs/attacked") as response:
        assert response.status == 404


@pytest.mark.system
async def test_a_page_with_a_rebound_name_gets_nothing(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """DNS rebinding: the page's host name resolves to this host now, so the browser sees one origin."""
    config = job_config(tmp_path, jobid="rebound")
    name = f"http://attacker.example:{service.port}"
    async with chromium(tmp_path / "browser", "--host-resolver-rules=MAP attacker.example 127.0.0.1") as page:
        await page.open(name + "/")
        script = """(async (config) => {
          const answer = await fetch("/jobs/submit", {method: "POST", body: JSON.stringify({config}),
            headers: {"Content-Type": "application/json"}});
          return [answer.status, (await answer.json()).reason, (await fetch("/jobs")).status];
        })"""
        assert await page.run(f"{script}({quoted(config)})") == [403, "HOST_NOT_ALLOWED", 403]
    async with http.get("/jobs/rebound") as response:
        assert response.status == 404
