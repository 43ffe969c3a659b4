"""The service on LSF, with reasons and JSON as in 10.1 and without as in older ones: how its jobs end and wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support.batch_service import BEGUN, DONE, LSF, OLD_LSF, BatchService
from support.slurm_service import LONG, alive, end, eventually, kill, program, state

UNSTARTED = ("CANCELLED", "CANCELLED", "NONE")
CANCELLED = ("CANCELLED", "CANCELLED", "SCHEDULER")
BY_SOMEBODY = ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")


@pytest.fixture(scope="module", params=[LSF, OLD_LSF], ids=["10.1", "old"])
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[BatchService]:
    folder = tmp_path_factory.mktemp("lsf")
    polite = program(folder / "polite", "trap 'exit 0' TERM", "sleep 600 &", "wait")
    fake = request.param.start(folder / "fake", {"n1": 16, "n2": 16})
    try:
        with BatchService(folder / "service", request.param, fake, solvers=[str(polite)]) as running:
            yield running
    finally:
        fake.stop()


def is_old(service: BatchService) -> bool:
    return service.kind is OLD_LSF


# By itself ------------------------------------------------------------------------------------------------


def test_success_is_proven_by_the_log(service: BatchService) -> None:
    job = service.ended(service.submit("seconds=0.5", job_id="well"))
    assert end(job) == DONE
    assert (job.exit_code, list(job.attempts[0].nodes), job.executor) == (0, ["n1"], "lsf")
    assert service.story(job) == [*BEGUN, "COMPLETED"]
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
    assert job.exit_code == {"exit": 3, "killed": 137, "engine": 0}[demo.rpartition("=")[2]]
    assert service.story(job) == [*BEGUN, "FAILED"]


def test_a_batch_script_that_is_killed(service: BatchService) -> None:
    job = service.running(service.submit(LONG))
    solver = job.attempts[0].pid
    kill(service.script_pid(job), signal.SIGKILL)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "SCHEDULER")
    assert job.exit_code == 137
    eventually("its solver is gone", lambda: alive([solver]), lambda left: not left)


# By others ------------------------------------------------------------------------------------------------


def test_bkill_of_a_job_that_waits(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.scheduled(service.submit())
        service.by_somebody(job)
        job = service.ended(job)
    assert end(job) == BY_SOMEBODY
    assert not job.HasField("start_time")
    assert service.story(job)[-1] == "CANCELLED"
    assert service.seen("start", job) == 0


@pytest.mark.parametrize("demo", ["seconds=600", "seconds=600,term=ignore"])
def test_bkill_of_a_job_that_runs(service: BatchService, demo: str) -> None:
    """LSF before 10.1 tells who asked for it in its history only."""
    job = service.running(service.submit(demo))
    service.by_somebody(job)
    job = service.ended(job)
    assert end(job) == BY_SOMEBODY
    assert not job.HasField("exit_code")
    assert job.start_time.seconds <= job.end_time.seconds  # LSF tells minutes only
    assert service.story(job) == [*BEGUN, "CANCELLED"]
    assert not alive([job.attempts[0].pid])


def test_bkill_of_a_solver_that_ends_with_0_when_asked(service: BatchService) -> None:
    job = service.submit(ansys_edt_path=str(service.settings["solvers"][0]))
    service.until(job, "it runs", lambda now: bool(now.start_time.seconds))
    service.by_somebody(job)
    assert end(service.ended(job)) == BY_SOMEBODY


def test_the_time_limit(service: BatchService) -> None:
    """A minute is a second here. Old ones give no reason: it counts that the job ran for as long as it might."""
    jobs = [service.submit(demo, time="1") for demo in (LONG, f"{LONG},term=ignore")]
    for job in jobs:
        job = service.ended(job)
        assert end(job) == ("FAILED", "TIMEOUT", "SCHEDULER")
        assert ("limit of 1 min" if is_old(service) else "RUNLIMIT") in job.message
        assert service.story(job) == [*BEGUN, "FAILED"]


@pytest.mark.parametrize(
    ("trouble", "reason", "words"), [("memory", "OUT_OF_MEMORY", "MEMLIMIT"), ("lost", "NODE_FAIL", "REMOVE_HUNG_JOB")]
)
def test_what_the_host_does(service: BatchService, trouble: str, reason: str, words: str) -> None:
    """Old ones tell no reasons."""
    job = service.running(service.submit(LONG))
    with service.fake.troubled(trouble):
        job = service.ended(job)
    if not is_old(service):
        assert end(job) == ("FAILED", reason, "SCHEDULER")
        assert words in job.message
    elif trouble == "memory":
        assert end(job) == ("FAILED", "EXIT_CODE", "SCHEDULER")
        assert (job.exit_code, "memory" in job.message) == (137, True)
    else:
        assert end(job) == ("FAILED", "LOST", "NONE")
    assert service.story(job) == [*BEGUN, "FAILED"]


def test_a_host_that_does_not_answer(service: BatchService) -> None:
    job = service.running(service.submit("seconds=2"))
    with service.fake.troubled("unknown"):
        service.polled(3)
        assert state(service.job(job)) == "RUNNING"
    assert end(service.ended(job)) == DONE


def test_a_job_that_is_put_back_into_the_queue_does_not_run_twice(service: BatchService) -> None:
    job = service.running(service.submit(LONG))
    with service.fake.troubled("requeue", service.number(job)):
        job = service.ended(job)
    assert end(job) == ("FAILED", "NODE_FAIL", "SCHEDULER")
    assert "not run a second time" in job.message
    assert service.story(job) == [*BEGUN, "FAILED"]
    assert service.seen("start", job) == 1


def test_a_job_whose_script_has_ended_is_not_over(service: BatchService) -> None:
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
    assert service.story(job)[-2:] == ["CANCEL_REQUESTED", "CANCELLED"]
    eventually("LSF has none of it", lambda: service.left(job), lambda left: not left)
    assert service.seen("start", job) == 0


@pytest.mark.parametrize("demo", [LONG, f"{LONG},term=ignore", f"{LONG},children=stubborn"])
@pytest.mark.parametrize("grace", [None, 0.0])
def test_a_cancel_while_it_runs(service: BatchService, demo: str, grace: float | None) -> None:
    """The time between TERM and KILL is that of LSF (JOB_TERMINATE_INTERVAL), unless it is to be killed at once."""
    job = service.running(service.submit(demo))
    service.cancel(job, grace)
    job = service.ended(job)
    assert end(job) == CANCELLED
    assert service.story(job) == [*BEGUN, "CANCEL_REQUESTED", "CANCELLED"]
    assert not alive([job.attempts[0].pid])
    if grace is None and demo == LONG:
        assert service.seen("sigterm", job) == 1


def test_a_host_that_ends_it_only_by_force(service: BatchService) -> None:
    with service.fake.troubled("deaf"):
        job = service.running(service.submit(LONG))
        service.cancel(job, 1.0)
        job = service.ended(job)
    assert end(job) == CANCELLED
    kills = [call["argv"][1:] for call in service.fake.calls("bkill") if job.scheduler_job_id in call["argv"]]
    assert kills == [[job.scheduler_job_id], ["-r", job.scheduler_job_id]]


# Refused, or waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": "nosuch"}, "nosuch: No such queue"),
        ({"cores_per_node": 99}, "Too many processors requested"),
        ({"queue": "small", "cores_per_node": 4}, "Too many processors requested"),
        ({"queue": "small", "time": "11"}, "RUNLIMIT: Cannot exceed queue's hard limit"),
    ],
    ids=["queue", "cores", "cores of the queue", "time"],
)
def test_a_refused_submit(service: BatchService, options: dict[str, Any], words: str) -> None:
    job = service.ended(service.submit(**options))
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert words in job.message
    assert service.story(job) == ["QUEUED", "STARTING", "FAILED"]
    assert not job.scheduler_job_id
    assert service.its_jobs(job) == []


def test_refused_by_the_site(service: BatchService) -> None:
    with service.fake.troubled("refuse", "esub: this project has no hours left"):
        job = service.ended(service.submit())
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert "this project has no hours left" in job.message


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("never", "never satisfied"), ("stopped", "inactivated"), ("hold", "bresume releases it")],
)
def test_what_can_never_run(service: BatchService, trouble: str, words: str) -> None:
    with service.fake.troubled(trouble):
        job = service.submit()
        service.waits(job, "NEVER_RUNNABLE", words)
        service.polled(3)
        service.cancel(job)
        job = service.ended(job)
    assert end(job) == UNSTARTED
    assert service.story(job) == ["QUEUED", "STARTING", "SCHEDULED", "NOTE", "CANCEL_REQUESTED", "CANCELLED"]


def test_held_and_released(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.submit()
        service.waits(job, "NEVER_RUNNABLE", "bresume")
    assert end(service.ended(job)) == DONE


def test_no_host_is_free(service: BatchService) -> None:
    first = service.running(service.submit(LONG, nodes=2, cores_per_node=16))
    second = service.submit()
    service.waits(second, "SCHEDULER_PENDING", "Job slot limit reached")
    service.cancel(first)
    assert end(service.ended(second)) == DONE


# Handing over ---------------------------------------------------------------------------------------------


def test_what_is_asked_for(service: BatchService) -> None:
    job = service.ended(service.submit(queue="small", time="5", tasks_per_node=2, memory="1GB"))
    folder = service.run_folder(job)
    (call,) = [call for call in service.fake.calls("bsub") if call["cwd"] == str(folder)]
    more = [] if is_old(service) else ["-rn", "-Jd", f"edbjobs:{job.uid}:root"]
    assert call["argv"][1:] == ["-o", "scheduler.out", *more]
    (its,) = service.its_jobs(job)
    unit = "" if is_old(service) else "MB"
    chosen = its["chosen"]
    assert (its["queue"], its["cores"], chosen["W"]) == ("small", 2, "0:05")
    assert chosen["R"] == f"span[ptile=2] rusage[mem=1024{unit}]"
    assert chosen["M"] == ("1048576" if is_old(service) else "1024MB")


def test_what_lsf_has_no_word_for(service: BatchService) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        service.submit(qos="long")
    assert "LSF has no qualities of service" in str(refused.value.details())
