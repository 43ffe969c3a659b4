"""The service is killed at every stage of a job on PBS or LSF: the job runs once, and its end is told as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.batch_service import LSF, PBS, QUICK, BatchService, Kind
from support.fake_batch import FakeBatch
from support.slurm_service import BY_SOMEBODY, CANCELLED, DONE, LONG, TO_STARTED, end, eventually, state

KINDS = {"pbs": PBS, "lsf": LSF}


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory, kind: Kind) -> Iterator[FakeBatch]:
    made = kind.start(tmp_path_factory.mktemp("survival") / "fake", {"n1": 16})
    yield made
    made.stop()


@pytest.fixture
def service(tmp_path: Path, kind: Kind, fake: FakeBatch) -> Iterator[BatchService]:
    with BatchService(tmp_path / "service", kind, fake, timing={**QUICK, "confirm": 1.0}) as running:
        yield running


def test_killed_while_the_job_waits(service: BatchService) -> None:
    with service.fake.troubled("hold"):
        job = service.scheduled(service.submit())
        service.again()
        service.waits(job, "NEVER_RUNNABLE", "releases it")
    job = service.ended(job)
    assert end(job) == DONE
    assert [word for word in service.story(job) if word != "NOTE"] == [*TO_STARTED, "COMPLETED"]
    assert len(service.its_jobs(job)) == 1


def test_killed_while_the_job_runs_and_ends(service: BatchService) -> None:
    jobs = [service.running(service.submit(demo)) for demo in ("seconds=3", "seconds=3.5")]
    service.kill()
    eventually("a solver is done", lambda: service.seen("end", jobs[0]), bool)
    service.start()
    for job in jobs:
        job = service.ended(job)
        assert end(job) == DONE
        assert service.story(job) == [*TO_STARTED, "COMPLETED"]
        assert service.seen("start", job) == 1


def test_killed_while_the_job_is_ending(service: BatchService) -> None:
    with service.fake.troubled("ending", "600"):
        job = service.running(service.submit("seconds=0.2"))
        eventually("its script has ended", lambda: service.its_jobs(job)[0]["state"], lambda now: now == "ending")
        service.again()
        service.answering(True)
        service.polled()
        assert state(service.job(job)) == "RUNNING"
    assert end(service.ended(job)) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]


@pytest.mark.parametrize("ending", ["exit", "by somebody", "by somebody while it waits"])
def test_what_happened_while_the_service_was_away(service: BatchService, ending: str) -> None:
    if ending.endswith("waits"):
        service.fake.trouble("hold")
        job = service.scheduled(service.submit())
    else:
        job = service.running(service.submit("seconds=3,fail=exit" if ending == "exit" else LONG))
    number = service.job(job).scheduler_job_id
    service.kill()
    try:
        if ending == "exit":
            eventually("its solver is done", lambda: service.seen("end", job), bool)
        else:
            service.fake.command(*service.kind.cancel, number)
            eventually("it is over", lambda: service.left(job), lambda left: not left)
    finally:
        service.fake.trouble("hold", None)
    service.start()
    job = service.ended(job)
    assert end(job) == (("FAILED", "EXIT_CODE", "EXIT_CODE") if ending == "exit" else BY_SOMEBODY)


@pytest.mark.parametrize(
    ("point", "attempts"),
    [
        ("cluster.before_submit", 2),  # it may have been taken: it is called off when that was denied for a while
        ("cluster.after_submit", 1),  # it was taken, which was not taken down: it is found by name
        ("run.before_end", 1),
    ],
)
def test_killed_at(service: BatchService, point: str, attempts: int) -> None:
    job = service.killed_at(point)
    assert job.attempt_count == attempts
    assert len(service.its_jobs(job)) == 1


def test_a_cancel_outlives_the_service(service: BatchService) -> None:
    job = service.running(service.submit(f"{LONG},term=ignore"))
    service.cancel(job)
    service.again()
    job = service.ended(job)
    assert end(job) == CANCELLED


def test_a_drain_lets_the_job_go_on(service: BatchService) -> None:
    job = service.running(service.submit("seconds=3"))
    assert service.stop() == 0
    service.start()
    job = service.ended(job)
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
