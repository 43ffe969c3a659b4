"""PBS or LSF is away, hangs or is slow: nothing is lost or doubled, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from support.batch_service import LSF, PBS, QUICK, BatchService
from support.slurm_service import DONE, LONG, TO_STARTED, end, eventually, state

KINDS = {"pbs": PBS, "lsf": LSF}
BUSY = 0.25  # of a core: what a service may take that has nothing to do but to wait; others need the machine as well


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[BatchService]:
    folder = tmp_path_factory.mktemp("troubles")
    fake = request.param.start(folder / "fake", {"n1": 16})
    timing = {**QUICK, "confirm": 2.0}
    try:
        with BatchService(folder / "service", request.param, fake, deadline=2.5, timing=timing) as running:
            yield running
    finally:
        fake.stop()


@pytest.fixture(autouse=True)
def _calm(service: BatchService) -> None:
    service.answering(True)


def seconds(service: BatchService) -> float:
    """Processor time that the service has taken."""
    assert service.process is not None
    words = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


@pytest.mark.parametrize("trouble", ["down", "hang"])
def test_silent_while_jobs_run_and_end(service: BatchService, trouble: str) -> None:
    jobs = [service.running(service.submit(demo)) for demo in ("seconds=3", "seconds=3,fail=exit", "seconds=8")]
    silent = time.time()
    with service.fake.troubled(trouble):
        status = service.answering(False)
        assert status.error
        assert status.version or service.kind is LSF
        assert silent <= status.since_time.seconds + 1 <= time.time() + 1
        eventually("two are done", lambda: [service.seen("end", job) for job in jobs[:2]], all)
        local = service.submit(scheduler="local")
        assert end(service.ended(local, 10)) == DONE
        taken, begin = seconds(service), time.monotonic()
        time.sleep(3)  # a while in which nothing happens
        assert seconds(service) - taken < BUSY * (time.monotonic() - begin)
        assert [state(service.job(job)) for job in jobs] == ["RUNNING"] * 3
    service.answering(True)
    found = [service.ended(job) for job in jobs]
    assert [end(job) for job in found] == [DONE, ("FAILED", "EXIT_CODE", "EXIT_CODE"), DONE]
    assert all(service.story(job)[:4] == TO_STARTED for job in jobs)
    assert [service.seen("start", job) for job in jobs] == [1] * 3


def test_silent_when_a_job_comes(service: BatchService) -> None:
    with service.fake.troubled("down"):
        service.answering(False)
        job = service.submit()
        limited = service.submit(scheduler_wait_limit=Duration(seconds=1))
        service.waits(job, "SCHEDULER_UNREACHABLE", "since")
        limited = service.ended(limited)
        assert end(limited) == ("FAILED", "SCHEDULER_UNREACHABLE", "SERVICE")
        assert "scheduler_wait_limit" in limited.outcome.message
    job = service.ended(job)
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    assert (len(service.its_jobs(job)), service.its_jobs(limited)) == (1, [])


def test_the_submit_alone_hangs_and_nothing_came_of_it(service: BatchService) -> None:
    """It is unknown whether it was accepted; denied for a while, it is submitted again."""
    with service.fake.troubled("hang", service.kind.submit[0]):
        before = len(service.fake.calls(*service.kind.submit))
        job = service.submit()
        eventually("it is tried", lambda: len(service.fake.calls(*service.kind.submit)), lambda now: now > before)
        service.answering(False)
    job = service.ended(job)
    assert end(job) == DONE
    assert len(service.its_jobs(job)) == 1
    assert service.seen("start", job) == 1


def test_a_submit_that_was_not_answered_but_happened(service: BatchService) -> None:
    with service.fake.troubled("submit_hangs"):
        job = service.submit("seconds=0.5")
        eventually("it was taken", lambda: service.its_jobs(job), bool)
        job = service.ended(job)
    assert end(job) == DONE
    assert job.attempt_count == 1
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    (its,) = service.its_jobs(job)
    assert service.number(job) == its["number"]
    assert service.seen("start", job) == 1


def test_a_cancel_of_a_submit_that_is_not_answered(service: BatchService) -> None:
    with service.fake.troubled("submit_hangs"), service.fake.troubled("hold"):
        job = service.submit(LONG)
        eventually("it was taken", lambda: service.its_jobs(job), bool)
        service.cancel(job)
        job = service.ended(job)
        assert end(job) == ("CANCELLED", "CANCELLED", "SERVICE")
        eventually("it is called off there", lambda: service.left(job), lambda left: not left)
    assert service.seen("start", job) == 0


def test_slow_answers(service: BatchService) -> None:
    with service.fake.troubled("slow", "1"):
        job = service.ended(service.submit())
    assert end(job) == DONE
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
