"""The service on PBS: limits, troubles, refusals and submits as only PBS has them; the rest is in test_batch_jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support.batch_service import PBS, BatchService, batch_service
from support.slurm_service import LONG, TO_STARTED, UNSTARTED, end


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchService]:
    with batch_service(tmp_path_factory.mktemp("pbs"), PBS) as running:
        yield running


def test_the_time_limit(service: BatchService) -> None:
    jobs = [service.submit(demo, time_limit={"seconds": 1}) for demo in (LONG, f"{LONG},term=ignore")]
    for job in jobs:
        job = service.ended(job)
        assert end(job) == ("FAILED", "TIMEOUT", "SCHEDULER")
        assert "time limit" in job.outcome.message
        assert service.story(job) == [*TO_STARTED, "FAILED"]


@pytest.mark.parametrize(
    ("trouble", "reason", "words"), [("memory", "OUT_OF_MEMORY", "memory"), ("lost", "NODE_FAIL", "node")]
)
def test_what_the_node_does(service: BatchService, trouble: str, reason: str, words: str) -> None:
    job = service.running(service.submit(LONG))
    with service.fake.troubled(trouble):
        job = service.ended(job)
    assert end(job) == ("FAILED", reason, "SCHEDULER")
    assert words in job.outcome.message
    assert service.story(job) == [*TO_STARTED, "FAILED"]


# Refused, or waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "nosuch"}, "Unknown queue"),
        ({"partition": "disabled"}, "Queue is not enabled"),
        ({"partition": "small", "cores_per_node": 4}, "Job violates queue and/or server resource limits"),
        (
            {"partition": "small", "time_limit": {"seconds": 172_800}},
            "Job violates queue and/or server resource limits",
        ),
        ({"licenses": {"nosuch": 3}}, "Unknown resource: nosuch"),
    ],
    ids=["queue", "disabled", "cores", "time", "resource"],
)
def test_a_refused_submit(service: BatchService, options: dict[str, Any], words: str) -> None:
    job = service.ended(service.submit(**options))
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert words in job.outcome.message
    assert service.story(job) == ["QUEUED", "STARTING", "FAILED"]
    assert not job.scheduler_job_id
    assert service.its_jobs(job) == []


@pytest.mark.parametrize(
    ("options", "trouble", "words"),
    [
        ({"cores_per_node": 99}, "", "nothing the cluster has is enough"),
        ({"partition": "stopped"}, "", "is stopped"),
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


# Handing over ---------------------------------------------------------------------------------------------


def test_what_is_asked_for(service: BatchService) -> None:
    """The submit is as it was recorded: run in the folder of the run, its output named without it."""
    job = service.ended(
        service.submit(partition="small", time_limit={"seconds": 300}, tasks_per_node=2, memory_bytes_per_node=1 << 30)
    )
    folder = service.run_folder(job)
    (call,) = [call for call in service.fake.calls("qsub") if call["cwd"] == str(folder)]
    assert call["argv"][1:] == ["-f", "-j", "oe", "-k", "oed", "-o", "scheduler.out", str(folder / "script")]
    (its,) = service.its_jobs(job)
    asked = {"select": "1:ncpus=2:mpiprocs=2:mem=1024mb", "walltime": "00:05:00"}
    assert (its["queue"], its["asked"], its["chosen"]["r"]) == ("small", asked, "n")


def test_what_pbs_has_no_word_for(service: BatchService) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        service.submit(constraint="bigmem")
    assert "PBS has no node features" in str(refused.value.details())
