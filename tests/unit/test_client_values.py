from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs import _calls as calls
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
from google.protobuf.duration_pb2 import Duration

PAIRS: list[tuple[type[Any], Any]] = [
    (m.Attempt, job_pb2.Attempt),
    (m.JobProgress, job_pb2.JobProgress),
    (m.Job, job_pb2.Job),
    (m.Event, event_pb2.Event),
    (m.Volume, resource_pb2.Volume),
    (m.HostResources, resource_pb2.HostResources),
    (m.Reservation, job_pb2.Reservation),
    (m.Position, event_pb2.Position),
    (m.ServiceDetails, cluster_service_pb2.ServiceDetails),
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
    names = message.DESCRIPTOR.fields_by_name
    assert {f.name if f.name in names else c._RENAMED[f.name] for f in fields(kind)} == set(names)
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


def test_an_absent_limit_is_none_and_0_is_a_limit() -> None:
    limits = resource_pb2.Limits(max_cores=0, users={"ann": resource_pb2.UserLimits(max_cores=0)})
    found = c.read(m.Limits, limits)
    assert (found.max_cores, found.max_local_jobs, found.max_cpu_percent, found.default_user) == (0, None, None, None)
    assert found.users == {"ann": m.UserLimits(max_cores=0)}


def test_numbers_of_a_partition_that_are_not_known_are_none() -> None:
    limit = Duration(seconds=90)
    found = c.read(m.Partition, cluster_pb2.Partition(name="p", cores_total=0, time_limit=limit))
    assert (found.cores_total, found.cores_used, found.time_limit) == (0, None, timedelta(seconds=90))


def test_limits_are_sent_by_presence() -> None:
    request: Any = calls.update_limits(
        {
            "max_local_jobs": 0,
            "max_cores": None,
            "licenses": {"a": 1, "b": None},
            "users": {"ann": m.UserLimits(max_cores=0), "AnnLee": None},
            "default_user": None,
            "etag": "e",
        }
    ).request
    assert request.limits == resource_pb2.Limits(
        max_local_jobs=0, licenses={"a": 1}, users={"ann": resource_pb2.UserLimits(max_cores=0)}, etag="e"
    )
    assert list(request.remove_mask.paths) == ["default_user", "max_cores"]
    assert (list(request.remove_licenses), list(request.remove_users)) == (["b"], ["AnnLee"])
