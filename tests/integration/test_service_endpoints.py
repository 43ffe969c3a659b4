"""The real service's endpoints: authentication, reflection, health, and many calls at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from edbjobs.v1 import (
    job_config_pb2,
    jobs_messages_pb2,
    jobs_service_pb2_grpc,
    resources_service_pb2,
    resources_service_pb2_grpc,
)
from edbjobs_server.solver.demo import example_project
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support.service import ServiceProcess

NOBODY = 65534
BURST = 3000
LOCAL = [("grpc.use_local_subchannel_pool", 1)]

# Imports all modules as root, changes to the account, then calls: files may be closed to that account.
FOREIGN = """
import os, sys
import grpc
from edbjobs.v1 import cluster_service_pb2 as pb, cluster_service_pb2_grpc as stubs, jobs_messages_pb2
from edbjobs.v1 import jobs_service_pb2_grpc
uid, target, token = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
metadata = [("authorization", f"Bearer {token}")] if token else []
with grpc.insecure_channel(target) as channel:
    calls = [
        lambda: stubs.ClusterServiceStub(channel).GetSystemStatus(
            pb.GetSystemStatusRequest(), timeout=30, metadata=metadata),
        lambda: next(jobs_service_pb2_grpc.JobsServiceStub(channel).WatchJobs(
            jobs_messages_pb2.WatchJobsRequest(from_oldest=True), timeout=30, metadata=metadata)),
    ]
    for call in calls:
        try:
            call()
            print("OK")
        except grpc.RpcError as error:
            print(error.code().name)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service whose Unix socket is in an open folder: only the socket's mode denies access."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        with ServiceProcess(tmp_path_factory.mktemp("service"), uds=f"{name}/edbjobs.sock") as running:
            yield running


def foreign(target: str, token: str = "") -> list[str]:
    """Call as another account; return the results of a unary call and a stream."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root, to take on another account")
    command = [sys.executable, "-c", FOREIGN, str(NOBODY), target, token]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.split()


@pytest.mark.needs_root
def test_another_account_is_refused_without_the_token(service: ServiceProcess) -> None:
    tcp = service.endpoint["grpc"]
    assert foreign(tcp) == ["UNAUTHENTICATED", "UNAUTHENTICATED"]
    assert foreign(tcp, "x" * 43) == ["UNAUTHENTICATED", "UNAUTHENTICATED"]
    assert foreign(f"unix:{service.endpoint['uds']}") == ["UNAVAILABLE", "UNAVAILABLE"]


@pytest.mark.needs_root
def test_the_token_authenticates_another_account(service: ServiceProcess) -> None:
    token = Path(service.endpoint["token_file"]).read_text().strip()
    assert foreign(service.endpoint["grpc"], token) == ["OK", "OK"]


def test_reflection_lists_the_services(service: ServiceProcess) -> None:
    with grpc.insecure_channel(service.target, options=LOCAL) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert {"edbjobs.v1.JobsService", "edbjobs.v1.ResourcesService", "edbjobs.v1.ClusterService"} <= services
        assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= services
        jobs = DescriptorPool(database).FindServiceByName("edbjobs.v1.JobsService")
        assert {"SubmitJob", "WatchJobs", "ReadLog"} <= {method.name for method in jobs.methods}


def test_health_of_each_service(service: ServiceProcess) -> None:
    with grpc.insecure_channel(service.target, options=LOCAL) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "edbjobs.v1.JobsService", "edbjobs.v1.ResourcesService", "edbjobs.v1.ClusterService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="edbjobs.v1.Nothing"), timeout=10)
        assert isinstance(unknown.value, grpc.Call)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_every_call_of_a_burst_is_served(service: ServiceProcess) -> None:
    """gRPC's defaults would fail part of it with CANCELLED or RESOURCE_EXHAUSTED."""
    project = str(example_project(service.folder / "burst"))
    async with grpc.aio.insecure_channel(service.target, options=LOCAL) as channel:
        jobs: Any = jobs_service_pb2_grpc.JobsServiceStub(channel)
        resources: Any = resources_service_pb2_grpc.ResourcesServiceStub(channel)

        def call(number: int) -> Any:
            if number % 3:
                return resources.GetQueue(resources_service_pb2.GetQueueRequest(), timeout=100)
            request = jobs_messages_pb2.SubmitJobRequest(
                job_id=f"burst-{number}", hold=True, config=job_config_pb2.JobConfig(project_path=project)
            )
            return jobs.SubmitJob(request, timeout=100)

        async def outcome(number: int) -> str:
            try:
                await call(number)
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name} {error.details()}"
            return "OK"

        outcomes = Counter(await asyncio.gather(*(outcome(number) for number in range(BURST))))
        assert outcomes == {"OK": BURST}
        page = await jobs.ListJobs(jobs_messages_pb2.ListJobsRequest(page_size=1), timeout=30)
        assert page.total_size == BURST // 3
