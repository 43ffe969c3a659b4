from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import edbjobs
import grpc
import pytest
from edbjobs import AsyncClient, Client, JobFilter, JobState
from edbjobs._endpoint import Endpoint, write_endpoint
from edbjobs.v1 import event_pb2, job_pb2, resource_pb2, resources_service_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1.job_ref_pb2 import JobRef
from google.protobuf.timestamp_pb2 import Timestamp
from support.fake_service import FakeService, refuse, status_of

UID = "0123456789abcdef" * 2


@pytest.fixture
def fake() -> Iterator[FakeService]:
    service = FakeService()
    yield service
    service.stop()


@pytest.fixture
def client(fake: FakeService) -> Iterator[Client]:
    with Client(fake.target, patience=10) as client:
        yield client


def job(uid: str = "u1", state: int = 2, **fields: Any) -> job_pb2.Job:
    return job_pb2.Job(uid=uid, id=f"id-{uid}", state=state, **fields)  # type: ignore[arg-type]


def ended(state: int, reason: int = 1, message: str = "") -> job_pb2.Job:
    outcome = job_pb2.Outcome(reason=reason, message=message)  # type: ignore[arg-type]
    return job(state=state, end_time=Timestamp(seconds=1_700_000_002), outcome=outcome)


def test_a_submit_carries_the_config_and_always_a_request_id(fake: FakeService, client: Client, tmp_path: Any) -> None:
    fake.on("SubmitJob", lambda request, context: pb.SubmitJobResponse(job=job(config=request.config)))
    answer = client.submit(tmp_path / "a.aedb", job_id="j1", priority=3, cores=4, labels={"k": "v"})
    request = fake.sent("SubmitJob")[0]
    assert (request.job_id, request.priority, request.config.cores) == ("j1", 3, 4)
    assert len(request.request_id) == 36
    assert answer.state is JobState.QUEUED
    assert answer.config is not None
    assert answer.config.labels == {"k": "v"}
    assert answer.to_dict()["config"]["project_path"] == str(tmp_path / "a.aedb")
    client.submit({"project_path": "/x/y.aedt", "machines": [{"cores": 3}]}, job_id="dict", request_id="mine")
    config = edbjobs.JobConfig(project_path="/x/y.aedt", retry=edbjobs.RetryOptions(), machines=(edbjobs.Machine(),))
    client.submit(config, job_id="k", user="ann", cores=2)
    last = fake.sent("SubmitJob")[1:]
    assert [(r.job_id, r.config.HasField("cores"), r.user) for r in last] == [("dict", False, ""), ("k", True, "ann")]
    assert last[0].config.machines[0].cores == 3
    assert (last[1].config.HasField("retry"), len(last[1].config.machines), last[1].config.cores) == (True, 1, 2)
    assert last[0].request_id == "mine"


def test_nothing_is_sent_for_a_config_that_cannot_be_right(fake: FakeService, client: Client) -> None:
    with pytest.raises(ValueError, match="cores"):
        client.submit("/x/y.aedt", cores=-1)
    assert not fake.sent("SubmitJob")


def test_a_broken_submit_is_sent_again_with_the_same_request_id(fake: FakeService, client: Client) -> None:
    def flaky(request: Any, context: grpc.ServicerContext) -> Any:
        if len(fake.sent("SubmitJob")) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        return pb.SubmitJobResponse(job=job())

    fake.on("SubmitJob", flaky)
    client.submit("/x/y.aedt")
    assert len({request.request_id for request in fake.sent("SubmitJob")}) == 1
    assert len(fake.sent("SubmitJob")) == 3


def test_delete_is_not_sent_again_by_itself(fake: FakeService, client: Client) -> None:
    fake.on("DeleteJob", lambda request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "going down"))
    with pytest.raises(edbjobs.ConnectError):
        client.delete("a")
    assert len(fake.sent("DeleteJob")) == 1


def test_every_item_of_a_batch_gets_its_job_or_its_error(fake: FakeService, client: Client) -> None:
    def submit(request: pb.SubmitJobsRequest, context: Any) -> Any:
        results = []
        for item in request.requests:
            if item.config.project_path.endswith("bad.aedt"):
                error = status_of(3, "no such project", "PROJECT_NOT_FOUND", {"config.project_path": "is not there"})
                results.append(pb.SubmitJobsResult(error=error))
            else:
                results.append(pb.SubmitJobsResult(response=pb.SubmitJobResponse(job=job(item.request_id))))
        return pb.SubmitJobsResponse(results=results)

    fake.on("SubmitJobs", submit)
    paths = [f"/x/{n}.aedt" for n in range(1500)]
    paths[700] = "/x/bad.aedt"
    results = client.submit_many(paths, batch="b1", cores=2)
    assert [len(request.requests) for request in fake.sent("SubmitJobs")] == [1000, 500]
    sent = [item.request_id for request in fake.sent("SubmitJobs") for item in request.requests]
    assert [r.job.uid for r in results if r.job] == sent[:700] + sent[701:]
    error = results[700].error
    assert isinstance(error, edbjobs.InvalidRequestError)
    assert (error.reason, error.fields) == ("PROJECT_NOT_FOUND", {"config.project_path": "is not there"})


def test_large_batches_are_cut_by_size(fake: FakeService, client: Client) -> None:
    def submit(request: pb.SubmitJobsRequest, context: Any) -> Any:
        return pb.SubmitJobsResponse(
            results=[pb.SubmitJobsResult(response=pb.SubmitJobResponse(job=job())) for _ in request.requests]
        )

    fake.on("SubmitJobs", submit)
    environment = {f"ANS_{n}": "x" * 30_000 for n in range(10)}
    assert len(client.submit_many([f"/x/{n}.aedt" for n in range(20)], environment=environment)) == 20
    assert all(request.ByteSize() < 3 * 1024 * 1024 for request in fake.sent("SubmitJobs"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (3, edbjobs.InvalidRequestError),
        (5, edbjobs.NotFoundError),
        (6, edbjobs.ConflictError),
        (7, edbjobs.ForbiddenError),
        (4, edbjobs.DeadlineError),
        (8, edbjobs.BusyError),
        (9, edbjobs.StateError),
        (10, edbjobs.ConflictError),
        (11, edbjobs.OutOfRangeError),
        (12, edbjobs.NotServedError),
        (13, edbjobs.ServiceError),
        (14, edbjobs.BusyError),
        (16, edbjobs.AuthenticationError),
    ],
)
def test_errors_of_the_service_have_reason_fields_and_metadata(
    fake: FakeService, client: Client, code: int, kind: type[edbjobs.EdbJobsError]
) -> None:
    status = status_of(code, "what was wrong", "THE_REASON", {"config.cores": "is too many"}, uid="u9")
    fake.on("GetJob", lambda request, context: refuse(context, status))
    with pytest.raises(kind) as caught:
        client.get("x")
    assert type(caught.value) is kind
    assert caught.value.reason == "THE_REASON"
    assert caught.value.metadata == {"uid": "u9"}
    assert str(caught.value) == "what was wrong\n  config.cores: is too many"


def test_lists_go_through_all_pages_and_filters_are_sent(fake: FakeService, client: Client) -> None:
    def pages(request: pb.ListJobsRequest, context: Any) -> Any:
        number = int(request.page_token or 0)
        following = str(number + 1) if number < 2 else ""
        # A page may be empty though more follow.
        jobs = [] if number == 1 else [job(f"u{number}")]
        position = event_pb2.Position(revision=40 + number, store_id="s1")
        return pb.ListJobsResponse(jobs=jobs, next_page_token=following, position=position)

    fake.on("ListJobs", pages)
    since = datetime(2026, 1, 1, tzinfo=timezone.utc)
    given: JobFilter = {"states": ["running", JobState.FAILED], "users": ["ann"], "labels": {"k": "v"}}
    more: JobFilter = {"create_time_from": since, "jobs": [UID, "board"], "ended": False, "end_reasons": ["timeout"]}
    given.update(more)
    found = list(client.list(**given))
    assert [item.uid for item in found] == ["u0", "u2"]
    request = fake.sent("ListJobs")[0]
    sent = request.filter
    assert (list(sent.states), list(sent.users), dict(sent.labels)) == ([4, 6], ["ann"], {"k": "v"})
    assert sent.create_time_from.seconds == int(since.timestamp())
    assert list(sent.jobs) == [JobRef(uid=UID), JobRef(id="board")]
    assert (sent.HasField("ended"), sent.ended, sent.HasField("held"), list(sent.end_reasons)) == (
        True,
        False,
        False,
        [4],
    )
    assert (request.order, request.view) == (pb.JOB_ORDER_CREATE_TIME, job_pb2.JOB_VIEW_BASIC)
    snapshot = client.snapshot(batches=["b"])
    assert (snapshot.position, len(snapshot.jobs)) == (edbjobs.Position(40, "s1"), 2)


def test_order_and_view_of_a_list_are_sent(fake: FakeService, client: Client) -> None:
    fake.on("ListJobs", lambda request, context: pb.ListJobsResponse())
    assert list(client.list(order="create_time_descending", view="full")) == []
    (request,) = fake.sent("ListJobs")
    assert (request.order, request.view) == (pb.JOB_ORDER_CREATE_TIME_DESCENDING, job_pb2.JOB_VIEW_FULL)


def test_a_job_is_named_by_uid_or_by_id(fake: FakeService, client: Client) -> None:
    fake.on("GetJob", lambda request, context: pb.GetJobResponse(job=job()))
    for name in (UID, UID.upper(), "board", UID[:-1]):
        client.get(name)
    sent = [request.job for request in fake.sent("GetJob")]
    assert sent == [JobRef(uid=UID), JobRef(uid=UID.upper()), JobRef(id="board"), JobRef(id=UID[:-1])]


def test_cancelling_many_goes_on_while_there_are_more(fake: FakeService, client: Client) -> None:
    def cancel(request: pb.CancelJobsRequest, context: Any) -> Any:
        if len(fake.sent("CancelJobs")) == 1:
            return pb.CancelJobsResponse(results=[pb.JobResult(job=JobRef(uid="u1"), changed=job("u1"))], more=True)
        error = status_of(9, "has ended", "JOB_ENDED", uid="u2")
        return pb.CancelJobsResponse(results=[pb.JobResult(job=JobRef(id="two"), error=error)])

    fake.on("CancelJobs", cancel)
    first, second = client.cancel_many(jobs=["one", "two"], grace_period=0)
    assert (first.name, first.job and first.job.uid, first.error) == ("u1", "u1", None)
    assert (second.name, second.job, second.error and second.error.reason) == ("two", None, "JOB_ENDED")
    sent = fake.sent("CancelJobs")
    assert len(sent) == 2
    assert sent[0].HasField("grace_period")
    client.cancel_many(all_jobs=True)
    assert not fake.sent("CancelJobs")[-1].HasField("grace_period")


def test_values_of_a_newer_service_are_unknown_not_an_error(fake: FakeService, client: Client) -> None:
    newer = job(state=42)
    newer.waiting.reason = 77  # type: ignore[assignment]
    newer.outcome.reason = 88  # type: ignore[assignment]
    newer.config.project_path = "/x/y.aedt"
    newer.config.existing_results = 99  # type: ignore[assignment]
    fake.on("GetJob", lambda request, context: pb.GetJobResponse(job=newer))
    answer = client.get("x")
    assert answer.waiting is not None
    assert answer.outcome is not None
    assert (answer.state, answer.waiting.reason, answer.outcome.reason) == ("unknown", "unknown", "unknown")
    assert not answer.ended
    with pytest.raises(edbjobs.VersionError, match="upgrade"):
        _ = answer.config


def test_times_and_optional_values(fake: FakeService, client: Client) -> None:
    sent = job(state=6, held=True)
    sent.outcome.exit_code = 0
    sent.create_time.FromSeconds(1_700_000_000)
    sent.attempts.add(number=1).start_time.FromSeconds(1_700_000_001)
    fake.on("GetJob", lambda request, context: pb.GetJobResponse(job=sent))
    answer = client.get("x")
    assert answer.create_time == datetime.fromtimestamp(1_700_000_000, timezone.utc)
    assert (answer.start_time, answer.end_time, answer.progress, answer.waiting) == (None, None, None, None)
    assert answer.outcome is not None
    assert (answer.outcome.exit_code, answer.outcome.signal) == (0, None)
    started = answer.attempts[0].start_time
    assert started is not None
    assert started - answer.create_time == timedelta(seconds=1)


def test_limits_are_set_by_presence_zero_included_and_removed_by_none(fake: FakeService, client: Client) -> None:
    def update(request: Any, context: Any) -> Any:
        return resources_service_pb2.UpdateLimitsResponse(limits=request.limits)

    fake.on("UpdateLimits", update)
    user = edbjobs.UserLimits(max_cores=4, max_priority=0)
    limits = client.update_limits(
        max_cores=0, max_memory_bytes=None, users={"ann": user, "bob": None}, licenses={"hfss": None}
    )
    request = fake.sent("UpdateLimits")[0]
    assert list(request.remove_mask.paths) == ["max_memory_bytes"]
    assert (list(request.remove_users), list(request.remove_licenses)) == (["bob"], ["hfss"])
    assert (limits.max_cores, limits.max_memory_bytes, limits.users) == (0, None, {"ann": user})


def test_waiting_goes_by_uid_and_until_the_end(fake: FakeService, client: Client) -> None:
    # A state of a newer service may be the last one: what counts is the time of the end.
    answers = iter([job(state=2), job(state=4), ended(42)])
    fake.on("WaitJob", lambda request, context: pb.WaitJobResponse(job=next(answers)))
    assert client.wait("id-u1").state == "unknown"
    assert [request.job for request in fake.sent("WaitJob")] == [JobRef(id="id-u1"), JobRef(uid="u1"), JobRef(uid="u1")]


def test_waiting_ends_at_its_time_with_the_job(fake: FakeService, client: Client) -> None:
    fake.on("WaitJob", lambda request, context: pb.WaitJobResponse(job=job(state=4)))
    with pytest.raises(edbjobs.WaitTimeoutError) as caught:
        client.wait("x", timeout=0.01)
    assert caught.value.job.state == "running"


def test_progress_is_shown_line_by_line_where_there_is_no_terminal(
    fake: FakeService, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    running = job(state=4)
    running.progress.current_pass, running.progress.max_passes = 3, 10
    answers = iter([running, running, ended(6, 5, "no license")])
    fake.on("WaitJob", lambda request, context: pb.WaitJobResponse(job=next(answers)))
    client.wait("x", progress=True)
    assert capsys.readouterr().err.splitlines() == [
        "id-u1: running, pass 3 of 10",
        "id-u1: failed (license): no license",
    ]


def test_a_token_is_sent(fake: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(fake.target, token="t1") as client:
        client.status()
    assert fake.metadata["authorization"] == "Bearer t1"
    monkeypatch.setenv("EDBJOBS_TOKEN", "t2")
    with Client(fake.target) as client:
        client.status()
    assert fake.metadata["authorization"] == "Bearer t2"


def test_another_grpc_server_is_detected() -> None:
    service = FakeService()
    del service.handlers["GetSystemStatus"]
    with Client(service.target) as client, pytest.raises(edbjobs.NotEdbJobsError, match="not edbjobs"):
        client.queue()
    service.stop()


def test_another_api_level_is_reported() -> None:
    old = FakeService(api_level=0, version="0.0.1")
    with Client(old.target) as client, pytest.raises(edbjobs.VersionError, match=r"0\.0\.1 with API level 0"):
        client.queue()
    old.stop()


def test_an_http_server_is_detected(unused_http: str) -> None:
    with Client(unused_http, timeout=5) as client, pytest.raises(edbjobs.NotEdbJobsError, match="does not speak gRPC"):
        client.queue()


@pytest.fixture
def unused_http() -> Iterator[str]:
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_an_unreachable_service_is_reported_with_the_fix(closed_port: str) -> None:
    with Client(closed_port) as client, pytest.raises(edbjobs.ConnectError, match="edbjobs up") as caught:
        client.queue()
    assert type(caught.value) is edbjobs.ConnectError


@pytest.fixture
def closed_port() -> str:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_service_that_came_back_elsewhere_is_found_through_its_endpoint_file(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDBJOBS_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("EDBJOBS_TARGET", raising=False)
    token = tmp_path / "token"
    token.write_text("secret\n")

    def answer(request: Any, context: Any) -> Any:
        return resources_service_pb2.GetQueueResponse(queue=resource_pb2.QueueStatus(queued=7))

    first, second = FakeService(), FakeService()
    for service in (first, second):
        service.on("GetQueue", answer)
    write_endpoint(Endpoint(grpc=first.target, token_file=str(token)))
    with Client() as client:
        assert client.queue().queued == 7
        assert first.metadata["authorization"] == "Bearer secret"
        first.stop()
        write_endpoint(Endpoint(grpc=second.target))
        assert client.queue().queued == 7
    second.stop()


async def test_the_asyncio_client_does_the_same(fake: FakeService) -> None:
    fake.on("SubmitJob", lambda request, context: pb.SubmitJobResponse(job=job(config=request.config)))
    fake.on("WaitJob", lambda request, context: pb.WaitJobResponse(job=ended(5)))
    fake.on("ListJobs", lambda request, context: pb.ListJobsResponse(jobs=[job()]))
    fake.on("GetJob", lambda request, context: refuse(context, status_of(5, "no such job", "JOB_NOT_FOUND")))
    async with AsyncClient(fake.target) as client:
        answer = await client.submit("/x/y.aedt", cores=2)
        assert answer.config is not None
        assert answer.config.cores == 2
        assert (await client.wait("u1")).state == "completed"
        assert [item.uid async for item in client.list()] == ["u1"]
        with pytest.raises(edbjobs.NotFoundError, match="no such job"):
            await client.get("x")


def test_both_clients_have_the_same_surface() -> None:
    def surface(kind: type[Any]) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert surface(Client) == surface(AsyncClient)
