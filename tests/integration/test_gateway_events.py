"""The documented Socket.IO events, and the same over a plain WebSocket: in order, once, from any revision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio
from support.web import WebService, job_config, until

NAMES = ("job_queued", "job_started", "job_completed", "job_cancelled", "job_progress", "limits_updated", "caught_up")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("gateway"), max_local_jobs=2) as running:
        yield running


@pytest.fixture
async def http(service: WebService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url) as session:
        yield session


class Listener:
    """The python-socketio client; records the events."""

    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.refused: Any = None
        self.client.on("*", self._hear)
        self.client.on("connect_error", self._refuse)

    async def _hear(self, name: str, data: dict[str, Any]) -> None:
        self.received.append((name, data))

    async def _refuse(self, data: Any) -> None:
        self.refused = data

    def of(self, job_id: str) -> list[tuple[str, dict[str, Any]]]:
        return [(name, data) for name, data in self.received if data.get("job_id") == job_id]

    async def receive(self, name: str, job_id: str | None = None) -> dict[str, Any]:
        async def look() -> Any:
            found = self.received if job_id is None else self.of(job_id)
            return next((data for kind, data in found if kind == name), None)

        return dict(await until(look))


@asynccontextmanager
async def listening(url: str, **options: Any) -> AsyncIterator[Listener]:
    listener = Listener()
    await listener.client.connect(url, **options)
    try:
        yield listener
    finally:
        await listener.client.disconnect()


async def submit(http: aiohttp.ClientSession, config: dict[str, Any], priority: int = 0) -> dict[str, Any]:
    async with http.post("/jobs/submit", json={"config": config, "priority": priority}) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]])
async def test_a_stock_client_receives_the_documented_events(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path, transports: list[str]
) -> None:
    name = f"received-{len(transports)}-{transports[0]}"
    async with http.get("/resources") as response:
        assert response.status == 200
    async with listening(service.url, transports=transports) as listener:
        mark = await listener.receive("caught_up")
        answer = await submit(http, job_config(tmp_path, jobid=name), priority=2)
        done = await listener.receive("job_completed", name)
    events = {kind: data for kind, data in listener.of(name) if kind != "job_progress"}
    assert list(events) == ["job_queued", "job_starting", "job_started", "job_completed"]
    assert events["job_queued"]["priority"] == 2
    assert events["job_queued"]["queue_position"] in (0, 1)
    assert events["job_queued"]["revision"] == answer["revision"] > mark["revision"]
    assert events["job_started"]["start_time"] < done["end_time"]
    assert events["job_started"]["resources"]["memory_total_gb"] > 0
    assert (done["status"], done["return_code"], done["attempt"]) == ("completed", 0, 1)
    assert {data["store_id"] for data in events.values()} == {mark["store_id"]}
    revisions = [data["revision"] for data in events.values()]
    assert revisions == sorted(set(revisions))


async def test_a_cancelled_job_stays_cancelled_and_is_announced(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with listening(service.url, transports=["websocket"]) as listener:
        await submit(http, job_config(tmp_path, seconds=60, jobid="ended"))
        await listener.receive("job_started", "ended")
        async with http.post("/jobs/ended/cancel") as response:
            assert (await response.json())["success"] is True
        cancelled = await listener.receive("job_cancelled", "ended")
        completed = await listener.receive("job_completed", "ended")
    assert cancelled == completed
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "cancelled")
    async with http.get("/jobs/ended") as response:
        assert (await response.json())["status"] == "cancelled"


async def test_limits_are_announced_with_both_values(service: WebService, http: aiohttp.ClientSession) -> None:
    async with listening(service.url, transports=["websocket"]) as listener:
        await listener.receive("caught_up")
        for count in (3, 2):
            async with http.put("/pool/limits", json={"max_concurrent_jobs": count}) as response:
                assert response.status == 200
        event = await listener.receive("limits_updated")
    assert (event["old_limits"]["max_concurrent_jobs"], event["new_limits"]["max_concurrent_jobs"]) == (2, 3)


async def test_a_running_solve_reports_its_progress(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with listening(service.url, transports=["websocket"]) as listener:
        await submit(http, job_config(tmp_path, seconds=6, jobid="slow"))
        event = await listener.receive("job_progress", "slow")
        async with http.post("/jobs/slow/cancel") as response:
            assert response.status == 200
    assert event["progress"]["phase"] in ("meshing", "adaptive", "sweep")
    assert event["attempt"] == 1
    assert event["revision"] > 0


async def test_a_client_resumes_after_its_last_revision(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with listening(service.url, transports=["websocket"]) as listener:
        mark = await listener.receive("caught_up")
    await submit(http, job_config(tmp_path, jobid="missed"))

    async def is_ended() -> bool:
        async with http.get("/jobs/missed") as response:
            return (await response.json())["end_time"] is not None

    await until(is_ended)
    auth = {"store_id": mark["store_id"], "after_revision": mark["revision"]}
    async with listening(service.url, auth=auth, transports=["websocket"]) as listener:
        await listener.receive("job_completed", "missed")
        assert next(name for name, _ in listener.of("missed")) == "job_queued"
        assert min(data["revision"] for name, data in listener.received if name != "caught_up") == mark["revision"] + 1


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        ({"store_id": "another", "after_revision": 1}, "OTHER_STORE"),
        ({"after_revision": 10**9}, "REVISION_IN_FUTURE"),
        ({"after_revision": "x"}, "INVALID_REQUEST"),
        ({"token": "wrong"}, "UNAUTHENTICATED"),
    ],
)
async def test_an_unavailable_revision_is_refused_with_a_reason(
    service: WebService, auth: dict[str, Any], reason: str
) -> None:
    listener = Listener()
    with pytest.raises(socketio.exceptions.ConnectionError):
        await listener.client.connect(service.url, auth=auth, transports=["websocket"])
    assert listener.refused["data"]["reason"] == reason


async def test_the_plain_websocket_sends_the_same(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    received: list[dict[str, Any]] = []
    async with http.ws_connect("/ws/events") as socket:
        first = await socket.receive_json()
        assert first["event"] == "caught_up"
        await submit(http, job_config(tmp_path, jobid="plain"))
        while not received or received[-1]["event"] != "job_completed":
            received.append(await asyncio.wait_for(socket.receive_json(), 20))
    names = [item["event"] for item in received if item["data"].get("job_id") == "plain"]
    assert [name for name in names if name != "job_progress"] == [
        "job_queued",
        "job_starting",
        "job_started",
        "job_completed",
    ]
    path = f"/ws/events?after_revision={first['data']['revision']}&store_id={first['data']['store_id']}"
    async with http.ws_connect(path) as socket:
        again = await socket.receive_json()
    assert again == received[0]
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await http.ws_connect("/ws/events?store_id=other&after_revision=1")
    assert caught.value.status == 409


@pytest.mark.parametrize("path", ["/ws/events", "/socket.io/?EIO=4&transport=websocket"])
async def test_events_are_not_compressed_for_each_client(http: aiohttp.ClientSession, path: str) -> None:
    async with http.ws_connect(path, compress=15) as socket:
        assert socket.compress == 0


async def test_a_client_that_does_not_read_delays_no_other(
    service: WebService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """One client stops to read; the others continue, and the queue of the service for it stays short."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    host = f"127.0.0.1:{service.port}"
    writer.write(
        f"GET /ws/events HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b"101" in await reader.readline()
    async with listening(service.url, transports=["websocket"]) as listener:
        await listener.receive("caught_up")
        for count in range(60):
            async with http.put("/pool/limits", json={"max_concurrent_jobs": 2 + count % 2}) as response:
                assert response.status == 200

        async def all_received() -> bool:
            return sum(name == "limits_updated" for name, _ in listener.received) >= 59

        await until(all_received)
    writer.close()
