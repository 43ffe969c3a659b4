"""The OpenAPI document, the metrics, the page, and the parsed log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from edbjobs_server.gateway.rest.openapi import document
from edbjobs_server.gateway.rest.parsed_log import LogParser
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families
from support.web import WebService, job_config, until

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "samples" / "hfss-3dlayout-2025r2-truncated.log"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("gateway"), max_local_jobs=2) as running:
        yield running


@pytest.fixture
async def http(service: WebService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url) as session:
        yield session


async def solve(http: aiohttp.ClientSession, config: dict[str, Any]) -> None:
    async with http.post("/jobs/submit", json={"config": config}) as response:
        name = (await response.json())["uid"]

    async def is_ended() -> bool:
        async with http.get(f"/jobs/{name}") as response:
            return (await response.json())["end_time"] is not None

    await until(is_ended)


def test_the_openapi_document_is_valid() -> None:
    found = document()
    validate(found)
    for schema in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids = [item["operationId"] for path in found["paths"].values() for item in path.values()]
    assert len(ids) == len(set(ids))


async def test_the_service_serves_its_document(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as response:
        assert await response.json() == document()


async def test_metrics_count_jobs_and_errors(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    await solve(http, job_config(tmp_path))
    async with http.get("/jobs/nothing") as response:
        assert response.status == 404
    async with http.get("/metrics") as response:
        assert response.content_type == "text/plain"
        families = {family.name: family for family in text_string_to_metric_families(await response.text())}

    def value(family: str, sample: str, **labels: str) -> float:
        found = families[family].samples
        return next(item.value for item in found if item.name == sample and labels.items() <= item.labels.items())

    assert value("edbjobs_jobs", "edbjobs_jobs", state="completed") >= 1
    assert value("edbjobs_submits", "edbjobs_submits_total") >= 1
    assert value("edbjobs_events", "edbjobs_events_total", event="job_completed") >= 1
    assert value("edbjobs_http_errors", "edbjobs_http_errors_total", reason="JOB_NOT_FOUND") >= 1
    assert value("edbjobs_queue_wait_seconds", "edbjobs_queue_wait_seconds_count") >= 1
    assert 0.1 < value("edbjobs_run_seconds", "edbjobs_run_seconds_sum", state="completed") < 60
    assert value("edbjobs_store_commit_seconds", "edbjobs_store_commit_seconds_count") >= 3
    assert value("edbjobs_loop_stall_seconds", "edbjobs_loop_stall_seconds") < 5
    assert value("edbjobs_store_writable", "edbjobs_store_writable") == 1


async def test_the_page_shows_jobs_and_escapes_what_users_wrote(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    await solve(http, job_config(tmp_path, jobid="shown", user="<script>alert(1)</script>"))
    async with http.get("/") as response:
        text = await response.text()
        assert response.content_type == "text/html"
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert "shown" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


async def test_the_parsed_log_has_meshing_passes_and_sweep(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    config = job_config(tmp_path, jobid="parsed")
    await solve(http, config)
    async with http.get("/api/jobs/parsed/log") as response:
        log = await response.json()
    schemas = document()["components"]["schemas"]
    resolved = {**schemas["ParsedLog"], "components": {"schemas": schemas}}
    Draft202012Validator(resolved).validate(log)
    assert log["project"]["name"]
    assert log["project"]["file"] == config["project_path"]
    assert log["log_parser"]["is_converged"] is True
    assert log["log_parser"]["is_completed"] is True
    numbers = [item["pass_nr"] for item in log["adaptive"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert log["adaptive"][-1]["converged"] is True
    assert len(log["sweep"]["solved"]) == len(set(log["sweep"]["solved"])) > 1


def test_a_real_log_is_parsed() -> None:
    """Faults 40: gigabytes, each frequency once, elapsed times, the initial mesh."""
    if not SAMPLE.exists():
        pytest.skip("the sample logs are not beside this checkout")
    parser = LogParser()
    for piece in SAMPLE.read_bytes().splitlines(keepends=True):
        parser.feed(piece)
    log = parser.result(1).model_dump()
    assert log["init_mesh"] == {"tetrahedra": 28358, "memory_mb": 249.0, "real_time_sec": 7, "cpu_time_sec": 4}
    last = log["adaptive"][-1]
    assert (last["pass_nr"], last["memory_mb"], last["elapsed_sec"], last["converged"]) == (8, 1177.6, 19, True)
    assert last["freq_hz"] == 4e9
    assert log["adaptive"][0]["delta_s"] is None
    assert log["sweep"]["solved"] == [3e9, 1e5, 5e9, 1e7]
    assert log["sweep"]["frequencies"] == 201
    assert log["log_parser"] == {"is_converged": True, "is_completed": False, "errors": []}


@pytest.mark.parametrize("cut", [0, 1, 50, 997, 3000, 9000])
def test_an_incomplete_log_is_parsed_as_far_as_it_goes(cut: int) -> None:
    if not SAMPLE.exists():
        pytest.skip("the sample logs are not beside this checkout")
    parser = LogParser()
    parser.feed(SAMPLE.read_bytes()[:cut])
    assert set(parser.result(1).model_dump()) == {"project", "init_mesh", "adaptive", "sweep", "log_parser", "attempt"}


def test_broadband_passes_are_parsed() -> None:
    """Fault 40: a pass at several frequencies has no single one."""
    parser = LogParser()
    parser.feed(
        b"[info] Project:p, S : [PROFILE] Adaptive Pass 1 : Frequencies: 1GHz, 2GHz (1:00:00 PM  Oct 12, 2025)\n"
    )
    parser.feed(b"[info] Project:p, S : [CONVERGE] Pass Number:  1;  Solved Elements:  7;  Max Mag. Delta S:  N/A;\n")
    (only,) = parser.result(1).model_dump()["adaptive"]
    assert (only["pass_nr"], only["tetrahedra"], only["delta_s"]) == (1, 7, None)
