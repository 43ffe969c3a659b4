"""What made-up principals may do: through the manager, and at the interceptor of every endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from edbjobs.v1 import cluster_service_pb2, resource_pb2, resources_service_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.contract.errors import DETAILS_KEY
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.rpc import interceptors
from edbjobs_server.rpc.interceptors import CallInterceptor
from edbjobs_server.rpc.jobs import JobsServicer
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from support.manager_world import World

BOB, EVE, ADMIN = Principal("bob", Role.USER), Principal("eve", Role.VIEWER), Principal("root", Role.ADMIN)
ANN = Principal("ann's token", Role.USER, user="ann")


async def refused(call: Awaitable[Any]) -> dict[str, str]:
    with pytest.raises(Refused) as caught:
        await call
    assert caught.value.reason == "PERMISSION_DENIED"
    return caught.value.metadata


CHANGES: list[Callable[[World, JobRef, Principal], Awaitable[Any]]] = [
    lambda it, job, who: it.manager.cancel(job, who, None),
    lambda it, job, who: it.manager.hold(job, who),
    lambda it, job, who: it.manager.release(job, who),
    lambda it, job, who: it.manager.set_priority(job, 1, who),
    lambda it, job, who: it.manager.delete(job, who),
    lambda it, job, who: it.manager.retry(pb.RetryJobRequest(job=job), who),
]


async def test_only_its_user_and_administrators_change_a_job(it: World) -> None:
    ref = JobRef(uid=await it.submit("ann1", hold=True))
    await it.manager.release(ref, ANN)
    await it.manager.hold(ref, ADMIN)
    for change in CHANGES[:4]:
        assert await refused(change(it, ref, BOB)) == {"role": "ROLE_USER", "required_role": "ROLE_ADMIN"}
        assert (await refused(change(it, ref, EVE)))["role"] == "ROLE_VIEWER"
    assert (await it.get(ref.uid)).held
    await it.manager.cancel(ref, ANN, None)
    for change in CHANGES[4:]:
        await refused(change(it, ref, BOB))
    await it.manager.delete(ref, ANN)


async def test_submits_are_for_oneself(it: World) -> None:
    config = pb.SubmitJobRequest().config
    config.project_path = str(it.project("p"))
    own = await it.manager.submit(pb.SubmitJobRequest(config=config, hold=True), BOB)
    assert own.job.user == "bob"
    assert await refused(it.manager.submit(pb.SubmitJobRequest(config=config, user="ann"), BOB)) == {
        "role": "ROLE_USER",
        "required_role": "ROLE_ADMIN",
    }
    assert (await it.manager.submit(pb.SubmitJobRequest(config=config, user="ann", hold=True), ADMIN)).job.user == "ann"
    assert (await refused(it.manager.submit(pb.SubmitJobRequest(config=config), EVE)))["required_role"] == "ROLE_USER"


async def test_limits_and_queue_are_for_administrators(it: World) -> None:
    request = resources_service_pb2.UpdateLimitsRequest(limits=resource_pb2.Limits(max_cores=1))
    for change in (it.manager.update_limits(request, BOB), it.manager.set_paused(True, BOB)):
        assert (await refused(change))["required_role"] == "ROLE_ADMIN"
    assert not it.manager.limits().HasField("max_cores")
    assert not it.manager.queue().paused


async def test_details_of_the_service_are_for_administrators(it: World) -> None:
    status = it.manager.status(ADMIN)
    assert (status.caller.name, status.caller.role) == ("root", 3)
    assert (status.details.account, status.details.state_directory) == ("ann", str(it.folder / "state"))
    for who in (BOB, EVE):
        assert not it.manager.status(who).HasField("details")


async def test_values_of_the_environment_are_for_the_user_and_administrators(it: World) -> None:
    uid = await it.submit("env", hold=True, environment={"ANS_X": "secret"})
    servicer = JobsServicer(it.manager)  # type: ignore[abstract]  # without what is not served
    context: Any = None
    for who, value in ((ANN, "secret"), (ADMIN, "secret"), (BOB, ""), (EVE, "")):
        interceptors._PRINCIPAL.set(who)
        ref = JobRef(uid=uid)
        got = (await servicer.GetJob(pb.GetJobRequest(job=ref), context)).job
        (listed,) = (await servicer.ListJobs(pb.ListJobsRequest(view=2), context)).jobs  # type: ignore[arg-type]
        waited = (await servicer.WaitJob(pb.WaitJobRequest(job=ref, timeout=Duration()), context)).job
        assert [dict(job.config.environment) for job in (got, listed, waited)] == [{"ANS_X": value}] * 3


class Access:
    """An authenticator that knows one caller."""

    mtls = False

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def identify(self, *_: Any) -> Principal:
        return self._principal


@pytest.mark.parametrize(
    ("who", "method", "needed"),
    [
        (EVE, "ClusterService/GetSystemStatus", ""),
        (EVE, "JobsService/SubmitJob", "ROLE_USER"),
        (BOB, "ResourcesService/PauseQueue", "ROLE_ADMIN"),
        (ADMIN, "ResourcesService/PauseQueue", ""),
        (Principal("x", Role.UNKNOWN), "ClusterService/GetSystemStatus", "ROLE_VIEWER"),
    ],
)
async def test_the_interceptor_checks_the_role_of_every_call(who: Principal, method: str, needed: str) -> None:
    async def answer(request: Any, context: Any) -> Any:
        return cluster_service_pb2.GetSystemStatusResponse()

    service, name = method.split("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=cluster_service_pb2.GetSystemStatusRequest.FromString,
        response_serializer=cluster_service_pb2.GetSystemStatusResponse.SerializeToString,
    )
    server = grpc.aio.server(interceptors=[CallInterceptor(Access(who))])  # type: ignore[arg-type]
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(f"edbjobs.v1.{service}", {name: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(f"/edbjobs.v1.{method}")
            if not needed:
                await call(b"")
                return
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"")
    finally:
        await server.stop(None)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    details = dict(caught.value.trailing_metadata() or ())[DETAILS_KEY]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert dict(info.metadata)["required_role"] == needed
