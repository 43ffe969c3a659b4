"""The service on LSF, 10.1 and older: what only LSF has of limits, troubles and refusals; else see test_batch_jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support.batch_service import LSF, OLD_LSF, BatchService, batch_service
from support.slurm_service import DONE, LONG, TO_STARTED, UNSTARTED, end, state


@pytest.fixture(scope="module", params=[LSF, OLD_LSF], ids=["10.1", "old"])
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[BatchService]:
    with batch_service(tmp_path_factory.mktemp("lsf"), request.param) as running:
        yield running


def is_old(service: BatchService) -> bool:
    return service.kind is OLD_LSF


def test_the_time_limit(service: BatchService) -> None:
    """A minute is a second here. Old ones give no reason: it counts that the job ran for as long as it might."""
    jobs = [service.submit(demo, time_limit={"seconds": 60}) for demo in (LONG, f"{LONG},term=ignore")]
    for job in jobs:
        job = service.ended(job)
        assert end(job) == ("FAILED", "TIMEOUT", "SCHEDULER")
        assert ("limit of 1 min" if is_old(service) else "RUNLIMIT") in job.outcome.message
        assert service.story(job) == [*TO_STARTED, "FAILED"]


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
        assert words in job.outcome.message
    elif trouble == "memory":
        assert end(job) == ("FAILED", "EXIT_CODE", "SCHEDULER")
        assert (job.outcome.exit_code, "memory" in job.outcome.message) == (137, True)
    else:
        assert end(job) == ("FAILED", "LOST", "NONE")
    assert service.story(job) == [*TO_STARTED, "FAILED"]


def test_a_host_that_does_not_answer(service: BatchService) -> None:
    job = service.running(service.submit("seconds=3"))
    with service.fake.troubled("unknown"):
        service.polled(3)
        assert state(service.job(job)) == "RUNNING"
    assert end(service.ended(job)) == DONE


# Refused, or waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "nosuch"}, "nosuch: No such queue"),
        ({"cores_per_node": 99}, "Too many processors requested"),
        ({"partition": "small", "cores_per_node": 4}, "Too many processors requested"),
        ({"partition": "small", "time_limit": {"seconds": 660}}, "RUNLIMIT: Cannot exceed queue's hard limit"),
    ],
    ids=["queue", "cores", "cores of the queue", "time"],
)
def test_a_refused_submit(service: BatchService, options: dict[str, Any], words: str) -> None:
    job = service.ended(service.submit(**options))
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert words in job.outcome.message
    assert service.story(job) == ["QUEUED", "STARTING", "FAILED"]
    assert not job.scheduler_job_id
    assert service.its_jobs(job) == []


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


# Handing over ---------------------------------------------------------------------------------------------


def test_what_is_asked_for(service: BatchService) -> None:
    job = service.ended(
        service.submit(partition="small", time_limit={"seconds": 300}, tasks_per_node=2, memory_bytes_per_node=1 << 30)
    )
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
