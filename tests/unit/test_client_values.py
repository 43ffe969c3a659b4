from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs import _convert as c
from edbjobs import _models as m
from edbjobs._enums import EndReason, JobStatus, WaitingReason
from edbjobs._text import age, state_text
from edbjobs.v1 import (
    cluster_pb2,
    cluster_service_pb2,
    event_pb2,
    job_pb2,
    jobs_messages_pb2,
    principal_pb2,
    resource_pb2,
)

PAIRS: list[tuple[type[Any], Any]] = [
    (m.Attempt, job_pb2.Attempt),
    (m.JobProgress, job_pb2.JobProgress),
    (m.Job, job_pb2.Job),
    (m.Event, event_pb2.Event),
    (m.DiskUsage, resource_pb2.DiskUsage),
    (m.ResourceSnapshot, resource_pb2.ResourceSnapshot),
    (m.UserLimits, resource_pb2.UserLimits),
    (m.Limits, resource_pb2.Limits),
    (m.QueueStatus, resource_pb2.QueueStatus),
    (m.Principal, principal_pb2.Principal),
    (m.SchedulerStatus, cluster_pb2.SchedulerStatus),
    (m.Partition, cluster_pb2.Partition),
    (m.ClusterJob, cluster_pb2.ClusterJob),
    (m.Solver, cluster_pb2.Solver),
    (m.SystemStatus, cluster_service_pb2.GetSystemStatusResponse),
    (m.Preview, jobs_messages_pb2.PreviewJobResponse),
]


@pytest.mark.parametrize(("kind", "message"), PAIRS)
def test_every_field_of_the_contract_has_its_attribute(kind: type[Any], message: Any) -> None:
    ours = {c._RENAMED.get(field.name, field.name) for field in fields(kind)}
    assert ours == {field.name for field in message.DESCRIPTOR.fields}
    c.read(kind, message())


def test_values_are_json_values_when_written() -> None:
    job = c.read(m.Job, job_pb2.Job(uid="u", id="i", state=5, attempts=[job_pb2.Attempt(number=1)]))  # type: ignore[arg-type]
    written = job.to_dict()
    assert written["status"] == "completed"
    assert written["attempts"][0]["number"] == 1
    assert written["config"] is None


def make(status: JobStatus, **more: Any) -> m.Job:
    return m.Job("u", "i", status, **more)


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (make(JobStatus.COMPLETED, reason=EndReason.NORMAL), "completed"),
        (make(JobStatus.CANCELLED, reason=EndReason.CANCELLED), "cancelled"),
        (make(JobStatus.FAILED, reason=EndReason.EXIT_CODE, message="exit code 3"), "failed (exit code): exit code 3"),
        (make(JobStatus.QUEUED, waiting_reason=WaitingReason.JOB_LIMIT), "queued: job limit"),
        (make(JobStatus.QUEUED, waiting_reason=WaitingReason.CORES, waiting_detail="8 of 4"), "queued: 8 of 4"),
        (
            make(JobStatus.RUNNING, progress=m.JobProgress(adaptive_pass=2, delta_s=0.05, target_delta_s=0.02)),
            "running, pass 2, delta S 0.05 (target 0.02)",
        ),
        (
            make(JobStatus.RUNNING, progress=m.JobProgress(phase="sweep", frequencies_solved=7, frequencies_total=9)),
            "running, sweep, 7 of 9 frequencies solved",
        ),
        (make(JobStatus.UNKNOWN), "unknown"),
    ],
)
def test_the_short_text_of_a_job(job: m.Job, text: str) -> None:
    assert state_text(job) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59, "59s"), (61, "1m01s"), (3660, "1h01m"), (359_999, "99h59m"), (864_000, "10d")],
)
def test_durations_fit_six_characters(seconds: int, text: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert age(start, start + timedelta(seconds=seconds)) == text
    assert age(None) == ""
