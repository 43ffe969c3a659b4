"""What a site lays down for its clusters holds in the whole service: policy, templates, shared folders."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from edbjobs.v1 import cluster_service_pb2, job_config_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs_server.solver.demo.examples import example_project
from google.rpc import error_details_pb2, status_pb2
from support.fake_pbs import FakePbs
from support.service import ServiceProcess

POLICY = """
login_nodes = ["*"]
partitions = ["workq"]
setup = ["module load ansys-em/2025R2"]
"""
PBS = "pbs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("templates", "shared", "projects"):
        (tmp_path / name).mkdir()
    (tmp_path / "site.toml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def fake(folder: Path) -> Iterator[FakePbs]:
    made = FakePbs(folder / "fake")
    yield made
    made.stop()


def make(folder: Path, fake: FakePbs, **settings: Any) -> ServiceProcess:
    service = ServiceProcess(folder, scheduler="pbs", templates_dir=str(folder / "templates"), **settings)
    service.environment.update(fake.env)
    service.prelude = (
        "from pathlib import Path; from edbjobs_server.config import site_policy\n"
        "from edbjobs_server.service import app\n"
        f"app.load_site_policy = lambda: site_policy.load_site_policy(Path({str(folder / 'site.toml')!r}))"
    )
    return service


@pytest.fixture
def service(folder: Path, fake: FakePbs) -> Iterator[ServiceProcess]:
    shared = {"shared_dir": str(folder / "shared"), "shared_roots": [str(folder / "projects")]}
    with make(folder, fake, **shared) as running:
        answers(running)
        yield running


def answers(service: ServiceProcess) -> None:
    """Wait until the scheduler has answered."""
    end = time.monotonic() + 30
    request = cluster_service_pb2.GetSystemStatusRequest()
    while not all(item.responding for item in service.cluster.GetSystemStatus(request).schedulers):
        assert time.monotonic() < end, "the scheduler does not answer"
        time.sleep(0.02)


def submit(place: Path, scheduler: str = PBS, **options: Any) -> pb.SubmitJobRequest:
    config = job_config_pb2.JobConfig(
        project_path=str(example_project(place)),
        scheduler=scheduler,
        scheduler_options=job_config_pb2.SchedulerOptions(**options),
    )
    return pb.SubmitJobRequest(config=config)


def refusal(error: grpc.RpcError) -> str:
    """Give the reason of a refusal."""
    metadata: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(info)
    return str(info.reason)


def refused(service: ServiceProcess, request: pb.SubmitJobRequest) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        service.jobs.SubmitJob(request)
    assert not service.jobs.ListJobs(pb.ListJobsRequest()).jobs
    return refusal(caught.value)


def test_nothing_is_solved_on_a_login_node(service: ServiceProcess, folder: Path) -> None:
    request = submit(folder / "projects", "local")
    assert refused(service, request) == "LOCAL_NOT_ALLOWED"


def test_a_partition_that_the_policy_does_not_name_is_refused(service: ServiceProcess, folder: Path) -> None:
    assert refused(service, submit(folder / "projects", partition="other")) == "INVALID_JOB"


def test_a_project_that_the_nodes_do_not_see_is_refused(service: ServiceProcess, folder: Path) -> None:
    assert refused(service, submit(folder / "elsewhere")) == "PROJECT_NOT_SHARED"


def test_without_a_shared_folder_nothing_goes_to_the_cluster(folder: Path, fake: FakePbs) -> None:
    with make(folder, fake) as service:
        assert refused(service, submit(folder / "projects")) == "NO_SHARED_DIR"


def test_the_sites_lines_and_templates_are_used(service: ServiceProcess, folder: Path) -> None:
    request = pb.PreviewJobRequest(request=submit(folder / "projects"))
    assert "\nmodule load ansys-em/2025R2\n" in service.jobs.PreviewJob(request).script
    template = folder / "templates" / "pbs.sh.j2"
    template.write_text("#!/bin/sh\n# of this site: {{ allocation.name }}\n")
    assert "# of this site: edb-" in service.jobs.PreviewJob(request).script
    template.write_text("#!/bin/sh\n{{ nosuch }}\n")
    with pytest.raises(grpc.RpcError, match=r"pbs\.sh\.j2") as caught:
        service.jobs.PreviewJob(request)
    assert refusal(caught.value) == "INVALID_TEMPLATE"


def test_the_scheduler_is_not_asked_more_often_than_the_policy_allows(folder: Path, fake: FakePbs) -> None:
    """Neither by a setting nor in the hurry after a submit."""
    (folder / "site.toml").write_text("min_poll_seconds = 3")
    shared = {"shared_dir": str(folder / "shared"), "shared_roots": [str(folder / "projects")]}
    with make(folder, fake, cluster_poll_seconds=1, **shared) as service:
        request = submit(folder / "projects")
        request.config.environment["ANS_EDBJOBS_DEMO"] = "seconds=600"
        service.jobs.SubmitJob(request)
        end = time.monotonic() + 60
        while len(polls := [call["time"] for call in fake.calls("qstat", "-f")]) < 4:
            assert time.monotonic() < end, f"asked {len(polls)} times"
            time.sleep(0.1)
    gaps = [later - sooner for sooner, later in itertools.pairwise(polls)]
    assert min(gaps) > 2.5, gaps  # a command takes a while until it notes its time
