"""Behind nginx with TLS, set up as in docs/compatibility.md: pages, events, and authentication."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio
import trustme
from support.web import WebService, job_config, until

pytestmark = pytest.mark.system

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        {location}
    }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def documented_location(port: int) -> str:
    """Return the settings in the document."""
    text = DOCUMENT.read_text()
    start = text.index("location / {")
    return text[start : text.index("\n      }", start) + 8].replace("127.0.0.1:8080", f"127.0.0.1:{port}")


@contextmanager
def nginx(folder: Path, port: int, service_port: int) -> Iterator[None]:
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    user = "user nobody nogroup;" if os.geteuid() == 0 else ""
    location = documented_location(service_port)
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, user=user, location=location))
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


class Proxied:
    """A service behind nginx."""

    def __init__(self, service: WebService, url: str, trust: ssl.SSLContext) -> None:
        self.service = service
        self.url = url
        self.trust = trust

    def session(self, **headers: str) -> aiohttp.ClientSession:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connector = aiohttp.TCPConnector(ssl=self.trust)
        return aiohttp.ClientSession(self.url, connector=connector, headers=named)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    folder = tmp_path_factory.mktemp("nginx")
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(str(folder / "server.pem"), append=True)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    port = free_port()
    url = f"https://localhost:{port}"
    settings: dict[str, Any] = {"public_url": url, "trusted_proxies": ["127.0.0.1"]}
    with WebService(tmp_path_factory.mktemp("gateway"), **settings) as service, nginx(folder, port, service.port):
        yield Proxied(service, url, trust)


@pytest.fixture
async def http(proxied: Proxied) -> AsyncIterator[aiohttp.ClientSession]:
    async with proxied.session(Authorization=f"Bearer {proxied.service.token}") as session:
        yield session


async def test_every_request_needs_the_token(proxied: Proxied) -> None:
    async with proxied.session() as http:
        for path in ("/", "/jobs", "/ws/events", "/metrics"):
            async with http.get(path) as response:
                assert response.status == 401
        async with http.get("/healthz") as response:
            assert response.status == 200


async def test_a_browser_gets_a_cookie_for_tls_only(proxied: Proxied) -> None:
    async with proxied.session() as http:
        async with http.get(f"/?token={proxied.service.token}", allow_redirects=False) as response:
            assert response.status == 303
            assert "Secure" in response.headers["Set-Cookie"]
        async with http.get("/jobs", headers={"Origin": proxied.url}) as response:
            assert response.status == 200
        async with http.get("/jobs", headers={"Origin": "https://attacker.example"}) as response:
            assert response.status == 403


async def test_a_job_and_its_events_through_the_proxy(
    proxied: Proxied, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    heard: list[str] = []
    async with proxied.session() as session:
        client = socketio.AsyncClient(http_session=session)
        client.on("*", lambda name, data: heard.append(name))
        await client.connect(proxied.url, auth={"token": proxied.service.token}, headers={"Origin": proxied.url})
        async with http.ws_connect("/ws/events") as plain:
            assert (await plain.receive_json())["event"] == "caught_up"
            async with http.post("/jobs/submit", json={"config": job_config(tmp_path, jobid="proxied")}) as response:
                assert response.status == 200

            async def completed() -> bool:
                return "job_completed" in heard

            await until(completed)
            assert (await asyncio.wait_for(plain.receive_json(), 10))["event"] == "job_queued"
        assert client.transport() == "websocket"
        await client.disconnect()


async def test_the_address_behind_a_trusted_proxy_is_logged(
    proxied: Proxied, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    config = job_config(tmp_path, jobid="addressed")
    headers = {"X-Forwarded-For": "203.0.113.9"}
    async with http.post("/jobs/submit", json={"config": config}, headers=headers) as response:
        assert response.status == 200
    async with http.get("/jobs/addressed/events") as response:
        first = json.loads(await response.text())["events"][0]["data"]
    assert "203.0.113.9" in first["principal"]
    assert "token" in first["principal"]
