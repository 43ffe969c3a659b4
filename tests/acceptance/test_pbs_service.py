"""The service on PBS: how its jobs end, are cancelled, refused and wait, against a fake that answers as recorded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support.batch_service import BEGUN, DONE, PBS, BatchService
from support.fake_batch import FakeBatch
from support.slurm_service import LONG, alive, end, eventually, kill, program, state

UNSTARTED = ("CANCELLED", "CANCELLED", "NONE")
CANCELLED = ("CANCELLED", "CANCELLED", "SCHEDULER")
BY_SOMEBODY = ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBatch]:
    made = PBS.start(tmp_path_factory.mktemp("pbs") / "pbs", {"n1": 16, "n2": 16})
    yield made
    made.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, fake: FakeBatch) -> Iterator[BatchService]:
    folder = tmp_path_factory.mktemp("service")
    polite = program(folder / "polite", "trap 'exit 0' TERM", "sleep 600 &", "wait")
    with BatchService(folder, PBS, fake, solvers=[str(polite)]) as running:
        yield running


# By itself ------------------------------------------------------------------------------------------------


def test_success_is_proven_by_the_log(service: BatchService) -> None:
    job = service.ended(service.submit("seconds=0.5", job_id="well"))
    assert end(job) == DONE
    assert (job.exit_code, list(job.attempts[0].nodes), job.executor) == (0, ["n1"], "pbs")
    assert "normal completion" in job.message
    assert service.story(job) == [*BEGUN, "COMPLETED"]
    started = service.history(job)[3].job.attempts[0]
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
    assert job.exit_code == {"exit": 3, "killed": 137, "engine": 0}[demo.rpartition("=")[2]]
    assert service.story(job) == [*BEGUN, "FAILED"]


def test_a_solver_that_is_killed(service: BatchService) -> None:
    job = service.running(service.submit(LONG))
    kill(job.attempts[0].pid, signal.SIGKILL)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "EXIT_CODE")
    assert job.exit_code == 137
    assert "signal 9" in job.message


def test_a_batch_script_that_is_killed(service: BatchService) -> None:
    job = service.running(service.submit(LONG))
    solver = job.attempts[0].pid
    kill(service.script_pid(job), signal.SIGKILL)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "SCHEDULER")
    assert job.exit_code == 137
    eventually("its solver is gone", lambda: alive([solver]), lambda left: not left)


# By others ------------------------------------------------------------------------------------------------


def test_qdel_of_a_job_that_waits(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.scheduled(service.submit())
        service.by_somebody(job)
        job = service.ended(job)
    assert end(job) == BY_SOMEBODY
    assert "before it began" in job.message
    assert not job.HasField("start_time")
    assert service.story(job)[-1] == "CANCELLED"
    assert service.seen("start", job) == 0


@pytest.mark.parametrize("demo", ["seconds=600", "seconds=600,term=ignore"])
def test_qdel_of_a_job_that_runs(service: BatchService, demo: str) -> None:
    job = service.running(service.submit(demo))
    service.by_somebody(job)
    job = service.ended(job)
    assert end(job) == BY_SOMEBODY
    assert not job.HasField("exit_code")
    assert service.story(job) == [*BEGUN, "CANCELLED"]
    assert not alive([job.attempts[0].pid])


def test_qdel_of_a_solver_that_ends_with_0_when_asked(service: BatchService) -> None:
    job = service.submit(ansys_edt_path=str(service.settings["solvers"][0]))
    service.until(job, "it runs", lambda now: bool(now.start_time.seconds))
    service.by_somebody(job)
    assert end(service.ended(job)) == BY_SOMEBODY


def test_the_time_limit(service: BatchService) -> None:
    jobs = [service.submit(demo, time="1") for demo in (LONG, f"{LONG},term=ignore")]
    for job in jobs:
        job = service.ended(job)
        assert end(job) == ("FAILED", "TIMEOUT", "SCHEDULER")
        assert "time limit" in job.message
        assert service.story(job) == [*BEGUN, "FAILED"]


@pytest.mark.parametrize(
    ("trouble", "reason", "words"), [("memory", "OUT_OF_MEMORY", "memory"), ("lost", "NODE_FAIL", "node")]
)
def test_what_the_node_does(service: BatchService, trouble: str, reason: str, words: str) -> None:
    job = service.running(service.submit(LONG))
    with service.fake.troubled(trouble):
        job = service.ended(job)
    assert end(job) == ("FAILED", reason, "SCHEDULER")
    assert words in job.message
    assert service.story(job) == [*BEGUN, "FAILED"]


def test_a_job_that_is_put_back_into_the_queue_does_not_run_twice(service: BatchService) -> None:
    """As when the node's daemon was killed a moment after the start (recorded)."""
    job = service.running(service.submit(LONG))
    with service.fake.troubled("requeue", service.number(job)):
        job = service.ended(job)
    assert end(job) == ("FAILED", "NODE_FAIL", "SCHEDULER")
    assert "not run a second time" in job.message
    assert service.story(job) == [*BEGUN, "FAILED"]
    assert service.seen("start", job) == 1


def test_a_job_whose_script_has_ended_is_not_over(service: BatchService) -> None:
    """State E lasted for more than 20 s when output could not be copied (recorded)."""
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
    assert "before it started" in job.message
    assert service.story(job)[-2:] == ["CANCEL_REQUESTED", "CANCELLED"]
    eventually("PBS has none of it", lambda: service.left(job), lambda left: not left)
    assert service.seen("start", job) == 0


@pytest.mark.parametrize("demo", [LONG, f"{LONG},term=ignore", f"{LONG},children=stubborn"])
@pytest.mark.parametrize("grace", [None, 0.0])
def test_a_cancel_while_it_runs(service: BatchService, demo: str, grace: float | None) -> None:
    """The time between TERM and KILL is that of PBS (`kill_delay`), unless it is to be killed at once."""
    job = service.running(service.submit(demo))
    service.cancel(job, grace)
    job = service.ended(job)
    assert end(job) == CANCELLED
    assert service.story(job) == [*BEGUN, "CANCEL_REQUESTED", "CANCELLED"]
    assert not alive([job.attempts[0].pid])
    if grace is None and demo == LONG:
        assert service.seen("sigterm", job) == 1


def test_a_server_that_ends_it_only_by_force(service: BatchService) -> None:
    with service.fake.troubled("deaf"):
        job = service.running(service.submit(LONG))
        service.cancel(job, 1.0)
        job = service.ended(job)
    assert end(job) == CANCELLED
    deletes = [call["argv"][1:] for call in service.fake.calls("qdel") if job.scheduler_job_id in call["argv"]]
    assert deletes == [[job.scheduler_job_id], ["-W", "force", job.scheduler_job_id]]


# Refused, or waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": "nosuch"}, "Unknown queue"),
        ({"queue": "disabled"}, "Queue is not enabled"),
        ({"queue": "small", "cores_per_node": 4}, "Job violates queue and/or server resource limits"),
        ({"queue": "small", "time": "48:00:00"}, "Job violates queue and/or server resource limits"),
        ({"licenses": ["nosuch:3"]}, "Unknown resource: nosuch"),
    ],
    ids=["queue", "disabled", "cores", "time", "resource"],
)
def test_a_refused_submit(service: BatchService, options: dict[str, Any], words: str) -> None:
    job = service.ended(service.submit(**options))
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert words in job.message
    assert service.story(job) == ["QUEUED", "STARTING", "FAILED"]
    assert not job.scheduler_job_id
    assert service.its_jobs(job) == []


def test_refused_by_a_hook_of_the_site(service: BatchService) -> None:
    with service.fake.troubled("refuse", "this project has no hours left"):
        job = service.ended(service.submit())
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert "this project has no hours left" in job.message


@pytest.mark.parametrize(
    ("options", "trouble", "words"),
    [
        ({"cores_per_node": 99}, "", "nothing the cluster has is enough"),
        ({"queue": "stopped"}, "", "is stopped"),
        ({}, "hold", "qrls releases it"),
    ],
    ids=["too many cores", "stopped queue", "held"],
)
def test_what_can_never_run(service: BatchService, options: dict[str, Any], trouble: str, words: str) -> None:
    with service.fake.troubled(trouble or "none"):
        job = service.submit(**options)
        service.waits(job, "NEVER_RUNNABLE", words)
        service.polled(3)
        service.cancel(job)
        job = service.ended(job)
    assert end(job) == UNSTARTED
    assert service.story(job) == ["QUEUED", "STARTING", "SCHEDULED", "NOTE", "CANCEL_REQUESTED", "CANCELLED"]


def test_held_and_released(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.submit()
        service.waits(job, "NEVER_RUNNABLE", "qrls")
    assert end(service.ended(job)) == DONE


def test_no_node_is_free(service: BatchService) -> None:
    first = service.running(service.submit(LONG, nodes=2, cores_per_node=16))
    second = service.submit()
    service.waits(second, "SCHEDULER_PENDING", "Not enough free nodes")
    service.cancel(first)
    assert end(service.ended(second)) == DONE


# Handing over ---------------------------------------------------------------------------------------------


def test_what_is_asked_for(service: BatchService) -> None:
    """The submit is as it was recorded: run in the folder of the run, its output named without it."""
    job = service.ended(service.submit(queue="small", time="300", tasks_per_node=2, memory="1GB"))
    folder = service.run_folder(job)
    (call,) = [call for call in service.fake.calls("qsub") if call["cwd"] == str(folder)]
    assert call["argv"][1:] == ["-f", "-j", "oe", "-k", "oed", "-o", "scheduler.out", str(folder / "script")]
    (its,) = service.its_jobs(job)
    asked = {"select": "1:ncpus=2:mpiprocs=2:mem=1024mb", "walltime": "00:05:00"}
    assert (its["queue"], its["asked"], its["chosen"]["r"]) == ("small", asked, "n")


def test_what_pbs_has_no_word_for(service: BatchService) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        service.submit(constraints="bigmem")
    assert "PBS has no node features" in str(refused.value.details())
