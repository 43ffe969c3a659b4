"""SLURM's controller is away, hangs, forgets and uses ids again: nothing is lost, doubled, or taken for another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edbjobs.v1 import job_pb2, job_state_pb2
from google.protobuf.duration_pb2 import Duration
from support.slurm_cluster import SlurmCluster
from support.slurm_service import DONE, LONG, TO_STARTED, SlurmService, alive, end, eventually, kill, state

pytestmark = pytest.mark.system

KILLED = (job_state_pb2.END_REASON_LOST, job_state_pb2.END_REASON_SIGNAL)
SELDOM = 3600.0  # the service looks only where it must


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path / "slurm", min_job_age=2, extra_conf="KillWait=2") as running:
        yield running


def make(tmp_path: Path, cluster: SlurmCluster, **settings: object) -> SlurmService:
    return SlurmService(tmp_path / "service", cluster, confirm=3, stale=4, **settings)


def test_killed_and_restarted_while_jobs_run_and_end(tmp_path: Path, cluster: SlurmCluster) -> None:
    with make(tmp_path, cluster) as service:
        jobs = [service.submit(demo) for demo in ("seconds=8", "seconds=8,fail=exit", "seconds=12")]
        for job in jobs:
            service.running(job)
        start = time.time()
        eventually("SLURM has saved its state", lambda: saved(cluster).stat().st_mtime > start, bool)
        cluster.kill_controller()
        service.answering(False)
        eventually("two are done", lambda: [service.seen("end", job) for job in jobs[:2]], all)
        assert [state(service.job(job)) for job in jobs] == ["RUNNING"] * 3
        cluster.start_controller()
        service.answering(True)
        found = [service.ended(job) for job in jobs]
        assert [end(job) for job in found] == [DONE, ("FAILED", "EXIT_CODE", "EXIT_CODE"), DONE]
        assert [service.story(job)[:4] for job in jobs] == [TO_STARTED] * 3
        assert [service.seen("start", job) for job in jobs] == [1] * 3


def saved(cluster: SlurmCluster) -> Path:
    """Return what a restarted controller reads; it is written at most every 5 s."""
    return cluster.folder / "state" / "job_state"


@pytest.mark.parametrize("ended", [False, True], ids=["it runs", "it has ended"])
def test_started_again_by_a_controller_that_forgot_that_it_ran(
    tmp_path: Path, cluster: SlurmCluster, ended: bool
) -> None:
    with make(tmp_path, cluster, cluster_poll_seconds=SELDOM) as service:
        job = service.scheduled(service.submit("seconds=1" if ended else LONG, begin="now+1hour"))
        eventually("SLURM has saved it as pending", lambda: job.uid[-16:].encode() in saved(cluster).read_bytes(), bool)
        early = saved(cluster).read_bytes()
        service.kill()
        begin = ("scontrol", "update", f"jobid={job.scheduler_job_id}", "starttime=now")
        cluster.run(*begin)
        eventually("it runs", lambda: service.seen("start", job), bool)
        if ended:
            eventually("it has ended", lambda: service.slurm_jobs(job), lambda seen: "COMPLETED" in seen[0])
        cluster.kill_controller()
        saved(cluster).write_bytes(early)  # as if it had been killed before it saved again
        cluster.start_controller()
        cluster.run(*begin)
        eventually("it is started again", lambda: list(Path(job.attempts[-1].run_directory).glob("dup.*")), bool)
        service.start()
        job = service.ended(job)
        assert service.seen("start", job) == 1
        # With the second run SLURM ends the first one as well.
        assert end(job) == DONE if ended else (end(job)[0] == "FAILED" and job.outcome.reason in KILLED)
        assert not alive([service.solver_pid(job)])


def test_away_when_a_job_comes(tmp_path: Path, cluster: SlurmCluster) -> None:
    with make(tmp_path, cluster) as service:
        cluster.kill_controller()
        status = service.answering(False)
        assert "DOWN" in status.error
        assert status.version  # of the time when it answered
        job = service.submit()
        limited = service.submit(scheduler_wait_limit=Duration(seconds=1))
        service.waits(job, "SCHEDULER_UNREACHABLE", "since")
        limited = service.ended(limited)
        assert end(limited) == ("FAILED", "SCHEDULER_UNREACHABLE", "SERVICE")
        assert "scheduler_wait_limit" in limited.outcome.message
        local = service.ended(service.submit(scheduler="local"))
        assert end(local) == DONE
        cluster.start_controller()
        assert end(service.ended(job)) == DONE
        assert service.story(job) == [*TO_STARTED, "COMPLETED"]


def test_away_at_the_start_of_the_service(tmp_path: Path, cluster: SlurmCluster) -> None:
    with make(tmp_path, cluster) as service:
        job = service.running(service.submit("seconds=5"))
        service.kill()
        cluster.stop_controller()
        service.start()
        service.answering(False)
        eventually("it is done", lambda: service.seen("end", job), bool)
        assert state(service.job(job)) == "RUNNING"
        cluster.start_controller()
        assert end(service.ended(job)) == DONE
        assert service.story(job) == [*TO_STARTED, "COMPLETED"]


def test_a_slurm_that_hangs_keeps_up_nothing_else(tmp_path: Path, cluster: SlurmCluster) -> None:
    """Its commands hang with munged; they have deadlines of their own."""
    with make(tmp_path, cluster) as service:
        job = service.running(service.submit("seconds=5"))
        cluster.pause_munge()
        try:
            started_at = time.monotonic()
            local = service.submit(scheduler="local")
            assert end(service.ended(local)) == DONE
            assert time.monotonic() - started_at < 5
            service.answering(False)
            assert state(service.job(job)) == "RUNNING"
        finally:
            cluster.resume_munge()
        assert end(service.ended(job)) == DONE
        assert service.story(job) == [*TO_STARTED, "COMPLETED"]


def test_a_submit_that_timed_out_but_happened(tmp_path: Path, cluster: SlurmCluster) -> None:
    with make(tmp_path, cluster, cluster_poll_seconds=SELDOM) as service:
        cluster.pause_controller()
        try:
            job = service.submit("seconds=1")
            service.answering(False)  # sbatch itself gives up, after 10 s
            assert "timed out" in service.answering(False).error.lower()
            service.waits(job, "SCHEDULER_UNREACHABLE")
        finally:
            cluster.resume_controller()
        job = service.ended(job)
        assert end(job) == DONE
        assert job.attempt_count == 1
        assert service.story(job) == [*TO_STARTED, "COMPLETED"]
        assert service.seen("start", job) == 1


@pytest.mark.parametrize("cancelled", [False, True], ids=["asked about", "cancelled"])
def test_an_id_that_another_job_has_got(tmp_path: Path, cluster: SlurmCluster, cancelled: bool) -> None:
    """The controller took the job, crashed and lost it, and gave its id to somebody else's."""
    with make(tmp_path, cluster, cluster_poll_seconds=SELDOM) as service:
        job = lose(service)
        if cancelled:
            service.cancel(job)
            job = service.ended(job)
            assert end(job) == ("CANCELLED", "CANCELLED", "SERVICE")
        else:
            again_every_second(service)
            job = service.ended(job)
            assert end(job) == ("FAILED", "LOST", "NONE")
            assert "never started" in job.outcome.message
        assert service.seen("start", job) == 0
        foreign = cluster.run("squeue", "-h", "-j", job.scheduler_job_id, "-o", "%T %j")
        assert foreign == "PENDING foreign"


def again_every_second(service: SlurmService) -> None:
    service.kill()
    service.settings["cluster_poll_seconds"] = 1
    service.start()


def lose(service: SlurmService) -> job_pb2.Job:
    """Have a job lost by the controller, and its id given to another one; the controller saves every 5 s."""
    for _ in range(5):
        job = service.scheduled(service.submit(begin="now+1hour"))
        service.slurm.kill_controller()
        service.slurm.start_controller()
        other = ("sbatch", "--parsable", "--job-name=foreign", "-o/dev/null", "--begin=now+1hour", "--wrap=true")
        if service.slurm.run(*other) == job.scheduler_job_id:
            return job
        service.slurm.run("scancel", "-n", "foreign")
    raise AssertionError("the controller has lost nothing")


def test_forgotten_while_the_service_was_away(tmp_path: Path, cluster: SlurmCluster) -> None:
    """`MinJobAge` has passed and there is no accounting: the run's own record decides."""
    with make(tmp_path, cluster) as service:
        jobs = {
            "well": service.submit("seconds=5"),
            "badly": service.submit("seconds=5,fail=exit"),
            "scancel": service.submit(LONG),
            "killed": service.submit(LONG),
            "solver killed": service.submit(LONG),
        }
        for job in jobs.values():
            service.running(job)
        jobs["never started"] = service.scheduled(service.submit(begin="now+1hour"))
        script, solver = service.script_pid(jobs["killed"]), service.solver_pid(jobs["solver killed"])
        service.kill()
        cluster.run("scancel", number(jobs["scancel"], cluster), number(jobs["never started"], cluster))
        kill(script, 9)
        kill(solver, 9)
        eventually("SLURM has forgotten all", lambda: cluster.run("squeue", "-h", "-t", "all"), lambda text: not text)
        service.start()
        found = {name: service.ended(job) for name, job in jobs.items()}
        assert {name: end(job) for name, job in found.items()} == {
            "well": DONE,
            "badly": ("FAILED", "EXIT_CODE", "EXIT_CODE"),
            "scancel": ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER"),
            "killed": ("FAILED", "LOST", "NONE"),
            "solver killed": ("FAILED", "EXIT_CODE", "EXIT_CODE"),
            "never started": ("FAILED", "LOST", "NONE"),
        }
        assert found["killed"].outcome.evidence == job_state_pb2.EVIDENCE_NONE
        assert "CANCELLED AT" in found["scancel"].outcome.message
        assert [service.seen("start", job) for job in found.values()] == [1, 1, 1, 1, 1, 0]


def number(job: job_pb2.Job, cluster: SlurmCluster) -> str:
    """Return SLURM's id of a job."""
    return cluster.run("squeue", "-h", "-n", f"edb-{job.id}-{job.uid[-16:]}-1", "-o", "%i")
