"""Both endpoints refuse what this release does not know or does not serve, for every RPC of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import grpc
import pytest
from edbjobs.v1 import cluster_service_pb2, jobs_service_pb2, resources_service_pb2
from edbjobs_server.contract import unserved
from edbjobs_server.contract.request_check import MAX_REQUEST_BYTES
from google.rpc import error_details_pb2, status_pb2
from support.grpcweb import Web, framed
from support.web import WebService

FILES = (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
RPCS = [
    f"{service.name}.{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
UNKNOWN_FIELD = b"\xc0\xb8\x02\x00"  # field 5000, a varint
LOCAL = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]


class Answer(NamedTuple):
    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("refusals")) as running:
        yield running


def path_of(rpc: str) -> str:
    return "/edbjobs.v1." + rpc.replace(".", "/")


def native(service: WebService, path: str, request: bytes) -> Answer:
    with grpc.insecure_channel(service.target, options=LOCAL) as channel:
        make: Any = channel.unary_stream(path)
        call = make(request, timeout=20)
        with pytest.raises(grpc.RpcError):
            list(call)
        trailers = dict(call.trailing_metadata() or ())
    info = error_details_pb2.ErrorInfo()
    if "grpc-status-details-bin" in trailers:
        status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
    return Answer(call.code(), info.reason, dict(info.metadata))


async def over_web(service: WebService, path: str, request: bytes) -> Answer:
    async with aiohttp.ClientSession() as session:
        answer = await Web(session, service.url).call(path, framed(request))
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return Answer(codes[answer.code], answer.reason, answer.metadata)


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_field_that_is_not_known_is_refused_by_every_rpc(service: WebService, rpc: str) -> None:
    metadata = {"rpc": rpc} if rpc in unserved.RPCS else {"field": "5000"}
    expected = Answer(grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED", metadata)
    assert native(service, path_of(rpc), UNKNOWN_FIELD) == expected
    assert await over_web(service, path_of(rpc), UNKNOWN_FIELD) == expected


@pytest.mark.parametrize("rpc", [*sorted(unserved.RPCS.intersection(RPCS)), "JobsService.NoSuchCall"])
async def test_a_call_that_is_not_served_is_refused_by_name(service: WebService, rpc: str) -> None:
    expected = Answer(grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED", {"rpc": rpc})
    assert native(service, path_of(rpc), b"") == expected
    assert await over_web(service, path_of(rpc), b"") == expected


async def test_a_service_that_is_not_known_is_refused_by_name(service: WebService) -> None:
    answer = native(service, "/edbjobs.v1.Jobs/SubmitJob", b"")
    assert answer == Answer(grpc.StatusCode.UNIMPLEMENTED, "NOT_SERVED", {"rpc": "Jobs.SubmitJob"})
    assert native(service, "/other.Service/Call", b"").code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_above_the_limit_is_refused_with_it(service: WebService) -> None:
    path, large = path_of("JobsService.ListJobs"), bytes(MAX_REQUEST_BYTES + 1)
    expected = Answer(grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE", {"limit_bytes": str(MAX_REQUEST_BYTES)})
    assert native(service, path, large) == expected
    assert await over_web(service, path, large) == expected
    # gRPC itself refuses what is far larger, and knows no reason.
    assert native(service, path, bytes(3 * MAX_REQUEST_BYTES)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_is_no_message_is_refused(service: WebService) -> None:
    expected = Answer(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {})
    assert native(service, path_of("JobsService.ListJobs"), b"\xff") == expected
    assert await over_web(service, path_of("JobsService.ListJobs"), b"\xff") == expected
