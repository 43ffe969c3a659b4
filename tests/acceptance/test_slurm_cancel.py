"""A cancel ends a job on SLURM whatever stage it is at, with force where it must, and runs nothing afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from edbjobs.v1 import jobs_messages_pb2
from support.slurm_cluster import SlurmCluster
from support.slurm_service import CANCELLED, LONG, TO_STARTED, UNSTARTED, SlurmService, alive, end, eventually, state

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), extra_conf="KillWait=3") as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, cluster: SlurmCluster) -> Iterator[SlurmService]:
    with SlurmService(tmp_path_factory.mktemp("service"), cluster) as running:
        yield running


def test_while_it_waits(service: SlurmService) -> None:
    job = service.scheduled(service.submit(begin="now+1hour"))
    service.cancel(job)
    job = service.ended(job)
    assert end(job) == UNSTARTED
    assert "before it started" in job.outcome.message
    assert service.story(job) == ["QUEUED", "STARTING", "SCHEDULED", "CANCEL_REQUESTED", "CANCELLED"]
    assert service.slurm_jobs(job) == [f"{job.scheduler_job_id} CANCELLED"]


def test_while_it_runs(service: SlurmService) -> None:
    job = service.running(service.submit(LONG))
    service.cancel(job)
    job = service.ended(job)
    assert end(job) == CANCELLED
    assert service.story(job) == [*TO_STARTED, "CANCEL_REQUESTED", "CANCELLED"]
    assert service.seen("sigterm", job) == 1
    assert not alive([service.solver_pid(job)])


@pytest.mark.parametrize("grace", [None, 0.0])
def test_a_stubborn_solver_is_killed(service: SlurmService, grace: float | None) -> None:
    """The time between TERM and KILL is SLURM's own `KillWait`, whatever grace was asked for."""
    job = service.running(service.submit(f"{LONG},term=ignore"))
    service.cancel(job, grace)
    service.waits(job, "CANCELLING")
    job = service.ended(job, 25)
    assert end(job) == CANCELLED
    assert service.story(job) == [*TO_STARTED, "CANCEL_REQUESTED", "CANCELLED"]
    assert not alive([service.solver_pid(job)])


def test_engines_that_resist_go_with_it(service: SlurmService) -> None:
    job = service.running(service.submit(f"{LONG},children=stubborn"))
    service.cancel(job)
    job = service.ended(job)
    assert end(job) == CANCELLED
    eventually("no process of it is left", lambda: processes_of(job.scheduler_job_id), lambda left: not left)


def processes_of(slurm_job: str) -> list[int]:
    """Processes that have a job of SLURM in their environment."""
    mark = f"SLURM_JOB_ID={slurm_job}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return alive(found)


def test_before_it_is_submitted(service: SlurmService, tmp_path: Path) -> None:
    """It waits for the project's lock, then for its turn; nothing of it ever reaches SLURM."""
    project = service.project()
    lock = project.with_suffix(".aedt.lock")
    lock.touch()
    job = service.submit(project_path=str(project))
    service.waits(job, "PROJECT_LOCKED")
    service.cancel(job)
    job = service.ended(job)
    assert end(job) == UNSTARTED
    assert service.slurm_jobs(job) == []


def test_while_it_is_submitted(service: SlurmService, cluster: SlurmCluster) -> None:
    """The controller hangs during `sbatch`: the cancel is taken at once, and done when the controller answers."""
    cluster.pause_controller()
    try:
        job = service.submit(LONG)
        eventually("it is being submitted", lambda: service.job(job).attempt_count, bool)
        service.cancel(job)
        service.waits(job, "CANCELLING")
    finally:
        cluster.resume_controller()
    job = service.ended(job)
    assert end(job) == UNSTARTED
    assert service.seen("start", job) == 0
    eventually("SLURM has none of it", lambda: live(service.slurm_jobs(job)), lambda left: not left)


def live(jobs: list[str]) -> list[str]:
    return [job for job in jobs if job.split()[1] in ("PENDING", "RUNNING", "COMPLETING")]


def test_a_hundred_that_wait(service: SlurmService) -> None:
    requests = [service.request(begin="now+1hour", batch="hundred") for _ in range(100)]
    answer = service.jobs.SubmitJobs(jobs_messages_pb2.SubmitJobsRequest(requests=requests), timeout=30)
    jobs = [result.response.job for result in answer.results]
    for job in jobs:
        service.scheduled(job)
    filter = jobs_messages_pb2.JobFilter(batches=["hundred"])
    assert len(service.jobs.CancelJobs(jobs_messages_pb2.CancelJobsRequest(filter=filter), timeout=30).results) == 100
    for job in jobs:
        assert end(service.ended(job)) == UNSTARTED
    names = {job.uid[-16:] for job in jobs}
    queue = service.slurm.run("squeue", "-h", "-t", "all", "-o", "%T %j").splitlines()
    states = [line.split()[0] for line in queue if line.rsplit("-", 2)[1] in names]
    assert states == ["CANCELLED"] * 100
    assert all(state(service.job(job)) == "CANCELLED" for job in jobs)
