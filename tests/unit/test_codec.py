from __future__ import annotations

from dataclasses import fields

import pytest
from edbjobs.v1 import event_pb2, job_config_pb2, job_pb2, job_state_pb2, principal_pb2, resource_pb2
from edbjobs_server.contract.codec import (
    Internals,
    basic_bytes,
    embedded,
    event_to_bytes,
    job_from_message,
    job_to_message,
    limits_from_message,
    limits_to_message,
    seconds,
    spec_from_config,
    summary_of,
    timestamp,
    without_config,
)
from edbjobs_server.core.job import Attempt, Job, Outcome, Spec
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.principal import Authentication, Principal, Role
from edbjobs_server.core.states import EventType, Evidence, Reason, State
from hypothesis import given
from hypothesis import strategies as st

ANN = Principal("ann", Role.USER, Authentication.TOKEN, "ipv4:1.2.3.4:5", "anna")

INT32 = st.integers(-(2**31), 2**31 - 1)
NATURAL = st.integers(0, 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TIMES = st.floats(2.0**24, 253402300799.0)
SECONDS = st.integers(0, 10_000_000)
REASONS = st.sampled_from(Reason)


def durations() -> st.SearchStrategy[object]:
    from google.protobuf.duration_pb2 import Duration

    return st.builds(Duration, seconds=SECONDS, nanos=st.integers(0, 999_999).map(lambda value: value * 1000))


def configs() -> st.SearchStrategy[job_config_pb2.JobConfig]:
    retry = st.builds(
        job_config_pb2.RetryOptions,
        max_attempts=st.none() | st.integers(1, 100),
        reasons=st.lists(st.sampled_from([int(reason) for reason in Reason]), max_size=4),
        initial_delay=st.none() | durations(),
        max_delay=st.none() | durations(),
    )
    return st.builds(
        job_config_pb2.JobConfig,
        project_path=TEXT,
        design=TEXT,
        cores=st.none() | NATURAL,
        licenses=st.dictionaries(TEXT, NATURAL, max_size=3),
        labels=st.dictionaries(TEXT, TEXT, max_size=3),
        environment=st.dictionaries(TEXT, TEXT, max_size=3),
        batch=TEXT,
        time_limit=st.none() | durations(),
        cancel_grace_period=st.none() | durations(),
        retry=st.none() | retry,
    )


OUTCOMES = st.builds(
    Outcome,
    reason=REASONS,
    evidence=st.sampled_from(Evidence),
    message=TEXT,
    exit_code=st.none() | INT32,
    signal=st.none() | INT32,
)
ATTEMPTS = st.builds(
    Attempt,
    number=st.integers(1, 2**31 - 1),
    reserve_time=TIMES,
    boot_id=st.text("0123456789abcdef-", max_size=36),
    start_time=st.none() | TIMES,
    end_time=st.none() | TIMES,
    nodes=st.lists(TEXT, max_size=3).map(tuple),
    pid=st.none() | NATURAL,
    scheduler_job_id=TEXT,
    outcome=st.none() | OUTCOMES,
    cpu_duration=st.none() | SECONDS.map(float),
    peak_memory_bytes=st.none() | st.integers(0, 2**63 - 1),
    run_directory=TEXT,
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    config = draw(configs())
    spec = spec_from_config(
        config,
        project_path=draw(TEXT),
        project_key=draw(TEXT),
        scheduler=draw(TEXT),
        cores=draw(NATURAL),
        memory_bytes=draw(st.integers(0, 2**63 - 1)),
    )
    others = st.fixed_dictionaries(
        {
            "uid": TEXT,
            "seq": NATURAL,
            "id": TEXT,
            "create_time": TIMES,
            "state": st.sampled_from(State),
            "request_id": TEXT,
            "digest": st.binary(max_size=16),
            "priority": INT32,
            "user": TEXT,
            "revision": st.integers(0, 2**63 - 1),
            "held": st.booleans(),
            "next_attempt_time": st.just(0.0) | TIMES,
            "backing_off": st.booleans(),
            "attempts": st.lists(ATTEMPTS, max_size=3).map(tuple),
            "start_time": st.none() | TIMES,
            "end_time": st.none() | TIMES,
            "cancel_request_time": st.none() | TIMES,
            "cancel_grace_period": st.none() | st.floats(0, 3600),
            "outcome": st.none() | OUTCOMES,
            "waiting_message": TEXT,
            "unkillable": st.lists(NATURAL, max_size=3).map(tuple),
            "retry_of": TEXT,
            "superseded_by": TEXT,
            "warnings": st.lists(TEXT, max_size=3).map(tuple),
            "aedt_version": TEXT,
            "demo": st.booleans(),
        }
    )
    data = config.SerializeToString(deterministic=True)
    return Job(spec=spec, config=data, summary=summary_of(config), **draw(others))


@given(jobs())
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    assert job_from_message(job_to_message(job), Internals.of(job)) == job


def test_every_field_is_kept_somewhere() -> None:
    places = {
        Job: {*job_pb2.Job.DESCRIPTOR.fields_by_name, *Internals._fields, "spec", "summary"},
        Attempt: {*job_pb2.Attempt.DESCRIPTOR.fields_by_name, "boot_id"},
        Outcome: {*job_pb2.Outcome.DESCRIPTOR.fields_by_name},
        Limits: {*resource_pb2.Limits.DESCRIPTOR.fields_by_name},
        UserLimits: {*resource_pb2.UserLimits.DESCRIPTOR.fields_by_name},
    }
    for kind, known in places.items():
        assert not {field.name for field in fields(kind)} - known, f"fields of {kind.__name__} that are not mapped"


@given(jobs())
def test_a_basic_job_has_five_fields_of_its_configuration_and_no_attempts(job: Job) -> None:
    basic, full = job_pb2.Job.FromString(basic_bytes(job)), job_to_message(job)
    config = full.config
    summary = job_config_pb2.JobConfig(
        project_path=config.project_path,
        design=config.design,
        setup=config.setup,
        batch=config.batch,
        labels=dict(config.labels),
    )
    assert basic.config == summary
    assert (len(basic.attempts), len(basic.warnings), basic.HasField("progress")) == (0, 0, False)
    assert (basic.view, full.view) == (job_pb2.JOB_VIEW_BASIC, job_pb2.JOB_VIEW_FULL)
    for message in (basic, full):
        for name in ("config", "attempts", "warnings", "view"):
            message.ClearField(name)
    assert basic == full, "all else is the same in both views"


@given(jobs())
def test_a_configuration_comes_back_as_it_was_sent(job: Job) -> None:
    assert job_to_message(job).config == job_config_pb2.JobConfig.FromString(job.config)


@given(jobs())
def test_a_basic_job_can_be_had_without_its_configuration(job: Job) -> None:
    expected = job_pb2.Job.FromString(basic_bytes(job))
    expected.ClearField("config")
    assert job_pb2.Job.FromString(without_config(basic_bytes(job), job)) == expected


@given(TIMES)
def test_times_come_back_bit_for_bit(time: float) -> None:
    assert seconds(timestamp(time)) == time


@pytest.mark.parametrize("time", [0.0, 0.9999999999, -1.5, 1e-9])
def test_early_times_stay_valid(time: float) -> None:
    made = timestamp(time)
    assert 0 <= made.nanos < 1_000_000_000
    assert seconds(made) == pytest.approx(time, abs=1e-9)


@given(jobs(), TEXT)
def test_an_event_carries_the_job_as_it_is_stored(job: Job, detail: str) -> None:
    data = event_to_bytes(
        7, 1.7e9, EventType.JOB_STARTED, job=basic_bytes(job), old_state=2, principal=ANN, detail=detail
    )
    event = event_pb2.WatchEvent.FromString(data)
    change = event.job_change
    assert change.job == job_pb2.Job.FromString(basic_bytes(job))
    assert (change.type, change.old_state) == (event_pb2.JOB_CHANGE_TYPE_STARTED, job_state_pb2.JOB_STATE_QUEUED)
    assert (event.revision, event.principal) == (
        7,
        principal_pb2.Principal(
            name="ann",
            role=principal_pb2.ROLE_USER,
            authentication=principal_pb2.AUTHENTICATION_TOKEN,
            user="anna",
            address="ipv4:1.2.3.4:5",
        ),
    )
    assert (seconds(event.time), event.message) == (1.7e9, detail)


@pytest.mark.parametrize("kind", EventType)
def test_every_event_says_what_changed(kind: EventType) -> None:
    job = basic_bytes(Job("u", 1, "j", spec_of(), 1.0)) if kind.name.startswith("JOB_") else b""
    limits = Limits(max_cores=2) if kind is EventType.LIMITS_UPDATED else None
    data = event_to_bytes(1, 1.7e9, kind, job=job, limits=limits, old_limits=limits and Limits(max_cores=1))
    event = event_pb2.WatchEvent.FromString(data)
    change = event.WhichOneof("change")
    if limits is not None:
        assert change == "limits_change"
        found = event.limits_change
        assert (found.limits.max_cores, found.old_limits.max_cores) == (2, 1)
    elif job:
        assert change == "job_change"
        assert event_pb2.JobChangeType.Name(event.job_change.type) == kind.name.replace("JOB_", "JOB_CHANGE_TYPE_")
    else:
        assert change == "queue_change"
        name = event_pb2.QueueChangeType.Name(event.queue_change.type)
        assert name == f"QUEUE_CHANGE_TYPE_{kind.name.removeprefix('QUEUE_')}"
    assert not event.HasField("principal"), "the service itself"


def spec_of(config: job_config_pb2.JobConfig | None = None) -> Spec:
    names = {"project_path": "/p.aedt", "project_key": "/p", "scheduler": "local"}
    return spec_from_config(config or job_config_pb2.JobConfig(), **names, cores=1, memory_bytes=0)


@given(st.integers(1, 2**28), st.integers(0, 300))
def test_embedding_is_what_protobuf_writes(number: int, size: int) -> None:
    payload = b"x" * size
    data = embedded(number, payload)
    assert data.endswith(payload)
    key = number << 3 | 2
    assert data[: len(data) - size] == _varint(key) + _varint(size)


def _varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + [groups[-1]])


LIMIT = st.none() | NATURAL
USERS = st.builds(UserLimits, max_running_jobs=LIMIT, max_cores=LIMIT, max_priority=st.none() | INT32)
LIMITS = st.builds(
    Limits,
    max_local_jobs=LIMIT,
    max_cores=LIMIT,
    max_memory_bytes=st.none() | st.integers(0, 2**63 - 1),
    max_cluster_jobs=LIMIT,
    licenses=st.dictionaries(TEXT, NATURAL, max_size=3),
    max_cpu_percent=st.none() | st.floats(0, 100),
    min_free_memory_bytes=st.none() | st.integers(0, 2**63 - 1),
    min_free_disk_bytes=st.none() | st.integers(0, 2**63 - 1),
    default_user=st.none() | USERS,
    users=st.dictionaries(TEXT, USERS, max_size=3),
)


@given(LIMITS)
def test_limits_come_back_as_they_were(limits: Limits) -> None:
    assert limits_from_message(limits_to_message(limits)) == limits


@given(LIMITS, LIMITS)
def test_the_etag_changes_with_the_limits(one: Limits, other: Limits) -> None:
    assert (limits_to_message(one).etag == limits_to_message(other).etag) == (one == other)


def test_what_a_configuration_does_not_say_has_the_defaults_of_the_contract() -> None:
    config = job_config_pb2.JobConfig(project_path="/p.aedt")
    spec = spec_of(config)
    assert (spec.retry.max_attempts, spec.cancel_grace_period, spec.time_limit) == (1, 30.0, None)
    config.retry.SetInParent()
    retry = spec_of(config).retry
    assert (retry.max_attempts, retry.initial_delay, retry.max_delay) == (3, 10.0, 600.0)
    assert retry.reasons == {Reason.LICENSE, Reason.NODE_FAIL, Reason.PREEMPTED}


def test_zero_counts_where_it_is_set() -> None:
    config = job_config_pb2.JobConfig(project_path="/p.aedt", licenses={"hfss": 1, "hpc": 0})
    config.time_limit.SetInParent()
    config.cancel_grace_period.SetInParent()
    config.retry.initial_delay.SetInParent()
    spec = spec_of(config)
    assert (spec.time_limit, spec.cancel_grace_period, spec.retry.initial_delay) == (0.0, 0.0, 0.0)
    assert spec.licenses == (("hfss", 1),)  # an entry of 0 needs none
