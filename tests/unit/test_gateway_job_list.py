"""The documented list: oldest first even if the clock jumps, each job once, ended jobs in their final state."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from edbjobs.v1 import job_pb2, job_state_pb2
from edbjobs_server.contract.codec import timestamp
from edbjobs_server.core.job import Job
from edbjobs_server.gateway.rest import job_list
from support.core_jobs import make_job


def created(times: list[float]) -> list[Job]:
    return [replace(make_job(number), create_time=time) for number, time in enumerate(times, 1)]


def ended(number: int, time: float) -> job_pb2.Job:
    state = job_state_pb2.JOB_STATE_COMPLETED
    return job_pb2.Job(uid=f"u{number:04d}", id=f"job{number}", create_time=timestamp(time), state=state)


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "a clock that jumps"])
def test_jobs_are_in_order_of_creation(monkeypatch: pytest.MonkeyPatch, shuffled: bool) -> None:
    monkeypatch.setattr(job_list, "RUN", 7)
    times = [float(number) for number in range(1, 51)]
    if shuffled:
        random.Random(1).shuffle(times)
    others = [ended(901, 20.5), ended(900, 0.5), ended(902, 99.0)]
    found = [job.create_time.ToNanoseconds() / 1e9 for job in job_list._oldest_first(created(times), others)]
    assert found == sorted([*times, 0.5, 20.5, 99.0])


def test_a_job_that_ends_during_the_listing_is_listed_once_as_ended() -> None:
    found = list(job_list._oldest_first(created([1.0, 2.0, 3.0]), [ended(2, 2.0)]))
    assert [(job.id, job.state) for job in found] == [
        ("job1", job_state_pb2.JOB_STATE_QUEUED),
        ("job2", job_state_pb2.JOB_STATE_COMPLETED),
        ("job3", job_state_pb2.JOB_STATE_QUEUED),
    ]


@pytest.mark.parametrize("number", [0, 1, 3, 4, 7])
async def test_the_slices_are_one_array(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(job_list, "SLICE", 3)
    explained: list[str] = []

    def explain(job: job_pb2.Job) -> job_pb2.Job:
        explained.append(job.id)
        job.waiting.jobs_before = 7
        return job

    ordered = job_list._oldest_first(created([float(at) for at in range(1, number + 1)]), [])
    pieces = [piece async for piece in job_list._pieces(ordered, explain)]
    listed = json.loads(b"".join(pieces))
    assert [job["id"] for job in listed] == explained == [f"job{at}" for at in range(1, number + 1)]
    assert all(job["jobs_before"] == 7 for job in listed)
