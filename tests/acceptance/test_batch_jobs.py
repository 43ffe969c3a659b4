"""PBS or LSF, whichever: how jobs end by themselves, by somebody else and by our cancel, and how they wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support.batch_service import LSF, OLD_LSF, PBS, BatchService, batch_service
from support.slurm_service import (
    BY_SOMEBODY,
    CANCELLED,
    DONE,
    LONG,
    TO_STARTED,
    UNSTARTED,
    alive,
    end,
    eventually,
    kill,
    state,
)


@pytest.fixture(scope="module", params=[PBS, LSF, OLD_LSF], ids=["pbs", "lsf", "old lsf"])
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[BatchService]:
    with batch_service(tmp_path_factory.mktemp("jobs"), request.param) as running:
        yield running


# By themselves --------------------------------------------------------------------------------------------


def test_success_is_proven_by_the_log(service: BatchService) -> None:
    job = service.ended(service.submit("seconds=0.5", job_id="well"))
    assert end(job) == DONE
    assert (job.outcome.exit_code, list(job.attempts[0].nodes), job.scheduler) == (0, ["n1"], service.kind.name)
    assert "normal completion" in job.outcome.message
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    started = job.attempts[0]
    assert (list(started.nodes), bool(started.pid)) == (["n1"], True)
    assert (service.seen("start", job), service.seen("end", job)) == (1, 1)
    assert [its["code"] for its in service.its_jobs(job)] == [0]
    assert job.create_time.ToNanoseconds() // 10**9 <= job.start_time.seconds <= job.end_time.seconds


@pytest.mark.parametrize(
    ("demo", "what"),
    [
        ("seconds=0.1,fail=exit", ("FAILED", "EXIT_CODE", "EXIT_CODE")),
        ("seconds=0.1,fail=killed", ("FAILED", "EXIT_CODE", "EXIT_CODE")),
        ("seconds=0.1,fail=engine", ("FAILED", "SOLVER_ERROR", "SOLVER_LOG")),
    ],
)
def test_a_failure(service: BatchService, demo: str, what: tuple[str, str, str]) -> None:
    job = service.ended(service.submit(demo))
    assert end(job) == what
    assert job.outcome.exit_code == {"exit": 3, "killed": 137, "engine": 0}[demo.rpartition("=")[2]]
    assert service.story(job) == [*TO_STARTED, "FAILED"]


def test_a_batch_script_that_is_killed(service: BatchService) -> None:
    job = service.running(service.submit(LONG))
    solver = job.attempts[0].pid
    kill(service.script_pid(job), signal.SIGKILL)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "SCHEDULER")
    assert job.outcome.exit_code == 137
    eventually("its solver is gone", lambda: alive([solver]), lambda left: not left)


def test_a_solver_that_is_killed(service: BatchService) -> None:
    job = service.running(service.submit(LONG))
    kill(job.attempts[0].pid, signal.SIGKILL)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "EXIT_CODE")
    assert job.outcome.exit_code == 137
    assert "signal 9" in job.outcome.message


# By others ------------------------------------------------------------------------------------------------


def test_somebody_ends_one_that_waits(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.scheduled(service.submit())
        service.by_somebody(job)
        job = service.ended(job)
    assert end(job) == BY_SOMEBODY
    assert service.kind is not PBS or "before it started" in job.outcome.message
    assert not job.HasField("start_time")
    assert service.story(job)[-1] == "CANCELLED"
    assert service.seen("start", job) == 0


@pytest.mark.parametrize("demo", ["seconds=600", "seconds=600,term=ignore"])
def test_somebody_ends_one_that_runs(service: BatchService, demo: str) -> None:
    """LSF before 10.1 tells who asked for it in its history only."""
    job = service.running(service.submit(demo))
    service.by_somebody(job)
    job = service.ended(job)
    assert end(job) == BY_SOMEBODY
    assert not job.outcome.HasField("exit_code")
    assert job.start_time.seconds <= job.end_time.seconds  # LSF tells minutes only
    assert service.story(job) == [*TO_STARTED, "CANCELLED"]
    assert not alive([job.attempts[0].pid])


def test_somebody_ends_a_solver_that_ends_with_0_when_asked(service: BatchService) -> None:
    job = service.submit(aedt_path=str(service.settings["solvers"][0]))
    service.until(job, "it runs", lambda now: bool(now.start_time.seconds))
    service.by_somebody(job)
    assert end(service.ended(job)) == BY_SOMEBODY


def test_a_job_that_is_put_back_into_the_queue_does_not_run_twice(service: BatchService) -> None:
    """As in PBS when the node's daemon was killed a moment after the start (recorded)."""
    job = service.running(service.submit(LONG))
    with service.fake.troubled("requeue", service.number(job)):
        job = service.ended(job)
    assert end(job) == ("FAILED", "NODE_FAIL", "SCHEDULER")
    assert "not run a second time" in job.outcome.message
    assert service.story(job) == [*TO_STARTED, "FAILED"]
    assert service.seen("start", job) == 1


def test_a_job_whose_script_has_ended_is_not_over(service: BatchService) -> None:
    """PBS' state E lasted for more than 20 s when output could not be copied (recorded)."""
    with service.fake.troubled("ending", "600"):
        job = service.running(service.submit("seconds=0.1"))
        eventually("its script has ended", lambda: service.its_jobs(job)[0]["state"], lambda now: now == "ending")
        service.polled(3)
        assert state(service.job(job)) == "RUNNING"
    assert end(service.ended(job)) == DONE


# Cancels --------------------------------------------------------------------------------------------------


def test_a_cancel_while_it_waits(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.scheduled(service.submit())
        service.cancel(job)
        job = service.ended(job)
    assert end(job) == UNSTARTED
    assert "before it started" in job.outcome.message
    assert service.story(job)[-2:] == ["CANCEL_REQUESTED", "CANCELLED"]
    eventually("nothing of it is left", lambda: service.left(job), lambda left: not left)
    assert service.seen("start", job) == 0


@pytest.mark.parametrize("demo", [LONG, f"{LONG},term=ignore", f"{LONG},children=stubborn"])
@pytest.mark.parametrize("grace", [None, 0.0])
def test_a_cancel_while_it_runs(service: BatchService, demo: str, grace: float | None) -> None:
    """The time between TERM and KILL is that of PBS (`kill_delay`) or LSF, unless it is to be killed at once."""
    job = service.running(service.submit(demo))
    service.cancel(job, grace)
    job = service.ended(job)
    assert end(job) == CANCELLED
    assert service.story(job) == [*TO_STARTED, "CANCEL_REQUESTED", "CANCELLED"]
    assert not alive([job.attempts[0].pid])
    if grace is None and demo == LONG:
        assert service.seen("sigterm", job) == 1


def test_one_that_is_ended_only_by_force(service: BatchService) -> None:
    with service.fake.troubled("deaf"):
        job = service.running(service.submit(LONG))
        service.cancel(job, 1.0)
        job = service.ended(job)
    assert end(job) == CANCELLED
    command = service.kind.cancel[0]
    given = [call["argv"][1:] for call in service.fake.calls(command) if job.scheduler_job_id in call["argv"]]
    assert given == [[job.scheduler_job_id], [*service.kind.force, job.scheduler_job_id]]


# Waiting --------------------------------------------------------------------------------------------------


def test_refused_by_a_hook_of_the_site(service: BatchService) -> None:
    with service.fake.troubled("refuse", "this project has no hours left"):
        job = service.ended(service.submit())
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert "this project has no hours left" in job.outcome.message


def test_held_and_released(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.submit()
        service.waits(job, "NEVER_RUNNABLE", "qrls" if service.kind is PBS else "bresume")
    assert end(service.ended(job)) == DONE


def test_no_node_is_free(service: BatchService) -> None:
    first = service.running(service.submit(LONG, nodes=2, cores_per_node=16))
    second = service.submit()
    words = "Not enough free nodes" if service.kind is PBS else "Job slot limit reached"
    service.waits(second, "SCHEDULER_PENDING", words)
    service.cancel(first)
    assert end(service.ended(second)) == DONE
