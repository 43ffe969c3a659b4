"""A change is selected if the job agrees with the filter before or after it, whatever of the job changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edbjobs.v1 import event_pb2, job_pb2, jobs_messages_pb2
from edbjobs_server.contract.codec import basic_bytes
from edbjobs_server.core import transitions
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import State
from edbjobs_server.core.transitions import Change
from edbjobs_server.events.changes import agreed_before, agrees_after
from edbjobs_server.store.filters import JobMatcher
from support.core_jobs import completed, make_job, reserved, running

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
CANCELLING = change_of(RUNNING, transitions.cancel(RUNNING, 12.0, None))
DELETED = event_pb2.JobChange(
    type=event_pb2.JOB_CHANGE_TYPE_DELETED,
    job=job_pb2.Job.FromString(basic_bytes(completed(RUNNING))),
    old_state=State.COMPLETED.value,  # type: ignore[arg-type]
)
ACCEPTED = event_pb2.JobChange(
    type=event_pb2.JOB_CHANGE_TYPE_QUEUED, job=job_pb2.Job.FromString(basic_bytes(replace(WAITING, revision=1)))
)
QUEUED, RUNS, ENDED = State.QUEUED.value, State.RUNNING.value, State.CANCELLED.value


@pytest.mark.parametrize(
    ("change", "wanted", "before", "after"),
    [
        (STARTED, {"states": [QUEUED]}, True, False),
        (STARTED, {"states": [RUNS]}, False, True),
        (STARTED, {"states": [ENDED]}, False, False),
        (STARTED, {}, True, True),
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
    assert (agreed_before(change, matcher), agrees_after(change, matcher)) == (before, after)
