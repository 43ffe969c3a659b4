from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs import _calls as calls
from edbjobs import _convert as c
from edbjobs import _models as m
from edbjobs._enums import EndReason, JobState, JobView, SolvePhase, WaitingReason
from edbjobs._text import age, state_text
from edbjobs.v1 import (
    cluster_pb2,
    cluster_service_pb2,
    convergence_pb2,
    event_pb2,
    job_config_pb2,
    job_pb2,
    jobs_messages_pb2,
    principal_pb2,
    resource_pb2,
)
from google.protobuf.duration_pb2 import Duration

PAIRS: list[tuple[type[Any], Any]] = [
    (m.Attempt, job_pb2.Attempt),
    (m.AdaptivePass, convergence_pb2.AdaptivePass),
    (m.JobProgress, convergence_pb2.JobProgress),
    (m.Job, job_pb2.Job),
    (m.Outcome, job_pb2.Outcome),
    (m.Reservation, job_pb2.Reservation),
    (m.StartEstimate, job_pb2.StartEstimate),
    (m.Waiting, job_pb2.Waiting),
    (m.Position, event_pb2.Position),
    (m.WatchEvent, event_pb2.WatchEvent),
    (m.JobChange, event_pb2.JobChange),
    (m.LimitsChange, event_pb2.LimitsChange),
    (m.QueueChange, event_pb2.QueueChange),
    (m.JobUpdate, jobs_messages_pb2.JobUpdate),
    (m.RunUsage, jobs_messages_pb2.RunUsage),
    (m.Volume, resource_pb2.Volume),
    (m.HostResources, resource_pb2.HostResources),
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


OF_THE_CLIENT = {m.WatchEvent: {"position"}, m.JobChange: {"left"}}  # taken from the message around it


@pytest.mark.parametrize(("kind", "message"), PAIRS)
def test_every_field_of_the_contract_has_its_attribute(kind: type[Any], message: Any) -> None:
    names = message.DESCRIPTOR.fields_by_name
    ours = {f.name if f.name in names else c._RENAMED.get(f.name, f.name) for f in fields(kind)}
    assert ours - OF_THE_CLIENT.get(kind, set()) == set(names)
    c.read(kind, message())


OPTIONAL_NUMBERS = [
    (m.Attempt, job_pb2.Attempt, ("pid", "peak_memory_bytes")),
    (m.Outcome, job_pb2.Outcome, ("exit_code", "signal")),
    (m.Waiting, job_pb2.Waiting, ("jobs_before",)),
    (
        m.AdaptivePass,
        convergence_pb2.AdaptivePass,
        ("frequency_hz", "elements", "matrix_size", "delta", "peak_memory_bytes"),
    ),
    (
        m.JobProgress,
        convergence_pb2.JobProgress,
        ("current_pass", "max_passes", "target_delta", "frequencies_solved", "frequencies_total", "fraction"),
    ),
]


@pytest.mark.parametrize(("kind", "message", "names"), OPTIONAL_NUMBERS)
def test_an_absent_number_is_none_and_zero_is_zero(kind: type[Any], message: Any, names: tuple[str, ...]) -> None:
    absent, zero = c.read(kind, message()), c.read(kind, message(**dict.fromkeys(names, 0)))
    assert {name for name in names if getattr(absent, name) is None} == set(names)
    assert {name: getattr(zero, name) for name in names} == dict.fromkeys(names, 0)
    assert {field.name for field in message.DESCRIPTOR.fields if field.has_presence and not field.message_type} == {
        *names
    }


def test_an_absent_message_is_none_but_a_job_always_has_a_reservation() -> None:
    job = c.read(m.Job, job_pb2.Job())
    assert (job.waiting, job.outcome, job.progress, job.end_time, job.view) == (None, None, None, None, None)
    assert job.reservation == m.Reservation()
    given = job_pb2.Job(reservation=job_pb2.Reservation(cores=4, memory_bytes=1 << 30, licenses={"hfss": 0}))
    assert c.read(m.Job, given).reservation == m.Reservation(4, 1 << 30, {"hfss": 0})


def test_a_job_has_ended_if_its_end_time_is_set() -> None:
    message = job_pb2.Job(state=99)  # type: ignore[arg-type]
    assert not c.read(m.Job, message).ended
    message.end_time.seconds = 1
    job = c.read(m.Job, message)
    assert (job.ended, job.state) == (True, JobState.UNKNOWN)


def test_reasons_of_a_newer_service_are_unknown_and_keep_their_message() -> None:
    message = job_pb2.Job(state=2, uid="u", id="i")  # type: ignore[arg-type]
    message.waiting.reason = 999  # type: ignore[assignment]
    message.waiting.message = "the moon is full"
    job = c.read(m.Job, message)
    assert job.waiting is not None
    assert job.waiting.reason is WaitingReason.UNKNOWN
    assert state_text(job) == "queued: the moon is full"


def test_durations_are_timedeltas() -> None:
    message = job_pb2.Attempt(number=1)
    assert c.read(m.Attempt, message).cpu_duration is None
    message.cpu_duration.FromMilliseconds(61_250)
    assert c.read(m.Attempt, message).cpu_duration == timedelta(seconds=61.25)


def test_values_are_json_values_when_written() -> None:
    attempt = job_pb2.Attempt(number=1)
    attempt.cpu_duration.FromMilliseconds(61_250)
    message = job_pb2.Job(uid="u", id="i", state=5, attempts=[attempt])  # type: ignore[arg-type]
    message.outcome.exit_code = 0
    written = c.read(m.Job, message).to_dict()
    assert written["state"] == "completed"
    assert written["attempts"][0]["number"] == 1
    assert written["attempts"][0]["cpu_duration"] == "61.25s"
    assert written["attempts"][0]["pid"] is None
    assert written["outcome"]["exit_code"] == 0
    assert written["waiting"] is None
    assert written["config"] is None


def test_the_configuration_of_a_basic_job_is_the_summary_that_was_sent() -> None:
    config = job_config_pb2.JobConfig(project_path="/p/a.aedb", batch="b", labels={"k": "v"})
    job = c.read(m.Job, job_pb2.Job(uid="u", id="i", view=1, config=config))  # type: ignore[arg-type]
    assert job.view is JobView.BASIC
    assert job.config is None
    assert job.batch == "b"
    assert job.to_dict()["config"] == {"project_path": "/p/a.aedb", "batch": "b", "labels": {"k": "v"}}


NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def make(state: JobState, **more: Any) -> m.Job:
    return m.Job("u", "i", state, **more)


def ended(state: JobState, reason: EndReason, message: str = "") -> m.Job:
    return make(state, end_time=NOW, outcome=m.Outcome(reason, message))


def running(**progress: Any) -> m.Job:
    return make(JobState.RUNNING, progress=m.JobProgress(**progress))


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (ended(JobState.COMPLETED, EndReason.NORMAL), "completed"),
        (ended(JobState.COMPLETED, EndReason.UP_TO_DATE), "completed (up to date)"),
        (ended(JobState.CANCELLED, EndReason.CANCELLED), "cancelled"),
        (ended(JobState.FAILED, EndReason.EXIT_CODE, "exit code 3"), "failed (exit code): exit code 3"),
        (make(JobState.UNKNOWN, end_time=NOW), "unknown"),
        (make(JobState.QUEUED), "queued"),
        (make(JobState.QUEUED, waiting=m.Waiting(WaitingReason.JOB_LIMIT)), "queued: job limit"),
        (make(JobState.QUEUED, waiting=m.Waiting(WaitingReason.CORES, "8 of 4")), "queued: 8 of 4"),
        (make(JobState.SCHEDULED, scheduler="slurm", scheduler_job_id="47"), "scheduled: slurm 47"),
        (running(), "running"),
        (running(phase=SolvePhase.MESHING), "running, meshing"),
        (
            running(current_pass=3, max_passes=9, last_pass=m.AdaptivePass(2, delta=0.05), target_delta=0.02),
            "running, pass 3 of 9, delta S 0.05 (target 0.02)",
        ),
        (running(last_pass=m.AdaptivePass(2, delta_name="Delta F", delta=0.0)), "running, pass 2, Delta F 0"),
        (running(current_pass=1), "running, pass 1"),
        (
            running(phase=SolvePhase.SWEEP, frequencies_solved=7, frequencies_total=9),
            "running, sweep, 7 of 9 frequencies solved",
        ),
        (running(phase=SolvePhase.SWEEP, frequencies_solved=0), "running, sweep, 0 frequencies solved"),
        (running(phase=SolvePhase.SWEEP), "running, sweep"),
        (make(JobState.UNKNOWN), "unknown"),
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
