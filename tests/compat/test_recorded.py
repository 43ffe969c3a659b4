"""What the old service answered, beside what ours answers: the same keys, the same types, or a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio
from compat.requests_table import REQUESTS, Request, shape
from support.web import WebService, job_config, until

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "compatibility.md").read_text()

# Deliberate differences: the status here. Each stands with its reason in docs/compatibility.md, by this name.
DIFFERENT = {
    "cancel an ended job": 409,
    "cancel no job on the other route": 404,
    "submit without a user": 200,
}
# What belongs to a state that a job of ours is not in at that moment is null here.
MAY_BE_NULL = {"return_code", "start_time", "end_time", "scheduler_job_id"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("gateway"), max_local_jobs=1) as running:
        yield running


def compared(old: Any, new: Any, where: str = "") -> list[str]:
    """Return the keys of the old answer that are missing in ours or have another type."""
    if isinstance(old, dict):
        if not isinstance(new, dict):
            return [f"{where}: an object became {new}"]
        found = []
        for key, value in old.items():
            if key not in new:
                found.append(f"{where}.{key} is missing")
            else:
                found += compared(value, new[key], f"{where}.{key}")
        return found
    if isinstance(old, list):
        if not isinstance(new, list):
            return [f"{where}: a list became {new}"]
        return compared(old[0], new[0], f"{where}[]") if old and new else []
    name = where.rpartition(".")[2]
    same = old is None or old == new or (new is None and name in MAY_BE_NULL)
    return [] if same else [f"{where}: {old} became {new}"]


def filled(body: Any, values: dict[str, str]) -> Any:
    text = json.dumps(body)
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return json.loads(text)


async def put(http: aiohttp.ClientSession, request: Request, values: dict[str, str]) -> tuple[int, Any]:
    if request.wait:
        name, _, status = request.wait.partition(":")
        states = {status} if status else {"completed", "failed", "cancelled"}

        async def reached() -> bool:
            async with http.get("/api/jobs") as response:
                jobs = [job for job in await response.json() if job["id"] == name]
            return bool(jobs) and jobs[-1]["status"] in states

        await until(reached)
    body = {} if request.body is None else {"json": filled(request.body, values)}
    async with http.request(request.method, request.path, **body) as response:
        text = await response.text()
        try:
            return response.status, shape(json.loads(text))
        except ValueError:
            return response.status, "text" if text else ""


async def test_each_old_request_gets_an_answer_that_its_client_can_read(service: WebService, tmp_path: Path) -> None:
    values = {"solver": "/opt/v252/AnsysEM/ansysedt"}
    for number in (1, 2, 3):
        values[f"project{number}"] = job_config(tmp_path / str(number))["project_path"]
    events: dict[str, Any] = {}
    client = socketio.AsyncClient()
    client.on("*", lambda name, data: events.setdefault(name, shape(data)))
    await client.connect(service.url)
    wrong: list[str] = []
    async with aiohttp.ClientSession(service.url) as http:
        async with http.get("/resources") as response:
            assert response.status == 200
        for request in REQUESTS:
            old = RECORDED["answers"][request.name]
            status, answer = await put(http, request, values)
            expected = DIFFERENT.get(request.name, old["status"])
            if status != expected:
                wrong.append(f"{request.name}: {old['status']} became {status}: {answer}")
            elif old["answer"] != "text" and status == old["status"]:
                wrong += compared(old["answer"], answer, request.name)
    await client.disconnect()
    for name, old in RECORDED["events"].items():
        wrong += compared(old, events.get(name), f"event {name}")
    assert wrong == []


@pytest.mark.parametrize("name", DIFFERENT)
def test_each_deliberate_difference_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENT


def test_the_recording_covers_the_table() -> None:
    assert {request.name for request in REQUESTS} == RECORDED["answers"].keys()
