"""PBS or LSF answers nonsense, or has forgotten: nothing is made up, and ends are told as they were."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from edbjobs.v1 import job_state_pb2
from support.batch_service import LSF, OLD_LSF, PBS, QUICK, BatchService
from support.slurm_service import DONE, LONG, TO_STARTED, end, eventually, kill, state

KINDS = {"pbs": PBS, "lsf": LSF, "old lsf": OLD_LSF}


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[BatchService]:
    folder = tmp_path_factory.mktemp("answers")
    fake = request.param.start(folder / "fake", {"n1": 16})
    timing = {**QUICK, "confirm": 2.0, "stale": 3.0}
    try:
        with BatchService(folder / "service", request.param, fake, timing=timing) as running:
            yield running
    finally:
        fake.stop()


@pytest.fixture(autouse=True)
def _calm(service: BatchService) -> None:
    service.answering(True)


@pytest.mark.parametrize("trouble", ["half", "duplicate", "duplicate=different", "its own"])
def test_answers_that_are_not_as_they_should_be(service: BatchService, trouble: str) -> None:
    """Nothing false follows from them; the job ends by what can be read of them, else when they are sound again."""
    own = "invalid_json" if service.kind is PBS else "banner"
    name, _, value = (own if trouble == "its own" else trouble).partition("=")
    job = service.running(service.submit("seconds=3"))
    with service.fake.troubled(name, value or "all"):
        service.asked(2)
        if not service.seen("end", job):
            assert state(service.job(job)) == "RUNNING"
        eventually("it is done", lambda: service.seen("end", job), bool)
        service.asked(1)
        assert state(service.job(job)) in ("RUNNING", "COMPLETED")
    job = service.ended(job)
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    assert len(service.its_jobs(job)) == 1


def test_forgotten_while_the_service_was_away(service: BatchService) -> None:
    """No history either: what the runs themselves have written decides, and the report that LSF 10.1 leaves of them."""
    by_report = ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")
    jobs = {
        "well": service.submit("seconds=3"),
        "badly": service.submit("seconds=3,fail=exit"),
        "by somebody": service.submit(LONG),
        "script killed": service.submit(LONG),
    }
    for job in jobs.values():
        service.running(job)
    with service.fake.troubled("hold"):
        jobs["never started"] = service.scheduled(service.submit())
        script = service.script_pid(jobs["script killed"])
        numbers = [service.job(jobs[name]).scheduler_job_id for name in ("by somebody", "never started")]
        service.kill()
        service.fake.command(*service.kind.cancel, *numbers)
        eventually("those are over", lambda: over(service, numbers), lambda left: not left)
    kill(script, signal.SIGKILL)
    with service.fake.troubled("history_off"), service.fake.troubled("purge"):
        eventually("all is forgotten", service.fake.jobs, lambda left: not left)
        service.start()
        found = {name: service.ended(job) for name, job in jobs.items()}
    assert {name: end(job) for name, job in found.items()} == {
        "well": DONE,
        "badly": ("FAILED", "EXIT_CODE", "EXIT_CODE"),
        "by somebody": by_report if service.kind is LSF else ("FAILED", "SIGNAL", "EXIT_CODE"),
        "script killed": ("FAILED", "LOST", "NONE"),
        "never started": ("FAILED", "LOST", "NONE"),
    }
    assert found["script killed"].outcome.evidence == job_state_pb2.EVIDENCE_NONE
    assert [service.seen("start", job) for job in found.values()] == [1, 1, 1, 1, 0]


def test_ended_jobs_that_only_the_history_knows(service: BatchService) -> None:
    """LSF forgets them after an hour or so, and its history has them; PBS tells them on request only."""
    jobs = [service.running(service.submit(demo)) for demo in ("seconds=1", "seconds=1,fail=exit", LONG)]
    number = service.job(jobs[2]).scheduler_job_id
    service.kill()
    service.fake.command(*service.kind.cancel, number)
    with service.fake.troubled("clean"):
        eventually("all are over", lambda: [left for job in jobs for left in service.left(job)], lambda left: not left)
        service.start()
        found = [service.ended(job) for job in jobs]
    assert [end(job) for job in found] == [
        DONE,
        ("FAILED", "EXIT_CODE", "EXIT_CODE"),
        ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER"),
    ]


def over(service: BatchService, numbers: list[str]) -> list[str]:
    jobs = service.fake.jobs()
    return [name for name in numbers if jobs[name.partition(".")[0]]["state"] != "ended"]
