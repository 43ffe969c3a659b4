"""Each reason of the contract arrives with its code, its metadata and a delay, as errors.proto promises.

The service runs in this process, with a cluster in memory: what cannot be provoked from outside is patched in.
"""

from __future__ import annotations

import base64
import http.client
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

import grpc
import pytest
from edbjobs.v1 import cluster_service_pb2, jobs_service_pb2, resources_service_pb2
from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.contract.request_check import MAX_REQUEST_BYTES
from edbjobs_server.core.errors import ErrorReason
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.script import ScriptError
from edbjobs_server.manager import draft_batcher
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.manager.manager_base import draining
from edbjobs_server.solver.demo import example_project
from edbjobs_server.store import writer
from edbjobs_server.store.reader import Reader
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2, status_pb2
from support.documented_errors import Documented, documented
from support.memory_cluster import ClusterService

FILES = (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
METHODS = {
    f"{service.name}.{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# Reasons of what is not served yet.
LATER = {
    *("DESIGN_NOT_FOUND", "SETUP_NOT_FOUND", "FILE_NOT_FOUND", "FILE_CHANGED"),
    *("BATCH_NOT_FOUND", "DEPENDENCY_NOT_FOUND"),
}
NOWHERE = "f" * 32


class Answer(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    details: frozenset[str]


class Endpoint:
    """Calls through gRPC, with requests in proto3's JSON."""

    def __init__(self, service: ClusterService, projects: Path, channel: grpc.Channel) -> None:
        self.service, self.projects, self.channel = service, projects, channel

    def call(self, rpc: str, request: dict[str, Any] | bytes, **options: Any) -> list[Any]:
        """Make a call; return its messages."""
        method = METHODS[rpc]
        made = message_factory.GetMessageClass(method.input_type)()
        data = request if isinstance(request, bytes) else json_format.ParseDict(request, made).SerializeToString()
        path = f"/{method.containing_service.full_name}/{method.name}"
        read = message_factory.GetMessageClass(method.output_type).FromString
        make: Any = self.channel.unary_stream(path, response_deserializer=read)
        return list(make(data, **{"timeout": 30, **options}))

    def fails(self, rpc: str, request: dict[str, Any] | bytes, **options: Any) -> Answer:
        """Make a call that must fail; return how."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(rpc, request, **options)
        error: Any = caught.value
        return _answer(error.code(), dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))

    def config(self, name: str = "board", seconds: float = 0.0, **fields: Any) -> dict[str, Any]:
        """Return the config of a job on a project of its own."""
        project = self.projects / name / "patch_antenna.aedt"
        if not project.exists():
            example_project(project.parent)
        return {"projectPath": str(project), "environment": {"ANS_EDBJOBS_DEMO": f"seconds={seconds}"}, **fields}

    def refused(self, name: str = "board", **fields: Any) -> Answer:
        """Submit a job that must be refused."""
        return self.fails("JobsService.SubmitJob", {"config": self.config(name, **fields)})

    def submit(self, name: str, seconds: float = 0.0, **request: Any) -> Any:
        """Submit a job; return it."""
        config = self.config(name, seconds, **request.pop("config", {}))
        return self.call("JobsService.SubmitJob", {"config": config, **request})[0].job

    def ended(self, name: str) -> Any:
        """Return a job that has ended."""
        job = self.submit(name)
        return self.call("JobsService.WaitJob", {"job": {"uid": job.uid}, "timeout": "30s"})[0].job

    def running(self, name: str) -> Any:
        """Return a job whose solver runs."""
        job = self.submit(name, 60.0)
        return self.service.until(
            lambda: next(
                (
                    found
                    for message in self.call("JobsService.GetJob", {"job": {"uid": job.uid}})
                    if (found := message.job).HasField("start_time")
                ),
                None,
            )
        )


def _answer(code: grpc.StatusCode, details: bytes) -> Answer:
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(details)
    for detail in status.details:
        detail.Unpack(info)
    names = frozenset(detail.type_url.rpartition("/")[2] for detail in status.details)
    return Answer(code, info.reason, dict(info.metadata), names)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("reasons")
    allowed = [str(folder / "projects"), str(folder / "local")]
    roots = {"project_roots": allowed, "shared_roots": [str(folder / "projects")]}
    settings = {"max_concurrent_jobs": 8, "max_cores": 64, **roots}
    with (
        ClusterService(folder, **settings) as service,
        grpc.insecure_channel(service.target, options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        yield Endpoint(service, folder / "projects", channel)


Produce = Callable[[Endpoint, pytest.MonkeyPatch], Answer]
PRODUCED: dict[str, Produce] = {}


def produces(reason: ErrorReason) -> Callable[[Produce], Produce]:
    def register(produce: Produce) -> Produce:
        PRODUCED[reason] = produce
        return produce

    return register


def plain(reason: ErrorReason, rpc: str, request: dict[str, Any] | bytes) -> None:
    """Register a request that is enough."""
    PRODUCED[reason] = lambda endpoint, _: endpoint.fails(rpc, request)


def refused_config(reason: ErrorReason, **fields: Any) -> None:
    """Register a config that is refused."""
    PRODUCED[reason] = lambda endpoint, _: endpoint.refused(**fields)


plain("INVALID_REQUEST", "JobsService.CancelJob", {"job": {"uid": NOWHERE}, "gracePeriod": "7200s"})
plain("INVALID_JOB", "JobsService.SubmitJob", {})
plain("INVALID_LIMITS", "ResourcesService.UpdateLimits", {"limits": {"maxCores": -1}})
plain("INVALID_PAGE_TOKEN", "JobsService.ListJobs", {"pageToken": "x"})
plain("FILTER_REQUIRED", "JobsService.CancelJobs", {})
plain("TOO_MANY_ITEMS", "JobsService.SubmitJobs", {"requests": [{}] * 1001})
plain("TOO_LARGE", "JobsService.ListJobs", bytes(MAX_REQUEST_BYTES + 1))
plain("NOT_SERVED", "JobsService.ListJobs", b"\xc0\xb8\x02\x00")
plain("JOB_NOT_FOUND", "JobsService.GetJob", {"job": {"uid": NOWHERE}})
plain("REVISION_IN_FUTURE", "JobsService.WatchJobs", {"after": {"revision": 2**60}})
plain("OTHER_STORE", "JobsService.WatchJobs", {"after": {"revision": 0, "storeId": "another"}})
plain("ETAG_MISMATCH", "ResourcesService.UpdateLimits", {"limits": {"maxLocalJobs": 3, "etag": "another"}})
refused_config("INFEASIBLE", cores=100_000)
refused_config("PROJECT_NOT_FOUND", projectPath="/nowhere/board.aedt")
refused_config("SOLVER_NOT_ALLOWED", aedtPath="/bin/true")
refused_config("ENVIRONMENT_NOT_ALLOWED", environment={"LD_PRELOAD": "/x.so"})
refused_config("NO_SCHEDULER", scheduler="lsf")


@produces("INVALID_PRIORITY")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    return endpoint.fails("JobsService.SubmitJob", {"config": endpoint.config(), "priority": 1_000_001})


@produces("PROJECT_NOT_ALLOWED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    return endpoint.refused("../elsewhere")


@produces("PROJECT_NOT_SHARED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    return endpoint.refused("../local", scheduler="slurm")


@produces("ATTEMPT_NOT_FOUND")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    job = endpoint.ended("attempts")
    return endpoint.fails("JobsService.ReadLog", {"job": {"uid": job.uid}, "attempt": 2})


@produces("LOG_NOT_FOUND")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    job = endpoint.ended("script")
    return endpoint.fails("JobsService.ReadLog", {"job": {"uid": job.uid}, "stream": "LOG_STREAM_SCRIPT"})


@produces("OFFSET_BEYOND_END")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    job = endpoint.ended("offset")
    return endpoint.fails("JobsService.ReadLog", {"job": {"uid": job.uid}, "offset": 2**40})


@produces("JOB_EXISTS")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    endpoint.submit("exists", jobId="exists", hold=True)
    return endpoint.fails("JobsService.SubmitJob", {"jobId": "exists", "config": endpoint.config(cores=2)})


@produces("REQUEST_ID_REUSED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    endpoint.submit("reused", requestId="reused", hold=True)
    return endpoint.fails("JobsService.SubmitJob", {"requestId": "reused", "config": endpoint.config(cores=2)})


@produces("JOB_ENDED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    return endpoint.fails("JobsService.CancelJob", {"job": {"uid": endpoint.ended("over").uid}})


@produces("JOB_STARTED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    return endpoint.fails("JobsService.HoldJob", {"job": {"uid": endpoint.running("started").uid}})


@produces("JOB_NOT_ENDED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    job = endpoint.submit("not-ended", hold=True)
    retried = endpoint.fails("JobsService.RetryJob", {"job": {"uid": job.uid}})
    assert retried == endpoint.fails("JobsService.DeleteJob", {"job": {"uid": job.uid}})
    return retried


@produces("JOB_NOT_UNKILLABLE")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    job = endpoint.running("killable")
    return endpoint.fails("JobsService.CancelJob", {"job": {"uid": job.uid}, "abandon": True})


@produces("JOB_SUPERSEDED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    job = endpoint.ended("retried")
    endpoint.call("JobsService.RetryJob", {"job": {"uid": job.uid}})
    return endpoint.fails("JobsService.RetryJob", {"job": {"uid": job.uid}})


@produces("REVISION_TOO_OLD")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    endpoint.submit("old", hold=True)
    patch.setattr(Reader, "floor", lambda self: 1000)
    return endpoint.fails("JobsService.WatchJobs", {"after": {"revision": 1}})


@produces("SOLVER_NOT_FOUND")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    patch.setattr("edbjobs_server.solver.releases.Release.demo", property(lambda self: False), raising=False)
    return endpoint.refused(aedtVersion="2019.1")


@produces("NO_SHARED_DIR")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    patch.setattr("edbjobs_server.core.cluster_policy.ClusterPolicy.shared_dir", None)
    return endpoint.refused(scheduler="slurm")


@produces("LOCAL_NOT_ALLOWED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    patch.setattr(draft_batcher, "cache", lambda _: lambda: "this is a login node")
    return endpoint.refused()


@produces("INVALID_TEMPLATE")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    def script(*_: object) -> str:
        raise ScriptError("line 3: no such variable")

    patch.setattr(ClusterExecutor, "script", script)
    request = {"config": endpoint.config(scheduler="slurm")}
    return endpoint.fails("JobsService.PreviewJob", {"request": request})


@produces("UNAUTHENTICATED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    wrong = (("authorization", "Bearer " + "w" * 43),)
    return endpoint.fails("ResourcesService.GetQueue", {}, metadata=wrong)


@produces("PERMISSION_DENIED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    patch.setattr(Authenticator, "identify", lambda *_: Principal("eve", Role.VIEWER))
    return endpoint.fails("ResourcesService.PauseQueue", {})


@produces("OVERLOADED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    patch.setattr(writer, "MAX_WAITING", 0)
    return endpoint.fails("ResourcesService.PauseQueue", {})


@produces("STORE_UNAVAILABLE")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    patch.setattr(Reader, "floor", broken)
    return endpoint.fails("JobsService.WatchJobs", {"after": {"revision": 1}})


@produces("PATH_UNREACHABLE")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    config = endpoint.config()
    go = threading.Event()
    original: Any = draft_batcher.draft_all  # type: ignore[attr-defined]

    def slow(*arguments: Any, **rest: Any) -> Any:
        go.wait(20)
        return original(*arguments, **rest)

    patch.setattr(draft_batcher, "draft_all", slow)
    patch.setattr(draft_batcher, "DEADLINE_SECONDS", 0.05)
    try:
        return endpoint.fails("JobsService.SubmitJob", {"config": config})
    finally:
        go.set()


@produces("SCHEDULER_UNREACHABLE")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    patch.setattr(endpoint.service.scheduler, "silent_about", "partitions")
    return endpoint.fails("ClusterService.ListPartitions", {"scheduler": "slurm"})


@produces("DRAINING")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    async def stopping(*_: object) -> None:
        raise draining()

    patch.setattr(JobManager, "set_paused", stopping)
    return endpoint.fails("ResourcesService.PauseQueue", {})


@produces("NO_SAMPLE")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    latest = property(lambda _: None, lambda _, sample: None)
    patch.setattr("edbjobs_server.telemetry.host.HostSampler.latest", latest, raising=False)
    return endpoint.fails("ResourcesService.GetResources", {})


@produces("DEADLINE")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    job = endpoint.submit("deadline", hold=True)
    return endpoint.fails("JobsService.WaitJob", {"job": {"uid": job.uid}, "timeout": "30s"}, timeout=0.5)


@produces("INTERNAL")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    patch.setattr(JobManager, "queue", broken)
    return endpoint.fails("ResourcesService.GetQueue", {})


@produces("HOST_NOT_ALLOWED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    return _over_web(endpoint, {"Host": "evil.example"})


@produces("ORIGIN_NOT_ALLOWED")
def _(endpoint: Endpoint, patch: pytest.MonkeyPatch) -> Answer:
    return _over_web(endpoint, {"Origin": "http://evil.example"})


def _over_web(endpoint: Endpoint, headers: dict[str, str]) -> Answer:
    """Call through gRPC-Web."""
    url = urlsplit(endpoint.service.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    try:
        sent = {"Content-Type": "application/grpc-web+proto", **headers}
        connection.request("POST", "/edbjobs.v1.ResourcesService/GetQueue", bytes(5), sent)
        trailers = dict(
            line.split(":", 1) for line in connection.getresponse().read()[5:].decode().split("\r\n") if line
        )
    finally:
        connection.close()
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return _answer(codes[int(trailers["grpc-status"])], base64.b64decode(trailers["grpc-status-details-bin"]))


def test_every_reason_is_produced_or_belongs_to_what_is_not_served_yet() -> None:
    assert PRODUCED.keys() | LATER == set(get_args(ErrorReason))
    assert PRODUCED.keys().isdisjoint(LATER)


@pytest.mark.parametrize("reason", [reason for reason in get_args(ErrorReason) if reason not in LATER])
def test_a_reason_arrives_as_the_contract_promises(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    answer = PRODUCED[reason](endpoint, monkeypatch)
    promised: Documented = documented()[reason]
    assert (answer.reason, answer.code) == (reason, promised.code)
    keys = promised.metadata - ({"rpc"} if reason == "NOT_SERVED" else frozenset())
    assert answer.metadata.keys() == keys
    assert ("google.rpc.RetryInfo" in answer.details) is promised.has_retry_info
    assert ("google.rpc.BadRequest" in answer.details) >= promised.has_fields
