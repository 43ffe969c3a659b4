"""However a job on SLURM ends, the service says what became of it, why, and how it knows: on the true SLURM."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support.slurm_cluster import SlurmCluster
from support.slurm_service import LONG, TO_STARTED, SlurmService, alive, end, eventually, kill, program

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmService]:
    folder = tmp_path_factory.mktemp("ends")
    polite = program(folder / "polite", "trap 'exit 0' TERM", "sleep 600 &", "wait")
    with (
        SlurmCluster(folder / "slurm", extra_conf="KillWait=2") as cluster,
        SlurmService(folder / "service", cluster, solvers=[str(polite)]) as running,
    ):
        yield running


def polite(service: SlurmService) -> str:
    """A solver that ends with 0 when it is asked to end."""
    return str(service.settings["solvers"][0])


# By itself ------------------------------------------------------------------------------------------------


def test_success_is_proven_by_the_log(service: SlurmService) -> None:
    job = service.ended(service.submit("seconds=0.5", job_id="well"))
    assert end(job) == ("COMPLETED", "NORMAL", "SOLVER_LOG")
    assert (job.outcome.exit_code, list(job.attempts[0].nodes), job.scheduler) == (0, ["n1"], "slurm")
    assert service.slurm_jobs(job) == [f"{job.scheduler_job_id} COMPLETED"]
    assert "normal completion" in job.outcome.message
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    started = job.attempts[0]
    assert started.nodes == ["n1"]
    assert (service.seen("start", job), service.seen("end", job)) == (1, 1)
    assert job.create_time.ToNanoseconds() // 10**9 <= job.start_time.seconds <= job.end_time.seconds


def test_two_nodes_are_told(service: SlurmService) -> None:
    job = service.ended(service.submit(nodes=2, tasks_per_node=2))
    assert end(job) == ("COMPLETED", "NORMAL", "SOLVER_LOG")
    assert len(job.attempts[0].nodes) == 2


@pytest.mark.parametrize(("demo", "code"), [("seconds=0.1,fail=exit", 3), ("seconds=0.1,fail=killed", 137)])
def test_the_solvers_exit_code_is_told(service: SlurmService, demo: str, code: int) -> None:
    job = service.ended(service.submit(demo))
    assert end(job) == ("FAILED", "EXIT_CODE", "EXIT_CODE")
    assert job.outcome.exit_code == code
    assert f"exit code {code}" in job.outcome.message
    assert service.slurm_jobs(job) == [f"{job.scheduler_job_id} FAILED"]
    assert service.story(job) == [*TO_STARTED, "FAILED"]


def test_what_the_log_says_counts_more_than_exit_code_0(service: SlurmService) -> None:
    job = service.ended(service.submit("seconds=0.1,fail=engine"))
    assert end(job) == ("FAILED", "SOLVER_ERROR", "SOLVER_LOG")
    assert service.slurm_jobs(job) == [f"{job.scheduler_job_id} COMPLETED"]


def test_a_solver_that_is_killed(service: SlurmService) -> None:
    job = service.running(service.submit(LONG))
    kill(service.solver_pid(job), signal.SIGKILL)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "EXIT_CODE")
    assert job.outcome.exit_code == 137
    assert "signal 9" in job.outcome.message
    assert service.story(job) == [*TO_STARTED, "FAILED"]


def test_a_batch_script_that_is_killed(service: SlurmService) -> None:
    job = service.running(service.submit(LONG))
    solver = service.solver_pid(job)
    kill(service.script_pid(job), signal.SIGKILL)
    job = service.ended(job)
    assert end(job) == ("FAILED", "SIGNAL", "SCHEDULER")
    assert (job.outcome.signal, job.outcome.HasField("exit_code")) == (9, False)
    assert service.story(job) == [*TO_STARTED, "FAILED"]
    eventually("its solver is gone", lambda: alive([solver]), lambda left: not left)


def test_too_much_memory(service: SlurmService) -> None:
    job = service.ended(service.submit(LONG, memory_bytes_per_node=8 << 20))
    assert end(job) == ("FAILED", "OUT_OF_MEMORY", "SCHEDULER")
    assert "memory" in job.outcome.message
    # SLURM's own word is less.
    assert "JobState=FAILED" in service.slurm.run("scontrol", "show", "job", job.scheduler_job_id)
    assert service.story(job)[-1] == "FAILED"


# By others ------------------------------------------------------------------------------------------------


def test_scancel_of_a_job_that_waits(service: SlurmService) -> None:
    job = service.scheduled(service.submit(begin="now+1hour"))
    service.waits(job, "SCHEDULER_PENDING", "BeginTime")
    service.slurm.run("scancel", job.scheduler_job_id)
    job = service.ended(job)
    assert end(job) == ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")
    assert not job.HasField("start_time")
    assert service.story(job) == ["QUEUED", "STARTING", "SCHEDULED", "CANCELLED"]
    assert service.seen("start", job) == 0


@pytest.mark.parametrize("demo", ["seconds=600", "seconds=600,term=ignore"])
def test_scancel_of_a_job_that_runs(service: SlurmService, demo: str) -> None:
    job = service.running(service.submit(demo))
    service.slurm.run("scancel", job.scheduler_job_id)
    job = service.ended(job)
    assert end(job) == ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")
    assert not job.outcome.HasField("exit_code")
    assert service.story(job) == [*TO_STARTED, "CANCELLED"]
    assert not alive([service.solver_pid(job)])


def test_scancel_of_a_solver_that_ends_with_0_when_asked(service: SlurmService) -> None:
    job = service.submit(aedt_path=polite(service))
    service.until(job, "it runs", lambda now: bool(now.start_time.seconds))
    service.slurm.run("scancel", service.job(job).scheduler_job_id)
    job = service.ended(job)
    assert end(job) == ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")


@pytest.mark.timeout(150)
def test_the_time_limit(service: SlurmService) -> None:
    """Three at once: SLURM looks at time limits twice a minute."""
    jobs = [
        service.running(service.submit(LONG, time_limit={"seconds": 60})),
        service.running(service.submit(f"{LONG},term=ignore", time_limit={"seconds": 60})),
        service.submit(aedt_path=polite(service), time_limit={"seconds": 60}),
    ]
    service.until(jobs[2], "it runs", lambda now: bool(now.start_time.seconds))
    for job in jobs:  # as if the minute had nearly passed
        service.slurm.run("scontrol", "update", f"jobid={service.job(job).scheduler_job_id}", "endtime=now+1")
    for started in jobs:
        job = service.ended(started, 90)
        assert end(job) == ("FAILED", "TIMEOUT", "SCHEDULER")
        assert "TIMEOUT" in job.outcome.message
        assert service.story(job) == [*TO_STARTED, "FAILED"]


def test_a_node_that_goes_down(service: SlurmService) -> None:
    job = service.running(service.submit(LONG, include_nodes=["n4"]))
    service.slurm.down_node("n4")
    job = service.ended(job)
    service.slurm.up_node("n4")
    assert end(job) == ("FAILED", "NODE_FAIL", "SCHEDULER")
    assert service.story(job) == [*TO_STARTED, "FAILED"]
    assert service.seen("start", job) == 1


def test_an_administrators_requeue_does_not_run_it_twice(service: SlurmService) -> None:
    job = service.running(service.submit(LONG))
    refused = service.slurm.run("scontrol", "requeue", job.scheduler_job_id, check=False)
    assert not refused
    service.slurm.run("scontrol", "update", f"jobid={job.scheduler_job_id}", "requeue=1")
    service.slurm.run("scontrol", "requeue", job.scheduler_job_id)
    job = service.ended(job)
    assert end(job) == ("FAILED", "NODE_FAIL", "SCHEDULER")
    assert "not run a second time" in job.outcome.message
    assert service.story(job) == [*TO_STARTED, "FAILED"]
    assert service.seen("start", job) == 1
    assert service.slurm_jobs(job) == [f"{job.scheduler_job_id} CANCELLED"]
