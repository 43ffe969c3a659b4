"""The documented REST routes, as a program of the documentation uses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from edbjobs._calls import job_ref
from edbjobs.v1 import job_config_pb2, jobs_messages_pb2
from support.web import WebService, job_config, until

Http = aiohttp.ClientSession


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("gateway"), max_local_jobs=4) as running:
        yield running


@pytest.fixture
async def http(service: WebService) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession(service.url) as session:
        yield session


async def submit(http: Http, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    async with http.post("/jobs/submit", json={"config": config, **more}) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def get(http: Http, path: str, status: int = 200) -> Any:
    async with http.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def wait_for_end(http: Http, name: str) -> dict[str, Any]:
    async def look() -> Any:
        job = await get(http, f"/jobs/{name}")
        return job if job["status"] in {"completed", "failed", "cancelled"} else None

    return dict(await until(look))


async def test_a_job_from_submit_to_its_end(http: Http, tmp_path: Path) -> None:
    answer = await submit(http, job_config(tmp_path, jobid="first"), priority=3)
    assert (answer["success"], answer["job_id"], answer["status"]) == (True, "first", "queued")
    assert "submitted" in answer["message"]
    job = await wait_for_end(http, "first")
    assert (job["status"], job["return_code"], job["priority"], job["evidence"]) == ("completed", 0, 3, "solver_log")
    start, end = datetime.fromisoformat(job["start_time"]), datetime.fromisoformat(job["end_time"])
    assert start.tzinfo is None
    assert start < end
    utc = datetime.fromisoformat(job["end_time_utc"])
    assert utc.tzinfo == timezone.utc
    assert utc == end.astimezone(timezone.utc)
    assert job["config"]["jobid"] == "first"
    listed = await get(http, "/jobs")
    assert isinstance(listed, list)
    assert [item["status"] for item in listed if item["id"] == "first"] == ["completed"]


async def test_the_other_routes_answer_with_the_documented_keys(http: Http) -> None:
    resources = await get(http, "/resources")
    documented = {
        "cpu_percent",
        "memory_percent",
        "memory_used_gb",
        "memory_total_gb",
        "memory_free_gb",
        "disk_usage_percent",
        "disk_free_gb",
        "timestamp",
    }
    assert documented <= resources.keys()
    assert resources["memory_total_gb"] > 0
    assert resources["disk_free_gb"] > 0
    queue = await get(http, "/queue")
    assert {"total_queued", "regular_queue_size", "priority_queues", "running_jobs", "max_concurrent"} <= queue.keys()
    assert queue["max_concurrent"] == 4
    status = await get(http, "/system/status")
    assert status["mode"] == "none"
    assert status["scheduler_detection"]["active_scheduler"] == "NONE"
    assert status["limits"]["max_concurrent_jobs"] == 4
    assert status["resource_monitoring"]["memory_total_gb"] == resources["memory_total_gb"]
    assert (await get(http, "/api/scheduler_type")) == {"scheduler_type": "none"}
    assert "username" in await get(http, "/api/me")
    assert "error" in await get(http, "/scheduler/partitions", 400)
    assert (await get(http, "/api/cluster_partitions")) == []
    assert (await get(http, "/healthz")) == {"status": "ok"}
    assert (await get(http, "/readyz"))["ready"] is True


async def test_limits_are_changed_all_or_none(http: Http) -> None:
    async with http.put("/pool/limits", json={"max_concurrent_jobs": 5, "min_memory_gb": 0.5}) as response:
        answer = await response.json()
    assert answer["success"] is True
    assert (answer["limits"]["max_concurrent_jobs"], answer["limits"]["min_memory_gb"]) == (5, 0.5)
    assert answer["max_concurrent_jobs"] == 5
    half_wrong = {"max_concurrent_jobs": 2, "min_disk_gb": "1"}
    for wrong in (half_wrong, {"max_concurrent_jobs": True}, {"max_cores": 2, "x": 1}):
        async with http.put("/pool/limits", json=wrong) as response:
            answer = await response.json()
            assert response.status == 400
            assert answer["reason"] == "INVALID_LIMITS"
            assert answer["fields"]
    limits = await get(http, "/pool/limits")
    assert (limits["max_concurrent_jobs"], limits["min_disk_gb"], limits["max_cores"]) == (5, 0, 0)
    async with http.put("/pool/limits", json={"max_concurrent_jobs": 4, "min_memory_gb": 0}) as response:
        assert response.status == 200


async def test_errors_name_reason_and_field(http: Http) -> None:
    async with http.post("/jobs/submit", json={"config": {"project_path": "relative.aedb"}}) as response:
        answer = await response.json()
        assert response.status == 400
    assert answer["success"] is False
    assert answer["reason"] == "INVALID_JOB"
    assert "absolute" in answer["fields"]["config.project_path"]
    assert "config.project_path" in answer["error"]
    assert (await get(http, "/jobs/nothing", 404))["reason"] == "JOB_NOT_FOUND"
    assert (await get(http, "/nothing", 404))["reason"] == "NO_SUCH_ROUTE"
    async with http.post("/jobs", json={}) as response:
        assert response.status == 405
        assert (await response.json())["reason"] == "METHOD_NOT_ALLOWED"
    async with http.post("/jobs/submit", data="{", headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400


async def test_logs_are_read_whole_and_by_range(http: Http, tmp_path: Path) -> None:
    await submit(http, job_config(tmp_path, jobid="logged"))
    await wait_for_end(http, "logged")
    async with http.get("/jobs/logged/logs/solver") as response:
        whole = await response.read()
        assert response.status == 200
        assert response.content_type == "text/plain"
    assert b"Normal completion" in whole
    async with http.get("/jobs/logged/logs/solver", headers={"Range": "bytes=10-19"}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == "bytes 10-19/*"
        assert await response.read() == whole[10:20]
    async with http.get("/jobs/logged/logs/solver", headers={"Range": "bytes=-7"}) as response:
        assert await response.read() == whole[-7:]
    async with http.get("/jobs/logged/logs/solver", headers={"Range": f"bytes={len(whole)}-"}) as response:
        assert response.status == 416
    async with http.get("/jobs/logged/logs/other") as response:
        assert response.status == 404


async def test_events_of_one_job(http: Http, tmp_path: Path) -> None:
    await submit(http, job_config(tmp_path, jobid="listed"))
    await wait_for_end(http, "listed")
    answer = await get(http, "/jobs/listed/events")
    names = [item["event"] for item in answer["events"]]
    assert names == ["job_queued", "job_starting", "job_started", "job_completed"]
    assert answer["next_after_revision"] is None
    revisions = [item["data"]["revision"] for item in answer["events"]]
    rest = await get(http, f"/jobs/listed/events?after_revision={revisions[1]}&limit=1")
    assert [item["event"] for item in rest["events"]] == ["job_started"]
    assert rest["next_after_revision"] == revisions[2]


async def test_pages_filters_and_the_same_key_twice(http: Http, tmp_path: Path) -> None:
    uids = set()
    for number in range(3):
        config = job_config(tmp_path / str(number), batch="paged")
        async with http.post("/jobs/submit", json={"config": config}, headers={"Idempotency-Key": f"k{number}"}) as one:
            first = await one.json()
        async with http.post("/jobs/submit", json={"config": config}, headers={"Idempotency-Key": f"k{number}"}) as two:
            second = await two.json()
        assert (first["uid"], first["existed"], second["existed"]) == (second["uid"], False, True)
        uids.add(first["uid"])
    found, token = set(), ""
    for _ in range(3):
        path = f"/jobs?batch=paged&limit=1&page_token={token}"
        async with http.get(path) as response:
            (job,) = await response.json()
            token = response.headers.get("X-Next-Page-Token", "")
            found.add(job["uid"])
    assert found == uids
    assert token == ""
    await asyncio.gather(*(wait_for_end(http, uid) for uid in uids))
    assert len(await get(http, "/jobs?batch=paged&status=completed")) == 3
    assert await get(http, "/jobs?batch=paged&status=queued,running") == []
    assert (await get(http, "/jobs?status=nonsense", 400))["fields"]["status"]


async def test_pending_is_a_word_of_the_query_that_finds_nothing(http: Http, tmp_path: Path) -> None:
    await submit(http, job_config(tmp_path, jobid="not-pending"))
    async with http.get("/jobs?status=pending") as response:
        assert (response.status, await response.json()) == (200, [])
        assert int(response.headers["X-Revision"]) > 0
        assert response.headers["X-Store-Id"]
    await wait_for_end(http, "not-pending")
    both = await get(http, "/jobs?status=pending,completed")
    assert "not-pending" in {job["id"] for job in both}


async def test_a_job_in_a_path_is_a_uid_or_an_id(http: Http, tmp_path: Path) -> None:
    uid = (await submit(http, job_config(tmp_path, jobid="named")))["uid"]
    assert (await get(http, f"/jobs/{uid}"))["id"] == (await get(http, "/jobs/named"))["id"] == "named"
    for nobody in ("0" * 32, "no-such-job"):
        assert (await get(http, f"/jobs/{nobody}", 404))["reason"] == "JOB_NOT_FOUND"
    async with http.post("/jobs/submit", json={"config": job_config(tmp_path, jobid="f" * 32)}) as response:
        answer = await response.json()
        assert (response.status, answer["reason"], [*answer["fields"]]) == (400, "INVALID_REQUEST", ["job_id"])


async def test_a_known_id_is_answered_with_ones_own_live_job_only(
    http: Http, service: WebService, tmp_path: Path
) -> None:
    config = job_config(tmp_path, jobid="known", cores=1)
    path = config["project_path"]
    request = jobs_messages_pb2.SubmitJobRequest(
        job_id="known", hold=True, user="bob", config=job_config_pb2.JobConfig(project_path=path)
    )
    theirs = service.jobs.SubmitJob(request, timeout=10).job
    async with http.post("/jobs/submit", json={"config": config}) as response:
        assert (response.status, (await response.json())["reason"]) == (409, "JOB_EXISTS")
    service.jobs.CancelJob(jobs_messages_pb2.CancelJobRequest(job=job_ref(theirs.uid)), timeout=10)
    async with http.post("/jobs/submit", json={"config": config}) as response:
        assert response.status == 409, "ended or not"
    request.user, request.job_id = "", "known2"
    own = service.jobs.SubmitJob(request, timeout=10).job
    answer = await submit(http, {**config, "jobid": "known2"})
    assert (answer["uid"], answer["existed"]) == (own.uid, True)
    assert any("was not taken" in text for text in answer["warnings"])


async def test_a_cancelled_job_cannot_be_cancelled_again(http: Http, service: WebService, tmp_path: Path) -> None:
    path = job_config(tmp_path)["project_path"]
    request = jobs_messages_pb2.SubmitJobRequest(
        job_id="twice", hold=True, config=job_config_pb2.JobConfig(project_path=path)
    )
    service.jobs.SubmitJob(request, timeout=10)
    async with http.post("/jobs/twice/cancel") as response:
        assert (response.status, (await response.json())["status"]) == (200, "cancelled")
    async with http.post("/jobs/twice/cancel") as response:
        assert (response.status, (await response.json())["reason"]) == (409, "JOB_ENDED")


async def test_a_superseded_job_is_left_out_and_its_event_is_a_note(
    http: Http, service: WebService, tmp_path: Path
) -> None:
    old = (await submit(http, job_config(tmp_path, jobid="again")))["uid"]
    await wait_for_end(http, old)
    retry = jobs_messages_pb2.RetryJobRequest(job=job_ref(old))
    new = service.jobs.RetryJob(retry, timeout=10).job.uid
    await wait_for_end(http, new)
    for path in ("/jobs", "/jobs?limit=50"):
        assert [job["uid"] for job in await get(http, path) if job["id"] == "again"] == [new]
    assert (await get(http, f"/jobs/{old}"))["uid"] == old
    last = (await get(http, f"/jobs/{old}/events"))["events"][-1]
    assert (last["event"], last["data"]["detail"]) == ("job_note", f"retried as {new}")


async def test_the_log_of_an_attempt_that_there_is_not(http: Http, service: WebService, tmp_path: Path) -> None:
    await submit(http, job_config(tmp_path, jobid="logged"))
    await wait_for_end(http, "logged")
    answer = await get(http, "/jobs/logged/logs/stdout?attempt=7", 404)
    assert (answer["reason"], answer["metadata"]) == ("ATTEMPT_NOT_FOUND", {"attempt_count": "1"})
    path = job_config(tmp_path)["project_path"]
    request = jobs_messages_pb2.SubmitJobRequest(
        job_id="unstarted", hold=True, config=job_config_pb2.JobConfig(project_path=path)
    )
    service.jobs.SubmitJob(request, timeout=10)
    async with http.get("/api/jobs/unstarted/log") as response:
        assert response.status == 204


def test_a_shortened_list_has_a_token_for_the_rest(tmp_path: Path) -> None:
    """All live jobs, the newest 1,000 ended ones, and a token for the others."""
    with WebService(tmp_path / "s", max_local_jobs=0) as running:
        project = job_config(tmp_path / "p")["project_path"]
        for first in (0, 600):
            numbers = range(first, first + 600)
            batch: list[Any] = [{"job_id": f"j{number}", "config": {"project_path": project}} for number in numbers]
            running.jobs.SubmitJobs(jobs_messages_pb2.SubmitJobsRequest(requests=batch), timeout=30)
        while running.jobs.CancelJobs(jobs_messages_pb2.CancelJobsRequest(all=True), timeout=60).more:
            pass
        live: list[Any] = [{"job_id": f"live{number}", "config": {"project_path": project}} for number in range(300)]
        running.jobs.SubmitJobs(jobs_messages_pb2.SubmitJobsRequest(requests=live), timeout=30)

        async def read() -> None:
            async with aiohttp.ClientSession(running.url) as http:
                async with http.get("/jobs") as response:
                    listed = await response.json()
                    token, more = response.headers["X-Next-Page-Token"], response.links["next"]["url"]
                    assert int(response.headers["X-Revision"]) > 0
                ids = [job["id"] for job in listed]
                assert ids == [f"j{number}" for number in range(200, 1200)] + [f"live{number}" for number in range(300)]
                async with http.get(f"/jobs?page_token={token}") as response:
                    assert [job["id"] for job in await response.json()] == [f"j{n}" for n in range(199, -1, -1)]
                    assert "X-Next-Page-Token" not in response.headers
                async with http.get(more) as response:
                    assert len(await response.json()) == 200

        asyncio.run(read())
