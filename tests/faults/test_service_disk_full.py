"""The state folder is full: submits fail clearly, what runs goes on, cancel works, and nothing acknowledged is lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import grpc
import pytest
from edbjobs._calls import job_ref
from edbjobs.v1 import cluster_service_pb2, job_config_pb2, job_pb2, job_state_pb2, jobs_messages_pb2
from edbjobs_server.solver.demo import example_project
from google.protobuf.duration_pb2 import Duration
from support.service import ServiceProcess

pb, S = jobs_messages_pb2, job_state_pb2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "edbjobs-test", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can be mounted only as root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def submit(service: ServiceProcess, folder: Path, name: str, demo: str, hold: bool = False) -> job_pb2.Job:
    place = folder / name
    place.mkdir()
    config = job_config_pb2.JobConfig(project_path=str(example_project(place)), environment={"ANS_EDBJOBS_DEMO": demo})
    request = pb.SubmitJobRequest(config=config, job_id=name, request_id=name, hold=hold)
    return service.jobs.SubmitJob(request, timeout=10).job


def get(service: ServiceProcess, name: str) -> job_pb2.Job:
    return service.jobs.GetJob(pb.GetJobRequest(job=job_ref(name)), timeout=10).job


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fill(place: Path) -> Path:
    """Leave no byte free."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    return filler


def submit_until_refused(service: ServiceProcess, folder: Path) -> tuple[list[str], grpc.Call]:
    """Submit until the disk is full: what was free inside the store's own pages is used up first."""
    acknowledged: list[str] = []
    while len(acknowledged) < 2000:
        name = f"more{len(acknowledged)}"
        try:
            submit(service, folder, name, "seconds=0.1")
        except grpc.RpcError as error:
            return acknowledged, cast("grpc.Call", error)
        acknowledged.append(name)
    raise AssertionError("the disk was never full")


def test_full_disk(small_disk: Path, tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, max_local_jobs=3, max_cores=8)
    service.state_dir = small_disk / "state"
    with service:
        short, long = submit(service, tmp_path, "short", "seconds=3"), submit(service, tmp_path, "long", "seconds=40")
        submit(service, tmp_path, "waiting", "seconds=0.2", hold=True)
        until(lambda: get(service, "long").progress.HasField("last_pass"))
        until(lambda: get(service, "short").progress.HasField("last_pass"))
        filler = fill(small_disk)
        acknowledged, error = submit_until_refused(service, tmp_path)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "state folder cannot be written" in (error.details() or "")
        status = service.cluster.GetSystemStatus(cluster_service_pb2.GetSystemStatusRequest(), timeout=10)
        assert status.store_unavailable
        assert any("cannot be written" in warning for warning in status.details.warnings)

        cancelled = service.jobs.CancelJob(
            pb.CancelJobRequest(job=job_ref("long"), grace_period=Duration(seconds=1)), timeout=10
        ).job
        pid = get(service, "long").attempts[-1].pid
        until(lambda: not Path(f"/proc/{pid}").exists())
        assert any("not on record yet" in warning for warning in cancelled.warnings)

        filler.unlink()
        until(lambda: get(service, "long").state == S.JOB_STATE_CANCELLED)
        until(lambda: get(service, "short").state == S.JOB_STATE_COMPLETED)
        assert {get(service, "short").uid, get(service, "long").uid} == {short.uid, long.uid}
        submit(service, tmp_path, "after", "seconds=0.1")
        service.jobs.ReleaseJob(pb.ReleaseJobRequest(job=job_ref("waiting")), timeout=10)
        for name in [*acknowledged, "after", "waiting"]:
            until(lambda name=name: get(service, name).state == S.JOB_STATE_COMPLETED, 60)  # type: ignore[misc]
