"""What the clients send again when a call fails, seen from a server that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from edbjobs.v1 import event_pb2, job_pb2, job_ref_pb2, jobs_messages_pb2, jobs_service_pb2_grpc
from support.web_client import build

from interop import toolchains
from interop.driver import Driver, ProcessDriver

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # the first test of a worker builds the clients

FAILURES = 2
POSITION = event_pb2.Position(revision=5, store_id="store")

COMMANDS: dict[str, Callable[[pytest.TempPathFactory], list[str | Path]]] = {
    "cpp": lambda factory: [toolchains.cpp(factory) / "driver" / "driver"],
    "node": lambda factory: ["node", build() / "lines.js"],
}


@dataclass
class FailingService(jobs_service_pb2_grpc.JobsServiceServicer):
    """Fails each call twice, and breaks off each watch once."""

    requests: list[Any] = field(default_factory=list)

    def SubmitJob(self, request: Any, context: Any) -> Any:
        self._fail(request, context)
        return jobs_messages_pb2.SubmitJobResponse(job=job_pb2.Job(uid="0" * 32))

    def SubmitJobs(self, request: Any, context: Any) -> Any:
        self._fail(request, context)
        return jobs_messages_pb2.SubmitJobsResponse()

    def RetryJob(self, request: Any, context: Any) -> Any:
        self._fail(request, context)
        return jobs_messages_pb2.RetryJobResponse(job=job_pb2.Job(uid="0" * 32))

    def CancelJob(self, request: Any, context: Any) -> Any:
        self._fail(request, context)
        return jobs_messages_pb2.CancelJobResponse(job=job_pb2.Job(uid="0" * 32))

    def DeleteJob(self, request: Any, context: Any) -> Any:
        self._fail(request, context)
        return jobs_messages_pb2.DeleteJobResponse()

    def WatchJobs(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        first = len(self.requests) == 1
        yield jobs_messages_pb2.WatchJobsResponse(
            events=[event_pb2.WatchEvent(revision=5 if first else 7, message="the-first" if first else "the-last")],
            position=POSITION if first else event_pb2.Position(revision=7, store_id="store"),
        )
        context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")

    def _fail(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        if len(self.requests) <= FAILURES:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away for a moment")


@pytest.fixture
def service() -> FailingService:
    return FailingService()  # type: ignore[abstract]


@pytest.fixture(params=COMMANDS)
def driver(
    request: pytest.FixtureRequest, service: FailingService, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    command = COMMANDS[request.param](tmp_path_factory)
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        jobs_service_pb2_grpc.add_JobsServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        (tmp_path / "runtime").mkdir(mode=0o700)
        (tmp_path / "runtime" / "endpoint.json").write_text(json.dumps({"grpc": f"127.0.0.1:{port}"}))
        client = ProcessDriver(command, {"EDBJOBS_RUNTIME_DIR": str(tmp_path / "runtime")})
        yield client
        client.close()
        server.stop(None).wait()


def _call(driver: Driver, name: str, request: dict[str, Any], code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
    call = {"rpc": f"JobsService.{name}", "request": json.dumps(request), "deadline": 20, "token": "", "until": ""}
    answer = driver.call(call)
    assert answer["code"] == code.value[0], answer


@pytest.mark.parametrize("name", ["SubmitJob", "RetryJob"])
def test_a_call_is_sent_again_with_the_request_id_that_the_client_made(
    name: str, driver: Driver, service: FailingService
) -> None:
    _call(driver, name, {})
    ids = [request.request_id for request in service.requests]
    assert len(ids) == 1 + FAILURES
    assert len(set(ids)) == 1
    assert 1 <= len(ids[0]) <= 64
    _call(driver, name, {})
    assert service.requests[-1].request_id != ids[0], "another call is another job"


def test_each_item_has_a_request_id(driver: Driver, service: FailingService) -> None:
    _call(driver, "SubmitJobs", {"requests": [{}, {"requestId": "mine"}, {}]})
    sent = [[item.request_id for item in request.requests] for request in service.requests]
    assert sent == [sent[0]] * (1 + FAILURES)
    assert sent[0][1] == "mine"
    assert len(set(sent[0])) == 3
    assert all(sent[0])


def test_a_call_that_is_safe_to_repeat_is_sent_again_as_it_is(driver: Driver, service: FailingService) -> None:
    _call(driver, "CancelJob", {"job": {"uid": "0" * 32}})
    assert service.requests == [jobs_messages_pb2.CancelJobRequest(job=job_ref_pb2.JobRef(uid="0" * 32))] * (
        1 + FAILURES
    )


def test_a_delete_is_not_sent_again(driver: Driver, service: FailingService) -> None:
    _call(driver, "DeleteJob", {"job": {"uid": "0" * 32}}, grpc.StatusCode.UNAVAILABLE)
    assert len(service.requests) == 1


def test_a_watch_resumes_at_its_position(driver: Driver, service: FailingService) -> None:
    call = {"rpc": "watch", "request": '{"fromOldest": true}', "deadline": 0, "token": "", "until": "the-last"}
    assert [event["revision"] for event in driver.watch(call)] == ["5", "7"]
    assert service.requests == [
        jobs_messages_pb2.WatchJobsRequest(from_oldest=True),
        jobs_messages_pb2.WatchJobsRequest(after=POSITION),
    ]
