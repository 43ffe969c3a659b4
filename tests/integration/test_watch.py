"""Changes and updates of the real service: by gRPC, gRPC-Web, the Python client and the command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import edbjobs
import grpc
import pytest
from edbjobs import AsyncClient, Client
from edbjobs.v1 import event_pb2, job_config_pb2, job_pb2, job_state_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1.job_ref_pb2 import JobRef
from google.protobuf.duration_pb2 import Duration
from support.grpcweb import BINARY, TEXT, Web, framed, frames_of
from support.web import WebService, job_config

DEADLINE = 60.0
SLOW = 6.0
Response = pb.WatchJobsResponse


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("watch"), max_local_jobs=4) as running:
        yield running


def submit(service: WebService, folder: Path, seconds: float = 0.2, **more: Any) -> job_pb2.Job:
    values = job_config(folder, seconds)
    config = job_config_pb2.JobConfig(project_path=values["project_path"], environment=values["environment"])
    return service.jobs.SubmitJob(pb.SubmitJobRequest(config=config, **more), timeout=DEADLINE).job


def only(*jobs: job_pb2.Job) -> pb.JobFilter:
    return pb.JobFilter(jobs=[JobRef(uid=job.uid) for job in jobs])


def read(service: WebService, enough: Callable[[list[Response]], object], **values: Any) -> list[Response]:
    """Watch until what was received is enough."""
    found: list[Response] = []
    stream = service.jobs.WatchJobs(pb.WatchJobsRequest(**values), timeout=DEADLINE)
    for message in stream:
        found.append(message)
        if enough(found):
            stream.cancel()
            break
    return found


def changes(messages: list[Response]) -> list[event_pb2.WatchEvent]:
    return [event for message in messages for event in message.events]


def updates(messages: list[Response]) -> list[pb.JobUpdate]:
    return [update for message in messages for update in message.updates]


def has_ended(messages: list[Response]) -> bool:
    return any(event.job_change.job.HasField("end_time") for event in changes(messages))


def test_a_grpc_watcher_sees_progress_until_the_end(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, SLOW)
    messages = read(service, has_ended, from_oldest=True, filter=only(job), include_updates=True)
    caught_up = [number for number, message in enumerate(messages) if message.caught_up]
    with_updates = [number for number, message in enumerate(messages) if message.updates]
    assert len(caught_up) == 1
    assert with_updates[0] > caught_up[0]
    assert {update.uid for update in updates(messages)} == {job.uid}
    shown = [update for update in updates(messages) if update.HasField("progress")]
    assert {update.attempt for update in shown} == {1}
    passes = [update.progress.last_pass.number for update in shown if update.progress.HasField("last_pass")]
    assert passes == sorted(passes)
    assert passes
    assert messages[-1].events, "no update after the event of the end"
    positions = [message.position.revision for message in messages]
    assert positions == sorted(positions)
    assert {message.position.store_id for message in messages} == {messages[0].position.store_id} != {""}


def test_waiting_reasons_come_as_updates(service: WebService, tmp_path: Path) -> None:
    first = submit(service, tmp_path, SLOW)
    second = submit(service, tmp_path, 0.1)  # the same project
    held = submit(service, tmp_path / "held", hold=True)

    def reasons(messages: list[Response]) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for update in updates(messages):
            found.setdefault(update.uid, set()).add(update.waiting.reason)
        return found

    wanted = {second.uid: job_state_pb2.WAITING_REASON_PROJECT_BUSY, held.uid: job_state_pb2.WAITING_REASON_HELD}

    def enough(messages: list[Response]) -> bool:
        found = reasons(messages)
        return first.uid in found and all(reason in found.get(uid, ()) for uid, reason in wanted.items())

    messages = read(service, enough, filter=only(first, second, held), include_updates=True)
    assert all(update.waiting.message for update in updates(messages) if update.HasField("waiting"))
    assert not any(update.HasField("usage") for update in updates(messages))
    for job in (held, second, first):
        service.jobs.CancelJob(pb.CancelJobRequest(job=JobRef(uid=job.uid)), timeout=DEADLINE)


def test_who_asks_for_no_updates_gets_none(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, 2.0)
    assert not updates(read(service, has_ended, from_oldest=True, filter=only(job)))


def test_a_job_that_leaves_the_selection_is_named(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, hold=True)
    queued = pb.JobFilter(jobs=[JobRef(uid=job.uid)], states=[job_state_pb2.JOB_STATE_QUEUED])
    threading.Timer(0.5, lambda: service.jobs.ReleaseJob(pb.ReleaseJobRequest(job=JobRef(uid=job.uid)))).start()
    messages = read(service, lambda found: found[-1].left_uids, from_oldest=True, filter=queued)
    assert list(messages[-1].left_uids) == [job.uid]
    last = messages[-1].events[-1].job_change
    assert (last.old_state, last.job.state) == (job_state_pb2.JOB_STATE_QUEUED, job_state_pb2.JOB_STATE_RUNNING)
    assert last.type == event_pb2.JOB_CHANGE_TYPE_STARTED
    assert last.job.view == job_pb2.JOB_VIEW_BASIC
    assert not last.job.attempts


def test_a_position_is_good_after_a_restart(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, hold=True)
    (first,) = read(service, lambda found: True, from_oldest=True, filter=only(job))
    service.again()
    service.jobs.ReleaseJob(pb.ReleaseJobRequest(job=JobRef(uid=job.uid)), timeout=DEADLINE)
    rest = read(service, has_ended, after=first.position, filter=only(job))
    whole = read(service, has_ended, from_oldest=True, filter=only(job))
    assert changes([first]) + changes(rest) == changes(whole)
    assert {message.position.store_id for message in whole} == {first.position.store_id}


def test_a_heartbeat_has_the_position_and_nothing_else(service: WebService) -> None:
    started = time.monotonic()
    nobody = pb.JobFilter(jobs=[JobRef(id="nobody")])
    messages = read(service, lambda found: len(found) == 3, filter=nobody, heartbeat_interval=Duration(nanos=1))
    assert [message.caught_up for message in messages] == [True, False, False]
    assert time.monotonic() - started > 1.9, "at least a second"
    for message in messages:
        assert message.position.store_id
        assert not message.events
        assert not message.updates


def refused(service: WebService, **values: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        read(service, lambda found: True, **values)
    return raised.value


def test_positions_that_cannot_be_served(service: WebService, tmp_path: Path) -> None:
    submit(service, tmp_path, hold=True)
    (mark,) = read(service, lambda found: True)
    future = event_pb2.Position(revision=mark.position.revision + 1_000)
    assert refused(service, after=future).code() is grpc.StatusCode.OUT_OF_RANGE
    other = event_pb2.Position(revision=mark.position.revision, store_id="another")
    assert refused(service, after=other).code() is grpc.StatusCode.OUT_OF_RANGE
    both = refused(service, after=mark.position, from_oldest=True)
    assert both.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", [BINARY, TEXT], ids=["binary", "text"])
async def test_grpc_web_has_updates_too(service: WebService, tmp_path: Path, kind: str) -> None:
    job = submit(service, tmp_path, SLOW)
    request = pb.WatchJobsRequest(filter=only(job), from_oldest=True, include_updates=True)
    found: list[Response] = []
    async with aiohttp.ClientSession() as session:
        web = Web(session, service.url, kind)
        async with web.post("/edbjobs.v1.JobsService/WatchJobs", framed(request.SerializeToString())) as response:
            async for _, data in frames_of(response.content.iter_any(), "text" in kind):
                found.append(Response.FromString(data))
                if any(update.HasField("progress") for update in updates(found)):
                    break
    assert [message.caught_up for message in found].count(True) == 1
    service.jobs.CancelJob(pb.CancelJobRequest(job=JobRef(uid=job.uid)), timeout=DEADLINE)


def test_the_python_client_yields_changes_and_updates(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, SLOW)
    shown: list[edbjobs.JobUpdate] = []
    events: list[edbjobs.WatchEvent] = []
    with Client(service.target) as client:
        snapshot = client.snapshot(jobs=[job.uid])
        for item in client.watch(after=snapshot.position, include_updates=True, jobs=[job.uid]):
            (shown if isinstance(item, edbjobs.JobUpdate) else events).append(item)  # type: ignore[arg-type]
            if isinstance(item, edbjobs.WatchEvent) and item.job is not None and item.job.ended:
                break
    assert any(update.progress is not None and update.progress.last_pass is not None for update in shown)
    assert {update.uid for update in shown} == {job.uid}
    assert events[-1].position.revision == events[-1].revision
    assert events[-1].job_change is not None
    assert events[-1].job_change.old_state == "running"


async def test_the_asyncio_client_yields_updates(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, hold=True)
    async with AsyncClient(service.target) as client:
        async for item in client.watch(include_updates=True, jobs=[job.uid]):
            assert isinstance(item, edbjobs.JobUpdate)
            assert item.waiting is not None
            assert (item.uid, item.waiting.reason, item.attempt) == (job.uid, "held", 0)
            break
        await client.cancel(job.uid)


def command(service: WebService, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "edbjobs", "watch", *arguments]
    environment = {**os.environ, "EDBJOBS_RUNTIME_DIR": str(service.runtime_dir), "COLUMNS": "80", "LINES": "24"}
    return subprocess.Popen(line, env=environment, text=True, **options)


def test_the_command_prints_progress_and_changes_as_lines(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, SLOW)
    out, _ = command(service, job.id, stdout=subprocess.PIPE).communicate(timeout=DEADLINE)
    lines = out.splitlines()
    assert all(line.startswith(f"{job.id}: ") for line in lines), lines
    assert any("running, pass " in line for line in lines), lines
    assert lines[-1].startswith(f"{job.id}: completed")


def test_the_command_prints_why_a_job_waits(service: WebService, tmp_path: Path) -> None:
    first = submit(service, tmp_path, 4.0)
    second = submit(service, tmp_path, 0.1)  # the same project
    out, _ = command(service, second.id, stdout=subprocess.PIPE).communicate(timeout=DEADLINE)
    assert f"job {first.id} works on the same project" in out
    assert out.splitlines()[-1].startswith(f"{second.id}: completed")


def test_the_command_writes_changes_and_updates_as_json(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, SLOW)
    out, _ = command(service, job.id, "--json", stdout=subprocess.PIPE).communicate(timeout=DEADLINE)
    lines = [json.loads(line) for line in out.splitlines()]
    shown = [line["update"] for line in lines if "update" in line]
    assert any((update["progress"] or {}).get("last_pass") for update in shown)
    assert {update["uid"] for update in shown} == {job.uid}
    last = lines[-1]
    assert (last["job_change"]["type"], last["job_change"]["old_state"]) == ("completed", "running")
    assert last["revision"] == last["position"]["revision"] == last["job_change"]["job"]["revision"]


def test_the_command_shows_progress_in_a_terminal_of_80_columns(service: WebService, tmp_path: Path) -> None:
    job = submit(service, tmp_path, SLOW)
    ours, theirs = pty.openpty()
    process = command(service, job.id, stdout=theirs, stderr=theirs, stdin=theirs, close_fds=True)
    os.close(theirs)
    shown = bytearray()
    try:
        while data := os.read(ours, 65_536):
            shown += data
    except OSError:  # the other side was closed
        pass
    os.close(ours)
    assert process.wait(DEADLINE) == 0
    text = shown.decode()
    assert "pass " in text
    assert "completed" in text
