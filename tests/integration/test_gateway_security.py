"""Requests that HTTP refuses: of other accounts, foreign host names and origins, bodies that are not JSON."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from edbjobs_server.gateway.events import socketio as gateway_socketio
from edbjobs_server.gateway.events.socketio import SocketIo
from support.web import WebService, job_config, until

NOBODY = 65534

# Switches to the account, sends the requests, and prints the status of each answer.
FOREIGN = """
import http.client, json, os, sys
uid, port, requested = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
warm = http.client.HTTPConnection("127.0.0.1", port)  # imports what the other account may not read
warm.request("GET", "/healthz"); warm.getresponse().read(); warm.close()
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
found = []
for method, path, headers, body in requested:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    found.append([answer.status, answer.read().decode(errors="replace")[:500]])
    connection.close()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    folder = tmp_path_factory.mktemp("gateway")
    with WebService(folder, allowed_hosts=["jobs.example"], log_level="debug") as running:
        yield running


@pytest.fixture
async def http(service: WebService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def status(http: aiohttp.ClientSession, path: str = "/jobs", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.get(path, headers=named, allow_redirects=False) as response:
        return response.status


@pytest.mark.needs_root
async def test_another_account_of_this_host_needs_the_token(service: WebService, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to take on another account")
    body = json.dumps({"config": job_config(tmp_path, jobid="foreign")})
    as_json = {"Content-Type": "application/json"}
    bearer = {"Authorization": f"Bearer {service.token}"}
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    requested = [
        ("GET", "/jobs", {}, None),
        ("POST", "/jobs/submit", as_json, body),
        ("POST", "/jobs/submit", {**as_json, "Authorization": "Bearer " + "x" * 43}, body),
        ("PUT", "/pool/limits", as_json, '{"max_concurrent_jobs": 9}'),
        ("GET", "/", {}, None),
        ("GET", "/?token=wrong", {}, None),
        ("GET", "/metrics", {}, None),
        ("GET", "/ws/events", upgrade, None),
        ("GET", "/healthz", {}, None),
        ("GET", "/jobs", bearer, None),
    ]
    line = [sys.executable, "-c", FOREIGN, str(NOBODY), str(service.port), json.dumps(requested)]
    done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=60, check=True)
    answers = json.loads(done.stdout)
    assert [answer[0] for answer in answers] == [401] * 8 + [200, 200]
    assert json.loads(answers[0][1])["reason"] == "UNAUTHENTICATED"
    assert "foreign" not in answers[-1][1]


@pytest.mark.needs_root
async def test_another_account_gets_no_events_over_socket_io(service: WebService) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to take on another account")
    script = FOREIGN.partition("found = []")[0] + (
        """
import http.client
def ask(method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body=body, headers={"Content-Type": "text/plain"})
    return connection.getresponse().read().decode()
opened = json.loads(ask("GET", "/socket.io/?EIO=4&transport=polling")[1:])
place = "/socket.io/?EIO=4&transport=polling&sid=" + opened["sid"]
ask("POST", place, "40" + json.dumps(requested) if requested else "40")
print(ask("GET", place))
"""
    )

    async def connect(auth: dict[str, str]) -> str:
        line = [sys.executable, "-c", script, str(NOBODY), str(service.port), json.dumps(auth)]
        done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    refused = await connect({})
    assert refused.startswith("44")
    assert "UNAUTHENTICATED" in refused
    assert (await connect({"token": "x" * 43})).startswith("44")
    assert (await connect({"token": service.token})).startswith('40{"sid"')


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("localhost:9000", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("192.0.2.1:8080", 200),
        ("jobs.example", 200),
        ("attacker.example", 403),
        ("127.0.0.1.attacker.example", 403),
        ("localhost.attacker.example:8080", 403),
        ("attacker.example@127.0.0.1", 200),  # names 127.0.0.1, as URLs have it
        ("[", 403),
        ("", 403),
    ],
)
async def test_only_names_of_this_host_are_accepted(http: aiohttp.ClientSession, host: str, code: int) -> None:
    assert await status(http, Host=host) == code
    assert await status(http, "/healthz", Host=host) == code
    assert await status(http, "/socket.io/?EIO=4&transport=polling", Host=host) == code


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        ("http://localhost:8080", 200),
        ("https://localhost:8080", 200),
        ("http://localhost:8081", 403),
        ("http://localhost", 403),
        ("http://localhost:8080.attacker.example", 403),
        ("http://attacker.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_pages_of_other_origins_are_refused(http: aiohttp.ClientSession, origin: str, code: int) -> None:
    headers = {"Host": "localhost:8080", "Origin": origin}
    assert await status(http, **headers) == code
    assert await status(http, "/socket.io/?EIO=4&transport=polling", **headers) == code


async def test_without_an_origin_the_fetch_site_decides(http: aiohttp.ClientSession) -> None:
    assert await status(http, Sec_Fetch_Site="same-origin") == 200
    assert await status(http, Sec_Fetch_Site="cross-site") == 403
    assert await status(http, Sec_Fetch_Site="same-site") == 403
    assert await status(http, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200


async def test_a_body_that_a_form_could_send_is_refused(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    body = json.dumps({"config": job_config(tmp_path, jobid="formed")})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"):
        async with http.post("/jobs/submit", data=body, headers={"Content-Type": kind}) as response:
            assert (response.status, (await response.json())["reason"]) == (415, "NOT_JSON")
    assert await status(http, "/jobs/formed") == 404
    for path in ("/jobs/formed/cancel", "/api/cancel/formed", "/system/start_monitoring"):
        async with http.post(path, data="x=1", headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 415
    async with http.put("/pool/limits", data="{}", headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 415
    async with http.post("/jobs/formed/cancel") as response:
        assert response.status == 404  # no body, no type: read as it is


async def test_malformed_and_large_bodies_are_refused(http: aiohttp.ClientSession) -> None:
    as_json = {"Content-Type": "application/json"}
    async with http.post("/jobs/submit", data=io.BytesIO(b"[" * (5 * 1024 * 1024)), headers=as_json) as response:
        assert (response.status, (await response.json())["reason"]) == (413, "TOO_LARGE")
    for body in ("[" * 100_000, '{"config": ' * 50_000, "{", "[]", '"x"', '{"priority": NaN}', "\ufeff{}", "nul"):
        async with http.post("/jobs/submit", data=body.encode(), headers=as_json) as response:
            assert (response.status, (await response.json())["reason"]) == (400, "INVALID_REQUEST")


async def test_the_token_in_a_url_sets_a_session_cookie(service: WebService) -> None:
    proxied = {"X-Forwarded-For": "192.0.2.7"}  # so that the account alone is not accepted
    async with aiohttp.ClientSession(service.url, cookie_jar=aiohttp.DummyCookieJar()) as http:
        assert await status(http, "/", **proxied) == 401
        assert await status(http, "/jobs?token=" + service.token, **proxied) == 401
        async with http.get("/?token=" + service.token, headers=proxied, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")
            given = response.headers["Set-Cookie"]
        (cookie,) = SimpleCookie(given).values()
        assert "HttpOnly" in given
        assert "SameSite=Strict" in given
        assert service.token not in given
        good = {**proxied, "Cookie": f"{cookie.key}={cookie.value}"}
        assert await status(http, "/", **good) == 200
        assert await status(http, **good) == 200
        assert await status(http, **good, Origin="http://attacker.example") == 403
        expiry, _, check = cookie.value.partition(".")
        past, later = int(time.time()) - 9, int(expiry) + 1
        for value in (f"{later}.{check}", f"{expiry}.{check[:-1]}x", expiry, "", f"{past}.{check}"):
            assert await status(http, **proxied, Cookie=f"{cookie.key}={value}") == 401
        assert await status(http, **proxied, Authorization=f"Bearer {cookie.value}") == 401


async def test_a_wrong_token_is_always_refused(http: aiohttp.ClientSession, service: WebService) -> None:
    assert await status(http) == 200
    assert await status(http, Authorization="Bearer wrong") == 401
    assert await status(http, Authorization=f"Basic {service.token}") == 401
    assert await status(http, Authorization=f"Bearer {service.token}") == 200
    async with http.get("/jobs", headers={"Authorization": "Bearer wrong"}) as response:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"])
async def test_a_proxied_request_is_not_of_the_own_account(
    http: aiohttp.ClientSession, service: WebService, header: str
) -> None:
    forwarded = {header: "127.0.0.1"}
    assert await status(http, **forwarded) == 401
    assert await status(http, **forwarded, Authorization=f"Bearer {service.token}") == 200


async def test_answers_may_not_be_framed_read_or_cached_by_others(http: aiohttp.ClientSession) -> None:
    async with http.get("/jobs", headers={"Origin": "http://attacker.example"}) as response:
        assert not any(name.lower().startswith("access-control-") for name in response.headers)
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
    async with http.options("/jobs/submit", headers={"Origin": "http://attacker.example"}) as response:
        assert response.status == 403


async def test_the_log_has_no_token_and_names_the_caller_of_each_change(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await status(http, "/?token=" + service.token)
    async with http.post("/jobs/submit", json={"config": job_config(tmp_path, jobid="logged")}) as response:
        assert response.status == 200
    file = service.state_dir / "edbjobs.log"

    async def written() -> Any:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        submits = [line for line in lines if line.get("path") == "/jobs/submit" and line.get("status") == 200]
        return submits and any(line.get("path") == "/" for line in lines) and submits[0]

    submit = await until(written)
    assert service.token not in file.read_text()
    assert submit["peer"].startswith("ipv4:127.0.0.1:")
    assert submit["authentication"] == "loopback"
    async with http.get("/jobs/logged/events") as response:
        events = (await response.json())["events"]
    assert "loopback" in events[0]["data"]["principal"]


def test_off_loopback_the_url_with_the_token_is_printed_and_needed(tmp_path: Path) -> None:
    with WebService(tmp_path, http="0.0.0.0:0") as service:
        shown = next(line for line in service.output().splitlines() if "?token=" in line)
        assert shown.endswith(f":{service.port}/?token={service.token}")
        assert service.url == f"http://127.0.0.1:{service.port}"

        async def ask() -> list[int]:
            async with aiohttp.ClientSession(service.url) as http:
                bearer = {"Authorization": f"Bearer {service.token}"}
                named = {"Host": f"{socket.gethostname()}:{service.port}"}
                return [await status(http), await status(http, **bearer), await status(http, **bearer, **named)]

        assert asyncio.run(ask()) == [401, 200, 200]


def test_with_a_public_url_every_request_needs_the_token(tmp_path: Path) -> None:
    with WebService(tmp_path, public_url="https://jobs.example.com") as service:
        assert f"https://jobs.example.com/?token={service.token}" in service.output()

        async def ask() -> list[int]:
            async with aiohttp.ClientSession(service.url) as http:
                bearer = {"Authorization": f"Bearer {service.token}", "Host": "jobs.example.com"}
                page = {**bearer, "Origin": "https://jobs.example.com"}
                return [await status(http), await status(http, **bearer), await status(http, **page)]

        assert asyncio.run(ask()) == [401, 200, 200]


def test_a_port_in_use_is_reported_at_once_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = WebService(tmp_path, http=f"127.0.0.1:{taken.getsockname()[1]}")
        assert service.launch().wait(20) == 2
    (line,) = service.output().strip().splitlines()
    assert "--http" in line


@asynccontextmanager
async def socket_io_alone() -> AsyncIterator[tuple[SocketIo, str]]:
    """Run the Socket.IO endpoint without a manager or a guard: no connection authenticates."""
    nothing: Any = None
    server = SocketIo(nothing, nothing, nothing)

    @web.middleware
    async def note(request: web.Request, handler: Any) -> Any:
        server.note_upgrade(request)
        return await handler(request)

    app = web.Application(middlewares=[note])
    server.attach(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.start()
    try:
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/socket.io/?EIO=4&transport=polling"
    finally:
        await server.close()
        await runner.cleanup()


async def test_a_connection_that_does_not_authenticate_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_socketio, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(gateway_socketio, "_SWEEP_SECONDS", 0.05)
    async with socket_io_alone() as (server, url):
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            assert response.status == 200
        assert len(server.server.eio.sockets) == 1

        async def gone() -> bool:
            return not server.server.eio.sockets

        await until(gone, 10)


async def test_an_upgrade_of_an_unknown_connection_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault C2: each such request stayed in memory forever, from any sender."""
    monkeypatch.setattr(gateway_socketio, "_SWEEP_SECONDS", 0.05)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    async with socket_io_alone() as (server, url), aiohttp.ClientSession() as http:
        for number in range(3):
            async with http.get(f"{url}&sid=invented{number}", headers=upgrade) as response:
                assert response.status == 400
        assert not server._upgrades
        async with http.get(url) as response:
            sid = json.loads((await response.text())[1:])["sid"]
        async with http.get(f"{url}&sid={sid}", headers=upgrade):
            assert set(server._upgrades) == {sid}
        del server.server.eio.sockets[sid]

        async def gone() -> bool:
            return not server._upgrades

        await until(gone, 10)
