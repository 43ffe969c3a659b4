"""What SLURM refuses, what it takes but will never run, and what it lets wait: said in its words, on the true SLURM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import cluster_service_pb2, event_pb2
from support.slurm_cluster import SlurmCluster
from support.slurm_service import LONG, SlurmService, end, eventually, state

pytestmark = pytest.mark.system

REFUSED = ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmService]:
    folder = tmp_path_factory.mktemp("waiting")
    with (
        SlurmCluster(folder / "slurm", extra_conf="KillWait=2") as cluster,
        SlurmService(folder / "service", cluster) as running,
    ):
        yield running


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "nosuch"}, "invalid partition"),
        ({"memory_bytes_per_node": 999 << 30}, "Memory specification"),
        ({"constraint": "nosuch"}, "Invalid feature"),
        ({"licenses": {"hfss": 3}}, "Invalid license"),
        ({"gpus_per_node": 1}, "Invalid generic resource"),
        ({"include_nodes": ["n99"]}, "Invalid node name"),
        ({"reservation": "nosuch"}, "reservation"),
    ],
    ids=["partition", "memory", "constraint", "license", "gpu", "node", "reservation"],
)
def test_a_refused_submit(service: SlurmService, options: dict[str, Any], words: str) -> None:
    job = service.ended(service.submit(**options))
    assert end(job) == REFUSED
    assert words in job.outcome.message
    assert service.story(job) == ["QUEUED", "STARTING", "FAILED"]
    assert not job.scheduler_job_id
    assert not job.HasField("start_time")
    assert all(line.endswith("FAILED") for line in service.slurm_jobs(job))  # as `--mem=999G` leaves one


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "short", "time_limit": {"seconds": 3600}}, "time limit"),
        ({"partition": "short", "nodes": 2}, "nodes"),
        ({"partition": "closed"}, "down"),
        ({"nodes": 99}, "cannot give"),
        ({"cores_per_node": 99}, "cannot give"),
    ],
    ids=["MaxTime", "MaxNodes", "partition down", "too many nodes", "too many cores"],
)
def test_what_is_taken_but_can_never_run(service: SlurmService, options: dict[str, Any], words: str) -> None:
    job = service.submit(**options)
    eventually("SLURM has judged it", lambda: service.job(job), lambda now: state(now) in ("SCHEDULED", "FAILED"))
    if end(service.job(job)) == REFUSED:
        pytest.fail(f"refused: {service.job(job).outcome.message}")
    service.waits(job, "NEVER_RUNNABLE", words)
    service.cancel(job)
    job = service.ended(job)
    assert end(job) == ("CANCELLED", "CANCELLED", "SERVICE")
    # SLURM may find a second reason: each is told once.
    notes = [event.message for event in service.history(job) if event.job_change.type == event_pb2.JOB_CHANGE_TYPE_NOTE]
    assert len(set(notes)) == len(notes)
    assert words in notes[-1]
    assert service.story(job) == [
        "QUEUED",
        "STARTING",
        "SCHEDULED",
        *["NOTE"] * len(notes),
        "CANCEL_REQUESTED",
        "CANCELLED",
    ]


def test_held_and_released(service: SlurmService) -> None:
    job = service.scheduled(service.submit(begin="now+1hour"))
    number = service.job(job).scheduler_job_id
    service.slurm.run("scontrol", "hold", number)
    service.waits(job, "NEVER_RUNNABLE", "release")
    service.slurm.run("scontrol", "release", number)
    service.waits(job, "SCHEDULER_PENDING")
    service.slurm.run("scontrol", "update", f"jobid={number}", "starttime=now")
    assert end(service.ended(job)) == ("COMPLETED", "NORMAL", "SOLVER_LOG")


def test_a_partition_that_is_opened(service: SlurmService) -> None:
    job = service.submit(partition="closed")
    service.waits(job, "NEVER_RUNNABLE", "down")
    service.slurm.run("scontrol", "update", "partitionname=closed", "state=up")
    try:
        assert end(service.ended(job)) == ("COMPLETED", "NORMAL", "SOLVER_LOG")
    finally:
        service.slurm.run("scontrol", "update", "partitionname=closed", "state=down")


def test_no_node_is_free(service: SlurmService) -> None:
    first = service.running(service.submit(LONG, nodes=4, exclusive=True))
    second = service.submit()
    service.waits(second, "SCHEDULER_PENDING", "Resources")
    service.cancel(first)
    assert end(service.ended(second)) == ("COMPLETED", "NORMAL", "SOLVER_LOG")


def test_a_suspended_job_runs(service: SlurmService) -> None:
    job = service.running(service.submit("seconds=5"))
    service.slurm.run("scontrol", "suspend", job.scheduler_job_id)
    eventually("SLURM has it suspended", lambda: service.slurm_jobs(job), lambda seen: "SUSPENDED" in seen[0])
    assert state(service.job(job)) == "RUNNING"
    service.slurm.run("scontrol", "resume", job.scheduler_job_id)
    assert end(service.ended(job)) == ("COMPLETED", "NORMAL", "SOLVER_LOG")


def test_other_accounts_jobs_are_seen_and_are_not_ours(service: SlurmService, tmp_path: Path) -> None:
    """Not even one that bears the name of a run of ours."""
    job = service.running(service.submit("seconds=5"))
    name = service.slurm.run("squeue", "-h", "-j", job.scheduler_job_id, "-o", "%j")
    foreign = ("sbatch", "--parsable", "--uid=65534", "--gid=65534", "-D/tmp", "-o/dev/null", f"--job-name={name}")
    other = service.slurm.run(*foreign, "--begin=now+1hour", "--wrap=true")
    mine = ours(service)
    assert mine[job.scheduler_job_id] == (job.uid, "root")
    assert mine[other] == ("", "nobody")
    assert end(service.ended(job)) == ("COMPLETED", "NORMAL", "SOLVER_LOG")
    assert service.story(job).count("SCHEDULED") == 1
    assert service.slurm.run("squeue", "-h", "-j", other, "-o", "%T") == "PENDING"
    service.slurm.run("scancel", other)


def ours(service: SlurmService) -> dict[str, tuple[str, str]]:
    """Uid and user of each job on the cluster."""
    found = service.cluster.ListClusterJobs(cluster_service_pb2.ListClusterJobsRequest(), timeout=10).jobs
    return {job.scheduler_job_id: (job.job_uid, job.user) for job in found}
