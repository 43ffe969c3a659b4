"""gRPC-Web on the real service: answers equal those of gRPC, and malformed or foreign requests are refused."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from edbjobs._calls import job_ref
from edbjobs.v1 import cluster_service_pb2 as cluster_pb
from edbjobs.v1 import event_pb2, principal_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1 import resources_service_pb2 as resources_pb
from edbjobs_server.contract.request_check import MAX_REQUEST_BYTES
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2
from support.grpcweb import BINARY, TEXT, Answer, Web, framed, frames_of, trailers_of
from support.web import WebService, job_config

JOBS = "/edbjobs.v1.JobsService/"
ALLOWED_ORIGIN = "http://viewer.example.com:5173"
CODES = {code.value[0]: code for code in grpc.StatusCode}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("grpcweb"), cors_origins=[ALLOWED_ORIGIN], log_level="debug") as running:
        yield running


@pytest.fixture(params=[BINARY, TEXT], ids=["binary", "text"])
async def web(service: WebService, request: pytest.FixtureRequest) -> AsyncIterator[Web]:
    async with aiohttp.ClientSession() as session:
        yield Web(session, service.url, request.param)


@asynccontextmanager
async def calling(service: WebService, **session: Any) -> AsyncIterator[Web]:
    async with aiohttp.ClientSession(**session) as opened:
        yield Web(opened, service.url)


async def submit(web: Web, folder: Path, seconds: float = 0.1, **more: Any) -> Any:
    config = job_config(folder, seconds)
    request = pb.SubmitJobRequest(**more)
    request.config.project_path = config["project_path"]
    request.config.environment.update(config["environment"])
    answer = await web.call(JOBS + "SubmitJob", request)
    assert answer.code == 0, answer.text
    return pb.SubmitJobResponse.FromString(answer.messages[0]).job


async def test_a_job_from_submit_to_its_log(web: Web, tmp_path: Path) -> None:
    job = await submit(web, tmp_path, job_id=f"w-{'text' in web.kind}")
    wait = await web.call(JOBS + "WaitJob", pb.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=20)))
    assert pb.WaitJobResponse.FromString(wait.messages[0]).job.HasField("end_time")
    assert wait.http == 200
    assert wait.headers["content-type"] == web.kind
    watch = pb.WatchJobsRequest(from_oldest=True, filter=pb.JobFilter(jobs=[job_ref(job.uid)]))
    async with web.post(JOBS + "WatchJobs", framed(watch.SerializeToString())) as response:
        async for _, message in frames_of(response.content.iter_any(), "text" in web.kind):
            answer = pb.WatchJobsResponse.FromString(message)
            if answer.caught_up:
                break
    tail = await web.call(JOBS + "ReadLog", pb.ReadLogRequest(job=job_ref(job.uid), stream=pb.LOG_STREAM_SOLVER))
    assert tail.code == 0
    assert pb.ReadLogResponse.FromString(tail.messages[-1]).eof


# As gRPC answers ---------------------------------------------------------------------------------------------

SAME = [
    ("JobsService/GetJob", pb.GetJobRequest(job=job_ref("nobody-ü"))),
    ("JobsService/SubmitJob", pb.SubmitJobRequest()),
    ("JobsService/ListJobs", pb.ListJobsRequest(page_token="x")),
    ("JobsService/CancelJobs", pb.CancelJobsRequest()),
    ("JobsService/WatchJobs", pb.WatchJobsRequest(after=event_pb2.Position(revision=10**12))),
    ("JobsService/WatchJobs", pb.WatchJobsRequest(after=event_pb2.Position(store_id="other"))),
    ("JobsService/ReadLog", pb.ReadLogRequest(job=job_ref("nobody"))),
    ("ResourcesService/UpdateLimits", resources_pb.UpdateLimitsRequest()),
    ("ResourcesService/GetLimits", resources_pb.GetLimitsRequest()),
    ("ClusterService/ListSolvers", cluster_pb.ListSolversRequest()),
    ("ClusterService/ListPartitions", cluster_pb.ListPartitionsRequest()),
]


def native(service: WebService, path: str, request: bytes) -> tuple[int, str, list[bytes], bytes]:
    """Call through gRPC; return code, text, messages and details."""
    assert service.channel is not None
    make: Any = service.channel.unary_stream(path)
    call = make(request)
    messages = []
    with suppress(grpc.RpcError):
        messages.extend(call)
    trailers = dict(call.trailing_metadata() or ())
    return call.code().value[0], call.details() or "", messages, trailers.get("grpc-status-details-bin", b"")


@pytest.mark.parametrize(("path", "request_"), SAME, ids=lambda value: value if isinstance(value, str) else "")
async def test_calls_are_answered_as_through_grpc(service: WebService, web: Web, path: str, request_: Any) -> None:
    path = f"/edbjobs.v1.{path}"
    answer = await web.call(path, request_)
    code, text, messages, details = native(service, path, request_.SerializeToString())
    found = base64.b64decode(answer.trailers.get("grpc-status-details-bin", ""))
    assert (answer.code, answer.text, answer.messages, found) == (code, text, messages, details)


async def test_health_is_served_and_reflection_is_not(web: Web) -> None:
    found = await web.call(
        "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="edbjobs.v1.JobsService")
    )
    assert health_pb2.HealthCheckResponse.FromString(found.messages[0]).status == health_pb2.HealthCheckResponse.SERVING
    unknown = await web.call("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="x"))
    assert CODES[unknown.code] is grpc.StatusCode.NOT_FOUND
    reflection = await web.call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", framed(b""))
    assert reflection.http == 404


# Malformed requests ------------------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, dict[str, str], grpc.StatusCode]] = {
    "nothing": (b"", {}, grpc.StatusCode.INVALID_ARGUMENT),
    "half a head": (b"\0\0", {}, grpc.StatusCode.INVALID_ARGUMENT),
    "half a message": (framed(b"\x0a\x01x")[:-1], {}, grpc.StatusCode.INVALID_ARGUMENT),
    "two messages": (framed(b"") * 2, {}, grpc.StatusCode.INVALID_ARGUMENT),
    "no protobuf": (framed(b"\xff\xff\xff"), {}, grpc.StatusCode.INVALID_ARGUMENT),
    "compressed": (framed(b"", flags=1), {}, grpc.StatusCode.UNIMPLEMENTED),
    "trailers": (framed(b"", flags=0x80), {}, grpc.StatusCode.INVALID_ARGUMENT),
    "timeout": (framed(b""), {"grpc_timeout": "soon"}, grpc.StatusCode.INVALID_ARGUMENT),
    "timeout unit": (framed(b""), {"grpc_timeout": "5"}, grpc.StatusCode.INVALID_ARGUMENT),
    "metadata": (framed(b""), {"x_bin": "%"}, grpc.StatusCode.INVALID_ARGUMENT),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_malformed_request_is_refused_as_grpc_web(web: Web, name: str) -> None:
    body, headers, code = BAD[name]
    answer = await web.call(JOBS + "ListJobs", body, **headers)
    assert (answer.http, CODES[answer.code], answer.messages) == (200, code, [])
    assert answer.reason in ("INVALID_REQUEST", "NOT_SERVED")


async def test_base64_may_come_in_pieces_and_must_be_base64(service: WebService) -> None:
    async with calling(service) as web:
        url, kind = service.url + JOBS + "ListJobs", {"content-type": TEXT}
        pieces = base64.b64encode(b"\0") + base64.b64encode(b"\0\0\0\0")
        async with web.session.post(url, data=pieces, headers=kind) as response:
            blocks = [block async for _, block in frames_of(response.content.iter_any(), text=True)]
        assert trailers_of(blocks[-1])["grpc-status"] == "0"
        async with web.session.post(url, data=b"{}", headers=kind) as response:
            blocks = [block async for _, block in frames_of(response.content.iter_any(), text=True)]
        assert trailers_of(blocks[-1])["grpc-status"] == "3"


async def test_an_unknown_call_is_unimplemented(web: Web) -> None:
    answer = await web.call(JOBS + "NoSuchCall", framed(b""))
    assert (CODES[answer.code], answer.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED")
    assert answer.metadata == {"rpc": "JobsService.NoSuchCall"}


@pytest.mark.parametrize(
    ("method", "kind", "status", "reason"),
    [("GET", BINARY, 405, "METHOD_NOT_ALLOWED"), ("POST", "application/json", 415, "NOT_GRPC_WEB")],
)
async def test_a_request_that_is_no_call_is_refused_in_json(
    service: WebService, method: str, kind: str, status: int, reason: str
) -> None:
    async with calling(service) as web:
        answer = await web.session.request(method, service.url + JOBS + "ListJobs", headers={"content-type": kind})
        if kind == BINARY:  # a request of this content type is answered as gRPC-Web
            blocks = [block async for _, block in frames_of(answer.content.iter_any(), text=False)]
            assert trailers_of(blocks[0])["grpc-status"] == "3"
            return
        assert answer.status == status
        assert (await answer.json())["reason"] == reason


async def test_a_request_has_a_bound(service: WebService) -> None:
    async with calling(service) as web:
        answer = await web.call(JOBS + "ListJobs", framed(bytes(17 * 2**20)))
        assert (answer.reason, answer.metadata) == ("TOO_LARGE", {"limit_bytes": str(MAX_REQUEST_BYTES)})
        # The limit is larger than that of the JSON routes, as through gRPC.
        large = pb.SubmitJobsRequest(requests=[pb.SubmitJobRequest(user="u" * 1000)] * 900 * 6)
        assert len(large.SerializeToString()) > 5 * 2**20
        assert (await web.call(JOBS + "SubmitJobs", large)).reason == "TOO_MANY_ITEMS"


# Deadlines and disconnects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["WaitJob", "ReadLog"])
async def test_a_deadline_ends_a_call(web: Web, tmp_path: Path, path: str) -> None:
    job = await submit(web, tmp_path, 30.0)
    requests = {
        "WaitJob": pb.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=20)),
        "ReadLog": pb.ReadLogRequest(job=job_ref(job.uid), follow=True),
    }
    started = time.monotonic()
    answer = await web.call(JOBS + path, requests[path], grpc_timeout="300m")
    assert (CODES[answer.code], answer.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")
    assert 0.2 <= time.monotonic() - started < 5
    await web.call(JOBS + "CancelJob", pb.CancelJobRequest(job=job_ref(job.uid)))


async def test_a_stream_sends_each_message_at_once(service: WebService) -> None:
    async with calling(service) as web:
        request = resources_pb.WatchResourcesRequest(interval=Duration(seconds=1))
        started = time.monotonic()
        async with web.post(
            "/edbjobs.v1.ResourcesService/WatchResources", framed(request.SerializeToString())
        ) as response:
            times = []
            async for _ in frames_of(response.content.iter_any(), text=False):
                times.append(time.monotonic() - started)
                if len(times) == 2:
                    break
        assert times[0] < 0.5
        assert 0.9 < times[1] < 3


async def test_a_call_is_cancelled_when_its_client_disconnects(service: WebService, tmp_path: Path) -> None:
    async with calling(service) as web:
        job = await submit(web, tmp_path, 30.0, hold=True)
        calls = {
            "WatchJobs": pb.WatchJobsRequest(filter=pb.JobFilter(jobs=[job_ref(job.uid)])),
            "WaitJob": pb.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=60)),
        }
        for path, request in calls.items():
            before = logged(service, path, "CANCELLED")
            running = asyncio.ensure_future(web.call(JOBS + path, request, x_test="1"))
            await asyncio.sleep(0.2)  # the call must have started; nothing reports when
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            end = time.monotonic() + 5
            while logged(service, path, "CANCELLED") == before:
                assert time.monotonic() < end, "the call was not cancelled"
                await asyncio.sleep(0.02)
        await web.call(JOBS + "CancelJob", pb.CancelJobRequest(job=job_ref(job.uid)))


def logged(service: WebService, path: str, code: str) -> int:
    lines = (service.state_dir / "edbjobs.log").read_text().splitlines()
    return sum(path in line and code in line for line in lines)


async def test_a_stop_ends_a_watch_with_unavailable(tmp_path: Path) -> None:
    with WebService(tmp_path) as service:
        async with calling(service) as web:
            running = asyncio.ensure_future(web.call(JOBS + "WatchJobs", pb.WatchJobsRequest()))
            await web.call(JOBS + "ListJobs", pb.ListJobsRequest())
            await asyncio.to_thread(service.stop)
            answer = await asyncio.wait_for(running, 20)
            assert (CODES[answer.code], answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


# Authentication ----------------------------------------------------------------------------------------------


async def whoami(web: Web, **headers: str) -> Answer:
    return await web.call("/edbjobs.v1.ClusterService/GetSystemStatus", cluster_pb.GetSystemStatusRequest(), **headers)


def authentication(answer: Answer) -> int:
    return cluster_pb.GetSystemStatusResponse.FromString(answer.messages[0]).caller.authentication


async def test_token_session_and_socket_authenticate(service: WebService) -> None:
    async with calling(service) as web:
        assert authentication(await whoami(web)) == principal_pb2.AUTHENTICATION_LOOPBACK
        assert (
            authentication(await whoami(web, authorization=f"Bearer {service.token}"))
            == principal_pb2.AUTHENTICATION_TOKEN
        )
        wrong = await whoami(web, authorization="Bearer wrong")
        assert (CODES[wrong.code], wrong.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    async with calling(service, cookie_jar=aiohttp.CookieJar(unsafe=True)) as web:
        await web.session.get(f"{service.url}/?token={service.token}")
        assert authentication(await whoami(web)) == principal_pb2.AUTHENTICATION_TOKEN


async def test_behind_a_proxy_the_token_is_needed(service: WebService) -> None:
    async with calling(service) as web:
        refused = await whoami(web, x_forwarded_for="10.1.2.3")
        assert (refused.http, refused.reason) == (200, "UNAUTHENTICATED")


async def test_other_names_and_other_pages_are_refused(service: WebService) -> None:
    async with calling(service) as web:
        assert (await whoami(web, host="evil.example.com")).reason == "HOST_NOT_ALLOWED"
        refused = await whoami(web, origin="http://evil.example.com", authorization=f"Bearer {service.token}")
        assert refused.reason == "ORIGIN_NOT_ALLOWED"
        assert "Access-Control-Allow-Origin" not in refused.headers


async def test_a_page_of_an_allowed_origin_needs_the_token(service: WebService) -> None:
    async with calling(service) as web:
        refused = await whoami(web, origin=ALLOWED_ORIGIN)
        assert refused.reason == "UNAUTHENTICATED"
        assert (
            refused.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN
        )  # else the page could not read the error
        found = await whoami(web, origin=ALLOWED_ORIGIN, authorization=f"Bearer {service.token}")
        assert (found.code, found.headers["Access-Control-Allow-Origin"]) == (0, ALLOWED_ORIGIN)
        assert found.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in found.headers


async def test_a_page_of_an_allowed_origin_may_use_only_grpc_web(service: WebService) -> None:
    async with calling(service) as web:
        headers = {"origin": ALLOWED_ORIGIN, "authorization": f"Bearer {service.token}"}
        async with web.session.get(f"{service.url}/jobs", headers=headers) as response:
            assert response.status == 403


@pytest.mark.parametrize(("origin", "status"), [(ALLOWED_ORIGIN, 204), ("http://evil.example.com", 403)])
async def test_a_preflight_of_an_allowed_origin_is_answered(service: WebService, origin: str, status: int) -> None:
    async with calling(service) as web:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        async with web.session.options(service.url + JOBS + "ListJobs", headers=headers) as response:
            assert response.status == status
            allowed = response.headers.get("Access-Control-Allow-Headers", "")
            assert ("authorization" in allowed) == (status == 204)


async def test_refusals_are_counted_and_answers_have_the_headers(service: WebService) -> None:
    async with calling(service) as web:
        answer = await whoami(web)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        await whoami(web, authorization="Bearer wrong")
        async with web.session.get(f"{service.url}/metrics") as response:
            assert 'edbjobs_http_errors_total{reason="UNAUTHENTICATED"}' in await response.text()
