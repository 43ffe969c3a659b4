"""The service is killed at every stage of a job on SLURM: the job runs once, and its end is told as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slurm_cluster import SlurmCluster
from support.slurm_service import (
    BY_SOMEBODY,
    CANCELLED,
    DONE,
    LONG,
    TO_STARTED,
    SlurmService,
    end,
    eventually,
    state,
)

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), extra_conf="KillWait=2") as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, cluster: SlurmCluster) -> Iterator[SlurmService]:
    with SlurmService(tmp_path / "service", cluster, confirm=2) as running:
        yield running


def test_killed_while_the_job_waits(service: SlurmService) -> None:
    job = service.scheduled(service.submit(begin="now+1hour"))
    service.again()
    service.waits(job, "SCHEDULER_PENDING", "BeginTime")
    service.slurm.run("scontrol", "update", f"jobid={job.scheduler_job_id}", "starttime=now")
    job = service.ended(job)
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    assert len(service.slurm_jobs(job)) == 1


def test_killed_when_the_job_has_just_started(service: SlurmService) -> None:
    """The start is not told yet; it is told once, with its own time."""
    job = service.scheduled(service.submit("seconds=5"))
    service.kill()
    eventually("its solver works", lambda: service.seen("start", job), bool)
    service.start()
    job = service.ended(job)
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    assert service.seen("start", job) == 1


def test_killed_while_the_job_runs_and_ends(service: SlurmService) -> None:
    job = service.running(service.submit("seconds=5"))
    service.kill()
    eventually("its solver is done", lambda: service.seen("end", job), bool)
    service.start()
    job = service.ended(job)
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    assert service.seen("start", job) == 1


@pytest.mark.parametrize("ending", ["exit", "scancel", "scancel of one that waits"])
def test_what_happened_while_the_service_was_away(service: SlurmService, ending: str) -> None:
    if ending.endswith("waits"):
        job = service.scheduled(service.submit(begin="now+1hour"))
    else:
        job = service.running(service.submit("seconds=5,fail=exit" if ending == "exit" else LONG))
    service.kill()
    if ending.startswith("scancel"):
        service.slurm.run("scancel", job.scheduler_job_id)
    else:
        eventually("its solver is done", lambda: service.seen("end", job), bool)
    service.start()
    job = service.ended(job)
    assert end(job) == (("FAILED", "EXIT_CODE", "EXIT_CODE") if ending == "exit" else BY_SOMEBODY)


@pytest.mark.parametrize(
    ("point", "attempts"),
    [
        ("run.after_reserve", 2),  # nothing was done about it: it is called off at once
        ("cluster.before_submit", 2),  # SLURM might have it: it is called off when SLURM has denied it for a while
        ("cluster.after_submit", 1),  # SLURM has it, though the service did not take that down: it is found by name
        ("run.before_end", 1),
        ("run.after_end", 1),
    ],
)
def test_killed_at(tmp_path: Path, cluster: SlurmCluster, point: str, attempts: int) -> None:
    service = SlurmService(tmp_path / "service", cluster, confirm=2)
    with service:
        job = service.killed_at(point)
        assert job.attempt_count == attempts
        assert len(service.slurm_jobs(job)) == 1


def test_a_cancel_outlives_the_service(service: SlurmService) -> None:
    """The service dies after it has taken the cancel down, maybe before it has told SLURM."""
    job = service.running(service.submit(f"{LONG},term=ignore"))
    service.cancel(job)
    service.again()
    job = service.ended(job)
    assert end(job) == CANCELLED


def test_a_drain_lets_the_job_go_on(service: SlurmService) -> None:
    job = service.running(service.submit("seconds=5"))
    assert service.stop() == 0
    service.start()
    assert state(service.job(job)) in ("RUNNING", "COMPLETED")
    job = service.ended(job)
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
