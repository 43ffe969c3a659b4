"""The documented routes, events, metrics and page of a service that has a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import Phase
from edbjobs_server.gateway.rest.openapi import document
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from support.chromium import chromium
from support.memory_cluster import DEADLINE, ClusterService
from support.web import job_config, until

DOCUMENTED = ("name", "nodes_total", "nodes_used", "cores_total", "cores_used", "memory_total_gb", "memory_used_gb")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ClusterService]:
    with ClusterService(tmp_path, max_local_jobs=2) as running:
        yield running


@pytest.fixture
async def http(service: ClusterService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url) as session:
        yield session


async def get(http: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with http.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def submit(http: aiohttp.ClientSession, folder: Path, **config: Any) -> dict[str, Any]:
    async with http.post("/jobs/submit", json={"config": job_config(folder, **config)}) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def reach(http: aiohttp.ClientSession, name: str, *states: str) -> dict[str, Any]:
    async def look() -> Any:
        job = await get(http, f"/jobs/{name}")
        return job if job["status"] in states else None

    return dict(await until(look))


def check(schema: str, value: Any) -> None:
    schemas = document()["components"]["schemas"]
    Draft202012Validator({**schemas[schema], "components": {"schemas": schemas}}).validate(value)


async def test_partitions_have_the_documented_keys_and_units(http: aiohttp.ClientSession) -> None:
    found = await get(http, "/scheduler/partitions")
    check("Partitions", found)
    assert found == await get(http, "/api/cluster_partitions")
    assert found == await get(http, "/scheduler/partitions?scheduler=slurm")
    normal, closed = found
    assert [normal[key] for key in DOCUMENTED] == ["normal", 4, 1, 32, 8, 256.0, 64.0]
    assert (normal["nodes_free"], normal["cores_free"], normal["default"], normal["state"]) == (3, 24, True, "up")
    assert (normal["time_limit_seconds"], closed["time_limit_seconds"]) == (36 * 3600, None)
    assert {item["scheduler"] for item in found} == {"slurm"}


async def test_an_unknown_cluster_is_reported(http: aiohttp.ClientSession) -> None:
    assert (await get(http, "/scheduler/partitions?scheduler=lsf", 400))["reason"] == "NO_SCHEDULER"
    assert (await get(http, "/api/cluster_partitions?scheduler=lsf", 409))["reason"] == "NO_SCHEDULER"


async def test_an_unreachable_cluster_is_503_and_the_status_shows_since_when(
    service: ClusterService, http: aiohttp.ClientSession
) -> None:
    assert await get(http, "/api/scheduler_type") == {"scheduler_type": "slurm"}
    service.scheduler.silent = "slurm_load_jobs error: Unable to contact slurm controller"
    answer = await get(http, "/scheduler/partitions", 503)
    assert answer["reason"] == "SCHEDULER_UNREACHABLE"
    assert "Unable to contact slurm controller" in answer["error"]

    await until(lambda: unreachable(http))
    status = await get(http, "/system/status")
    check("Status", status)
    assert status["mode"] == "slurm"
    assert status["scheduler_detection"]["active_scheduler"] == "SLURM"
    (slurm,) = [item for item in status["schedulers"] if item["name"] == "slurm"]
    assert (slurm["answering"], slurm["error"]) == (False, service.scheduler.silent)
    assert slurm["since_utc"].endswith("+00:00")
    # Jobs for the cluster are not run locally in the meantime.
    assert await get(http, "/api/scheduler_type") == {"scheduler_type": "slurm"}


async def test_a_job_without_a_scheduler_runs_on_the_cluster_with_the_documented_events(
    service: ClusterService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await get(http, "/resources")  # there is a sample of the host, which events contain
    async with http.ws_connect("/ws/events?after_revision=0") as socket:
        answer = await submit(http, tmp_path / "p", jobid="c1", scheduler_type="none")
        assert answer["status"] == "queued"
        await reach(http, "c1", "scheduled")
        await until(lambda: waits_for(http, "c1", "slurm job 1: Resources"))
        job = await get(http, "/jobs/c1")
        assert (job["executor"], job["scheduler_job_id"], job["end_time"]) == ("slurm", "1", None)
        assert job["waiting_reason"] == "scheduler_pending"
        check("Job", job)
        service.job_starts(1, "1", "n1", "n2")
        service.scheduler.set("1", Phase.RUNNING, "RUNNING", nodes=("n1", "n2"))
        job = await reach(http, "c1", "running")
        assert job["attempts"][-1]["nodes"] == ["n1", "n2"]
        async with http.post("/jobs/c1/cancel") as response:
            assert (await response.json())["success"] is True
        await until(lambda: cancelled(service))
        service.scheduler.set("1", Phase.ENDED, "CANCELLED", ending=Ending.CANCELLED_EXTERNALLY)
        events = await asyncio.wait_for(events_until(socket, "job_completed"), DEADLINE)
    scheduled, started, ended = (events[name] for name in ("job_scheduled", "job_started", "job_completed"))
    assert (scheduled["job_id"], scheduled["scheduler_job_id"], scheduled["status"]) == ("c1", "1", "scheduled")
    assert (started["scheduler_job_id"], started["nodes"]) == ("1", ["n1", "n2"])
    assert started["start_time"]
    assert {"cpu_percent", "memory_total_gb"} <= started["resources"].keys()
    assert (ended["status"], ended["scheduler_job_id"]) == ("cancelled", "1")
    names = list(events)
    assert names.index("job_scheduled") < names.index("job_started") < names.index("job_completed")


async def events_until(socket: Any, last: str) -> dict[str, Any]:
    events: dict[str, Any] = {}
    while last not in events:
        event = await socket.receive_json()
        events[event["event"]] = event["data"]
    return events


async def waits_for(http: aiohttp.ClientSession, name: str, detail: str) -> bool:
    return bool((await get(http, f"/jobs/{name}"))["waiting_detail"] == detail)


async def cancelled(service: ClusterService) -> bool:
    return bool(service.scheduler.cancelled)


async def test_local_stays_local(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    await submit(http, tmp_path / "p", jobid="here", scheduler_type="local")
    job = await reach(http, "here", "completed")
    assert (job["executor"], job["scheduler_job_id"]) == ("local", None)


async def test_cluster_jobs_take_no_local_slot(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Fault 10."""
    for number in range(4):
        await submit(http, tmp_path / str(number), jobid=f"c{number}")
    for number in range(4):
        await reach(http, f"c{number}", "scheduled")
    queue = await get(http, "/queue")
    assert (queue["scheduled_jobs"], queue["running_jobs"], queue["max_concurrent"]) == (4, 0, 2)


async def test_a_job_that_the_scheduler_refuses_fails_with_its_message(
    service: ClusterService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Fault 22: the old service kept such a job as scheduled, without an id, forever."""
    service.scheduler.refuses = "sbatch: error: invalid partition specified: nope"
    await submit(http, tmp_path / "p", jobid="refused")
    job = await reach(http, "refused", "failed", "completed", "cancelled")
    assert (job["status"], job["reason"], job["scheduler_job_id"]) == ("failed", "submit_refused", None)
    assert "invalid partition specified: nope" in job["message"]


async def test_metrics_of_the_scheduler_and_its_jobs(
    service: ClusterService, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await submit(http, tmp_path / "p", jobid="m1")
    await reach(http, "m1", "scheduled")

    async def metrics() -> dict[str, dict[str, float]]:
        async with http.get("/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
        return {f.name: {"".join(s.labels.values()): s.value for s in f.samples} for f in families}

    found = await metrics()
    assert found["edbjobs_scheduler_up"] == {"slurm": 1}
    assert found["edbjobs_cluster_jobs"] == {"slurm": 1}
    assert found["edbjobs_jobs"]["scheduled"] == 1
    service.scheduler.silent = "down"

    async def down() -> bool:
        return (await metrics())["edbjobs_scheduler_up"] == {"slurm": 0}

    await until(down)


@pytest.mark.system
async def test_the_page_shows_the_cluster(service: ClusterService, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    await submit(http, tmp_path / "p", jobid="shown")
    await reach(http, "shown", "scheduled")
    await until(lambda: waits_for(http, "shown", "slurm job 1: Resources"))
    async with chromium(tmp_path / "browser") as page:
        await page.open(service.url + "/")
        text = await page.run("document.body.innerText")
        assert "slurm memory 1 reachable since" in text
        assert "0 of 2 running, 0 waiting, 1 waiting in the cluster" in text
        row = await page.run("document.querySelector('tbody tr').innerText")
        assert "scheduled" in row
        assert "slurm 1" in row
        assert "Resources" in row
        partition = await page.run("document.querySelectorAll('table')[1].tBodies[0].rows[0].innerText")
        assert partition.split("\t") == [
            "normal (default)",
            "up",
            "3 of 4",
            "24 of 32",
            "192 of 256 GiB",
            "1-12:00:00",
        ]
        service.scheduler.silent = "controller <b>down</b>"
        await until(lambda: unreachable(http))
        await page.open(service.url + "/?")
        alert = await page.run("[...document.querySelectorAll('[role=alert]')].at(-1).innerText")
        assert alert.startswith("slurm unreachable since 20")
        assert alert.endswith(": controller <b>down</b>")
        assert await page.run("document.querySelectorAll('table').length") == 1


async def unreachable(http: aiohttp.ClientSession) -> bool:
    return not (await get(http, "/system/status"))["scheduler_detection"]["backend_available"]
