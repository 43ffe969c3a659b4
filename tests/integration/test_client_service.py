"""Both clients against the real service with the demo solver; the service is killed during some tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edbjobs
import pytest
import trustme
from edbjobs import AsyncClient, Authentication, Client
from edbjobs_server.solver.demo import example_project
from support.service import ServiceProcess

FAST = {"ANS_EDBJOBS_DEMO": "seconds=0.2"}
SLOW = {"ANS_EDBJOBS_DEMO": "seconds=60"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("client"), max_local_jobs=4, max_cores=8) as running:
        yield running


@pytest.fixture
def client(service: ServiceProcess) -> Iterator[Client]:
    with Client(service.target, patience=30) as client:
        yield client


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return example_project(tmp_path)


def test_a_job_from_submit_to_delete(client: Client, project: Path) -> None:
    job = client.submit(project, job_id="life", priority=3, labels={"k": "v"}, environment=FAST, cores=2)
    assert (job.id, job.priority, job.reservation.cores, job.project_path) == ("life", 3, 2, str(project))
    assert job.config is not None
    assert job.config.labels == {"k": "v"}
    ended = client.wait("life", timeout=30)
    assert (ended.state, ended.ended, ended.demo) == ("completed", True, True)
    assert ended.outcome is not None
    assert (ended.outcome.reason, ended.outcome.evidence, ended.outcome.exit_code) == ("normal", "solver_log", 0)
    assert [found.uid for found in client.list(labels={"k": "v"})] == [job.uid]
    assert "Stopping Batch Run" in "".join(client.logs("life", text=True))
    with pytest.raises(edbjobs.StateError) as caught:
        client.hold("life")
    assert caught.value.reason == "JOB_ENDED"
    again = client.retry("life")
    assert (again.id, again.retry_of) == ("life", job.uid)
    client.wait(again.uid, timeout=30)
    client.delete(job.uid)
    with pytest.raises(edbjobs.NotFoundError):
        client.get(job.uid)


def test_the_same_request_is_the_same_job(client: Client, project: Path) -> None:
    first = client.submit(project, request_id="r1", hold=True)
    assert client.submit(project, request_id="r1", hold=True).uid == first.uid
    with pytest.raises(edbjobs.ConflictError):
        client.submit(project, request_id="r1", priority=9)
    assert client.cancel(first.uid).state == "cancelled"


def test_of_many_each_gets_its_job_or_its_error(client: Client, project: Path) -> None:
    items: list[Any] = [project, project.with_name("none.aedt"), {"project_path": str(project), "batch": "third"}]
    results = client.submit_many(items, hold=True, batch="many")
    assert [result.job is not None for result in results] == [True, False, True]
    error = results[1].error
    assert isinstance(error, edbjobs.InvalidRequestError)
    assert "config.project_path" in error.fields
    assert len(client.cancel_many(batches=["many"])) == 2


def test_a_watch_has_every_revision_once_though_the_service_is_killed(
    service: ServiceProcess, client: Client, tmp_path: Path
) -> None:
    projects = [example_project(tmp_path / str(number)) for number in range(6)]
    start = client.snapshot().position
    received: list[edbjobs.WatchEvent] = []
    ended: set[str] = set()

    def watch() -> None:
        with Client(service.target, patience=30) as watcher:
            for event in watcher.watch(after=start, batches=["w"]):
                received.append(event)
                if event.job is not None and event.job.ended:
                    ended.add(event.job.uid)
                if len(ended) == len(projects):
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    for project in projects[:3]:
        client.submit(project, batch="w", environment={"ANS_EDBJOBS_DEMO": "seconds=1"})
    deadline = time.monotonic() + 60
    while not received:  # a watch without any answer has no revision to resume from
        assert time.monotonic() < deadline
        time.sleep(0.01)
    service.again()
    # The same client and the same watch go on.
    for project in projects[3:]:
        client.submit(project, batch="w", environment=FAST)
    thread.join(60)
    assert not thread.is_alive()
    revisions = [event.revision for event in received]
    assert revisions == sorted(set(revisions))
    with Client(service.target) as fresh:
        replay = []
        for event in fresh.watch(after=start, batches=["w"]):
            replay.append(event.revision)
            if event.revision == revisions[-1]:
                break
    assert replay == revisions


def test_waiting_and_reading_go_on_though_the_service_is_killed(
    service: ServiceProcess, client: Client, project: Path
) -> None:
    job = client.submit(project, environment={"ANS_EDBJOBS_DEMO": "seconds=3"})
    pieces = client.logs(job.uid, follow=True)
    text = b""
    while b"Pass Number:  2" not in text:
        try:
            text += next(pieces)
        except edbjobs.NotFoundError:  # it has not started yet
            pieces = client.logs(job.uid, follow=True)
    service.again()
    assert client.wait(job.uid, timeout=60).state == "completed"
    text += b"".join(pieces)
    assert text == b"".join(client.logs(job.uid))


async def test_the_asyncio_client(service: ServiceProcess, project: Path) -> None:
    async with AsyncClient(service.target) as client:
        before = (await client.snapshot()).position
        jobs = await asyncio.gather(*(client.submit(project, environment=FAST) for _ in range(5)))
        ended = await asyncio.gather(*(client.wait(job.uid, timeout=60) for job in jobs))
        assert {job.state.value for job in ended} == {"completed"}
        waiting = {job.uid for job in jobs}
        async for event in client.watch(after=before, jobs=[job.uid for job in jobs]):
            if event.job_change is not None and event.job_change.type == "completed":
                waiting.discard(event.job_change.job.uid)
            if not waiting:
                break
        log = b"".join([piece async for piece in client.logs(jobs[0].uid)])
        assert log.rstrip().splitlines()[-1].startswith(b"Stopping Batch Run")
        assert (await client.queue()).running == 0


def test_cancel_of_a_running_job(client: Client, project: Path) -> None:
    job = client.submit(project, environment=SLOW)
    for event in client.watch(from_oldest=True, jobs=[job.uid]):
        if event.job_change is not None and event.job_change.type == "started":
            break
    assert client.cancel(job.uid, grace_period=1).cancel_request_time is not None
    ended = client.wait(job.uid, timeout=30)
    assert ended.outcome is not None
    assert (ended.state, ended.outcome.reason, ended.outcome.evidence) == ("cancelled", "cancelled", "service")


def test_limits_and_queue(client: Client) -> None:
    before = client.limits()
    caps = edbjobs.UserLimits(max_running_jobs=2)
    assert client.update_limits(users={"ann": caps}).users == {"ann": caps}
    assert client.limits().max_local_jobs == before.max_local_jobs
    with pytest.raises(edbjobs.InvalidRequestError):
        client.update_limits(max_cpu_percent=101, max_cores=1)
    assert client.limits().max_cores == before.max_cores
    assert client.update_limits(users={"ann": None}).users == {}
    assert client.update_limits(max_cores=0).max_cores == 0
    assert client.update_limits(max_cores=None).max_cores is None
    with pytest.raises(edbjobs.EdbJobsError) as changed:
        client.update_limits(max_cores=1, etag="of others")
    assert changed.value.reason == "ETAG_MISMATCH"
    client.update_limits(max_cores=before.max_cores, etag=client.limits().etag)
    assert client.pause_queue().paused
    assert not client.resume_queue().paused
    resources, queue = next(client.watch_resources())
    assert resources.cpu_count > 0
    assert (queue.local_runs, queue.starting, queue.blocked_message) == (0, 0, "")


def test_mutual_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    for side in ("server", "client"):
        made = ca.issue_cert("127.0.0.1", common_name=f"{side} of the test")
        made.private_key_pem.write_to_path(tmp_path / f"{side}.key")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{side}.crt")
    settings = {"transport_mode": "mtls", "certificates": str(tmp_path), "uds": ""}
    (tmp_path / "s").mkdir()
    with ServiceProcess(tmp_path / "s", **settings) as service:
        with Client(service.target, certificates=tmp_path) as client:
            caller = client.status().caller
            assert caller is not None
            assert caller.authentication is Authentication.CERTIFICATE
        with Client(service.target, timeout=10) as client, pytest.raises(edbjobs.EdbJobsError):
            client.status()
    with pytest.raises(edbjobs.TargetError, match=r"client\.key"):
        Client("127.0.0.1:1", certificates=tmp_path / "s").queue()
