"""A change is selected if the job agrees with the filter before or after it, whatever of the job changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from edbjobs.v1 import event_pb2, job_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.contract.codec import basic_bytes
from edbjobs_server.core import transitions
from edbjobs_server.core.job import Job, RetryOptions
from edbjobs_server.core.states import Reason, State
from edbjobs_server.core.transitions import Change
from edbjobs_server.events.changes import job_before
from edbjobs_server.events.ring import Entry
from edbjobs_server.store.filters import JobMatcher
from google.protobuf.timestamp_pb2 import Timestamp
from support.core_jobs import changed, completed, make_job, reserved, result, running

Filter = jobs_messages_pb2.JobFilter
WAITING = make_job(1)
HELD = make_job(1, held=True)
RUNNING = running(WAITING)


def change_of(before: Job, made: Change | None) -> event_pb2.JobChange:
    assert made is not None
    kind = event_pb2.JobChangeType.Value(made.type.name.replace("JOB_", "JOB_CHANGE_TYPE_", 1))
    change = event_pb2.JobChange(type=kind, job=job_pb2.Job.FromString(basic_bytes(made.job)))
    change.old_state = before.state.value  # type: ignore[assignment]
    return change


STARTED = change_of(reserved(WAITING), transitions.started(reserved(WAITING), 1, 11.0, 42, ("h",)))
HELD_NOW = change_of(WAITING, transitions.hold(WAITING))
RELEASED = change_of(HELD, transitions.release(HELD))
CANCELLED = change_of(WAITING, transitions.cancel(WAITING, 5.0, None))
CANCELLED_HELD = change_of(HELD, transitions.cancel(HELD, 5.0, None))
SUPERSEDED = change_of(completed(RUNNING), transitions.supersede(completed(RUNNING), "f" * 32))
CANCELLING = change_of(RUNNING, transitions.cancel(RUNNING, 12.0, None))
DELETED = event_pb2.JobChange(
    type=event_pb2.JOB_CHANGE_TYPE_DELETED,
    job=job_pb2.Job.FromString(basic_bytes(completed(RUNNING))),
    old_state=State.COMPLETED.value,  # type: ignore[arg-type]
)
DELETED_AFTER = event_pb2.JobChange(
    type=event_pb2.JOB_CHANGE_TYPE_DELETED,
    job=SUPERSEDED.job,
    old_state=State.COMPLETED.value,  # type: ignore[arg-type]
)
ACCEPTED = event_pb2.JobChange(
    type=event_pb2.JOB_CHANGE_TYPE_QUEUED, job=job_pb2.Job.FromString(basic_bytes(replace(WAITING, revision=1)))
)
FILTERED = (
    *("uid", "id", "state", "held", "outcome", "user", "config", "project_path", "scheduler"),
    *("create_time", "end_time", "superseded_by"),
)
QUEUED, RUNS, ENDED = State.QUEUED.value, State.RUNNING.value, State.CANCELLED.value


@pytest.mark.parametrize(
    ("change", "wanted", "before", "after"),
    [
        (STARTED, {"states": [QUEUED]}, True, False),
        (STARTED, {"states": [RUNS]}, False, True),
        (STARTED, {"states": [ENDED]}, False, False),
        (STARTED, {}, True, True),
        (STARTED, {"ended": False}, True, True),
        (HELD_NOW, {"held": True}, False, True),
        (HELD_NOW, {"held": False}, True, False),
        (RELEASED, {"held": True}, True, False),
        (RELEASED, {"states": [QUEUED]}, True, True),
        (CANCELLED_HELD, {"held": True}, True, False),
        (CANCELLED_HELD, {"ended": True}, False, True),
        (CANCELLED, {"end_reasons": [Reason.CANCELLED.value]}, False, True),
        (CANCELLED, {"end_time_from": Timestamp(seconds=5)}, False, True),
        (CANCELLED, {"end_time_before": Timestamp(seconds=5)}, False, False),
        (SUPERSEDED, {}, True, False),
        (SUPERSEDED, {"ended": True}, True, False),
        (SUPERSEDED, {"include_superseded": True}, True, True),
        (SUPERSEDED, {"jobs": [JobRef(uid=WAITING.uid)]}, True, True),
        (DELETED_AFTER, {}, False, False),
        (DELETED_AFTER, {"include_superseded": True}, True, False),
        (CANCELLING, {"states": [RUNS]}, True, True),
        (CANCELLED, {"states": [QUEUED]}, True, False),
        (ACCEPTED, {"states": [QUEUED]}, False, True),
        (ACCEPTED, {}, False, True),
        (DELETED, {}, True, False),
        (DELETED, {"states": [QUEUED]}, False, False),
    ],
)
def test_before_and_after(change: event_pb2.JobChange, wanted: dict[str, object], before: bool, after: bool) -> None:
    matcher = JobMatcher(Filter(**wanted))  # type: ignore[arg-type]
    entry = Entry(1, event_pb2.WatchEvent(job_change=change).SerializeToString())
    for _ in range(2):  # for the first watcher, and for others
        assert (entry.agreed_before(matcher), entry.agrees_after(matcher)) == (before, after)


def all_changes() -> Iterator[tuple[Job, Change | None]]:
    """Every transition, with the job before it."""
    cluster = reserved(WAITING)
    scheduled = changed(transitions.scheduled(cluster, 1, "77"))
    stuck = changed(transitions.unkillable(RUNNING, 1, (42,)))
    retried = make_job(1, retry=RetryOptions(max_attempts=2, reasons=frozenset({Reason.LICENSE})))
    twice = running(retried)
    yield WAITING, transitions.reserve(WAITING, 10.0, "boot", "/runs/1")
    yield cluster, transitions.scheduled(cluster, 1, "77")
    yield scheduled, transitions.started(scheduled, 1, 12.0, None, ("n1",))
    yield RUNNING, transitions.noted(RUNNING, 1, "a remark")
    yield RUNNING, transitions.scheduled(RUNNING, 1, "78")
    for reason in (Reason.NORMAL, Reason.EXIT_CODE, Reason.CANCELLED, Reason.NOT_STARTED):
        yield RUNNING, transitions.ended(RUNNING, 1, result(reason), 20.0)
        yield cluster, transitions.ended(cluster, 1, result(reason, ran=False), 20.0)
    yield twice, transitions.ended(twice, 1, result(Reason.LICENSE), 20.0)
    yield WAITING, transitions.fail(WAITING, Reason.PROJECT_NOT_FOUND, "gone", 5.0)
    yield HELD, transitions.fail(HELD, Reason.PROJECT_NOT_FOUND, "gone", 5.0)
    for job in (WAITING, HELD, RUNNING, scheduled, cluster):
        yield job, transitions.cancel(job, 5.0, None)
    yield RUNNING, transitions.unkillable(RUNNING, 1, (42,))
    yield stuck, transitions.abandon(stuck, 30.0)
    yield WAITING, transitions.hold(WAITING)
    yield HELD, transitions.release(HELD)
    yield HELD, transitions.set_priority(HELD, 7)
    yield completed(RUNNING), transitions.supersede(completed(RUNNING), "f" * 32)


@pytest.mark.parametrize(("before", "made"), [*all_changes()])
def test_a_job_before_its_change_is_exact_in_all_that_filters_look_at(before: Job, made: Change | None) -> None:
    """So `held`, the time and the reason of the end are found although an event has `old_state` only."""
    found = job_before(change_of(before, made))
    real = job_pb2.Job.FromString(basic_bytes(before))
    for name in FILTERED:
        assert getattr(found, name) == getattr(real, name), name
        if real.DESCRIPTOR.fields_by_name[name].has_presence:
            assert found.HasField(name) == real.HasField(name), name  # type: ignore[arg-type]
