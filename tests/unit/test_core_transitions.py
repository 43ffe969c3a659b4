"""Every change of a job: what it makes of which job, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from edbjobs_server.core import transitions
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job, Outcome, RetryOptions
from edbjobs_server.core.states import EventType, Evidence, Reason, State
from edbjobs_server.core.transitions import Change
from support.core_jobs import changed, completed, make_job, reserved, result, running

ONCE_MORE = RetryOptions(max_attempts=2, reasons=frozenset({Reason.LICENSE}), initial_delay=10.0)

WAITING = make_job(1)
HELD = make_job(1, held=True)
RESERVED = reserved(WAITING)
RUNNING = running(WAITING)
CANCELLING = changed(transitions.cancel(RUNNING, 12.0, None))
STUBBORN = changed(transitions.unkillable(CANCELLING, 1, (7, 8)))
ENDED = completed(RUNNING)
NEVER_STARTED = Outcome(Reason.CANCELLED, Evidence.SERVICE, "cancelled before it started")
NEVER = result(Reason.NOT_STARTED, evidence=Evidence.SERVICE, ran=False, message="the launcher went away")
LICENSE = result(Reason.LICENSE, exit_code=1, message="no license of hfss")


def end(job: Job, *ends: transitions.RunResult, now: float = 20.0) -> Job:
    """Let one attempt after another end; between them the job starts again."""
    for number, found in enumerate(ends):
        if number:
            job = running(job)
        job = changed(transitions.ended(job, job.attempt_count, found, now))
    return job


# Refusals and changes that are none ---------------------------------------------------------------------

CHANGES: dict[str, Callable[[Job], Change | None]] = {
    "cancel": lambda job: transitions.cancel(job, 30.0, None),
    "abandon": lambda job: transitions.abandon(job, 30.0),
    "hold": transitions.hold,
    "release": transitions.release,
    "priority": lambda job: transitions.set_priority(job, 5),
    "reserve": lambda job: transitions.reserve(job, 30.0, "boot", "/runs/1"),
    "started": lambda job: transitions.started(job, 1, 30.0, 42, ()),
    "ended": lambda job: transitions.ended(job, 1, NEVER, 30.0),
    "fail": lambda job: transitions.fail(job, Reason.START_FAILED, "gone", 30.0),
}


@pytest.mark.parametrize(
    ("name", "job", "expected"),
    [
        ("cancel", WAITING, EventType.JOB_CANCELLED),
        ("cancel", HELD, EventType.JOB_CANCELLED),
        ("cancel", RESERVED, EventType.JOB_CANCEL_REQUESTED),
        ("cancel", RUNNING, EventType.JOB_CANCEL_REQUESTED),
        ("cancel", CANCELLING, None),
        ("cancel", ENDED, "JOB_ENDED"),
        ("abandon", WAITING, "JOB_NOT_UNKILLABLE"),
        ("abandon", CANCELLING, "JOB_NOT_UNKILLABLE"),
        ("abandon", STUBBORN, EventType.JOB_CANCELLED),
        ("abandon", ENDED, "JOB_ENDED"),
        ("hold", WAITING, EventType.JOB_HELD),
        ("hold", HELD, None),
        ("hold", RESERVED, "JOB_STARTED"),
        ("hold", RUNNING, "JOB_STARTED"),
        ("hold", ENDED, "JOB_ENDED"),
        ("release", HELD, EventType.JOB_RELEASED),
        ("release", WAITING, None),
        ("release", RESERVED, "JOB_STARTED"),
        ("release", ENDED, "JOB_ENDED"),
        ("priority", WAITING, EventType.JOB_PRIORITY_CHANGED),
        ("priority", make_job(1, priority=5), None),
        ("priority", RESERVED, "JOB_STARTED"),
        ("priority", RUNNING, "JOB_STARTED"),
        ("priority", replace(WAITING, state=State.SCHEDULED), "JOB_STARTED"),
        ("priority", ENDED, "JOB_ENDED"),
        ("reserve", WAITING, EventType.JOB_STARTING),
        ("reserve", HELD, None),
        ("reserve", RESERVED, None),
        ("reserve", RUNNING, None),
        ("reserve", replace(WAITING, cancel_request_time=5.0), None),
        ("reserve", ENDED, None),
        ("started", WAITING, None),
        ("started", RESERVED, EventType.JOB_STARTED),
        ("started", RUNNING, None),
        ("started", ENDED, None),
        ("ended", WAITING, None),
        ("ended", RESERVED, EventType.JOB_RETRYING),
        ("ended", ENDED, None),
        ("fail", WAITING, EventType.JOB_FAILED),
        ("fail", RESERVED, None),
        ("fail", RUNNING, None),
        ("fail", ENDED, None),
    ],
)
def test_what_a_change_makes_of_a_job(name: str, job: Job, expected: EventType | str | None) -> None:
    if isinstance(expected, str):
        with pytest.raises(Refused) as refused:
            CHANGES[name](job)
        assert refused.value.reason == expected
        assert job.id in refused.value.message
        return
    change = CHANGES[name](job)
    assert (change.type if change is not None else None) == expected


@pytest.mark.parametrize("job", [WAITING, RESERVED, RUNNING])
def test_only_an_ended_job_is_deleted_or_retried(job: Job) -> None:
    with pytest.raises(Refused) as refused:
        transitions.require_ended(job, "deleted")
    assert refused.value.reason == "JOB_NOT_ENDED"
    assert refused.value.metadata == {"uid": job.uid, "state": job.state.name}
    transitions.require_ended(ENDED, "deleted")


@pytest.mark.parametrize(
    "change",
    [
        lambda job: transitions.started(job, 2, 30.0, 42, ()),
        lambda job: transitions.ended(job, 2, LICENSE, 30.0),
        lambda job: transitions.unkillable(job, 2, (7,)),
        lambda job: transitions.unkillable(job, 1, ()),
    ],
)
def test_news_of_another_attempt_or_no_news_change_nothing(change: Callable[[Job], Change | None]) -> None:
    assert change(RESERVED) is None


# Starting -----------------------------------------------------------------------------------------------


def test_a_reservation_opens_the_next_attempt_and_forgets_the_wait() -> None:
    job = end(running(make_job(1, retry=ONCE_MORE)), LICENSE)
    job = changed(transitions.reserve(job, 50.0, "boot", "/runs/2"))
    assert [attempt.number for attempt in job.attempts] == [1, 2]
    assert job.open_attempt is job.attempts[1]
    assert (job.attempts[1].reserve_time, job.attempts[1].boot_id, job.run_directory) == (50.0, "boot", "/runs/2")
    assert (job.state, job.next_attempt_time, job.backing_off) == (State.QUEUED, 0.0, False)
    assert job.waiting_message == ""


def test_a_start_is_recorded_with_the_process() -> None:
    attempt = RUNNING.open_attempt
    assert attempt is not None
    assert (attempt.start_time, attempt.pid, attempt.nodes) == (11.0, 42, ("host",))
    assert (RUNNING.state, RUNNING.start_time) == (State.RUNNING, 11.0)


# Ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "state", "event"),
    [
        (Reason.NORMAL, State.COMPLETED, EventType.JOB_COMPLETED),
        (Reason.EXIT_CODE, State.FAILED, EventType.JOB_FAILED),
        (Reason.CANCELLED_EXTERNALLY, State.CANCELLED, EventType.JOB_CANCELLED),
    ],
)
def test_an_end_is_recorded_with_its_evidence(reason: Reason, state: State, event: EventType) -> None:
    found = result(
        reason,
        evidence=Evidence.SOLVER_LOG,
        exit_code=3,
        signal=9,
        message="m",
        cpu_duration=1.5,
        peak_memory_bytes=7,
    )
    change = transitions.ended(RUNNING, 1, found, 25.0)
    assert change is not None
    assert (change.type, change.detail) == (event, "m")
    job, attempt = change.job, change.job.attempts[-1]
    assert (job.state, job.end_time) == (state, 20.0)
    assert job.outcome == attempt.outcome == Outcome(reason, Evidence.SOLVER_LOG, "m", 3, 9)
    assert (attempt.start_time, attempt.end_time) == (11.0, 20.0)
    assert (attempt.cpu_duration, attempt.peak_memory_bytes) == (1.5, 7)


@pytest.mark.parametrize("reason", Reason)
def test_the_reason_gives_the_state(reason: Reason) -> None:
    """As the comment of EndReason in job_state.proto has it."""
    completed = {Reason.NORMAL, Reason.UP_TO_DATE}
    cancelled = {Reason.CANCELLED, Reason.CANCELLED_EXTERNALLY, Reason.UNKILLABLE}
    if reason is Reason.NOT_STARTED:
        assert reason.state is State.QUEUED
    elif reason in completed:
        assert reason.state is State.COMPLETED
    else:
        assert reason.state is (State.CANCELLED if reason in cancelled else State.FAILED)


def test_a_start_that_nobody_saw_is_known_from_the_end() -> None:
    job = end(RESERVED, replace(LICENSE, start_time=12.0))
    assert job.attempts[0].start_time == 12.0


def test_an_attempt_that_never_ran_leads_back_to_the_queue() -> None:
    job = end(RESERVED, NEVER)
    assert (job.state, job.attempt_count, job.open_attempt) == (State.QUEUED, 1, None)
    assert (job.next_attempt_time, job.backing_off) == (0.0, False)


def test_a_waiting_job_fails_without_an_attempt() -> None:
    job = changed(transitions.fail(HELD, Reason.PROJECT_LOCKED, "locked", 30.0))
    assert job.state is State.FAILED
    assert job.outcome == Outcome(Reason.PROJECT_LOCKED, Evidence.SERVICE, "locked")
    assert (job.held, job.end_time, job.attempts) == (True, 30.0, ()), "what it was is kept"


# Retries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "ends", "state", "attempts"),
    [
        ({"max_attempts": 1}, [LICENSE], State.FAILED, 1),
        ({}, [LICENSE, LICENSE], State.QUEUED, 2),
        ({}, [LICENSE, LICENSE, LICENSE], State.FAILED, 3),
        ({"max_attempts": 2}, [LICENSE], State.QUEUED, 1),
        ({"max_attempts": 2}, [LICENSE, LICENSE], State.FAILED, 2),
        ({"max_attempts": 3}, [LICENSE, LICENSE], State.QUEUED, 2),
        ({"max_attempts": 2, "reasons": frozenset()}, [LICENSE], State.FAILED, 1),
        ({"max_attempts": 2, "reasons": frozenset({Reason.LOST})}, [LICENSE], State.FAILED, 1),
        # What never ran does not count
        ({"max_attempts": 2}, [NEVER, LICENSE], State.QUEUED, 2),
        ({"max_attempts": 2}, [NEVER, LICENSE, NEVER, LICENSE], State.FAILED, 4),
        # Nothing but a failure is tried again
        (
            {"max_attempts": 9, "reasons": frozenset({Reason.NORMAL})},
            [result(Reason.NORMAL)],
            State.COMPLETED,
            1,
        ),
    ],
)
def test_the_retry_policy(
    policy: dict[str, Any], ends: list[transitions.RunResult], state: State, attempts: int
) -> None:
    job = end(running(make_job(1, retry=RetryOptions(**policy))), *ends)
    assert (job.state, len(job.attempts)) == (state, attempts)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 10.0), (2, 20.0), (3, 40.0), (6, 320.0), (7, 600.0), (10_000, 600.0)]
)
def test_the_wait_between_attempts_doubles_up_to_a_bound(attempts: int, seconds: float) -> None:
    assert RetryOptions().delay(attempts) == seconds


def test_a_retry_waits_and_says_why() -> None:
    policy = RetryOptions(max_attempts=4, initial_delay=10.0)
    change = transitions.ended(running(make_job(1, retry=policy)), 1, LICENSE, 20.0)
    assert change is not None
    assert (change.type, change.job.backing_off, change.job.next_attempt_time) == (EventType.JOB_RETRYING, True, 30.0)
    assert change.detail == "attempt 1 ended LICENSE; the next starts 10 s later: no license of hfss"
    assert change.job.waiting_message == change.detail
    after = end(running(change.job), NEVER, LICENSE, now=100.0)
    assert after.next_attempt_time == 120.0, "of three attempts two ran: the second wait"


# Cancel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "reason", "evidence", "message"),
    [
        (result(Reason.NORMAL, message="m"), Reason.NORMAL, Evidence.EXIT_CODE, "m"),
        (result(Reason.SIGNAL, signal=15), Reason.CANCELLED, Evidence.SERVICE, "cancelled"),
        (LICENSE, Reason.CANCELLED, Evidence.SERVICE, "cancelled"),
        (
            result(Reason.CANCELLED_EXTERNALLY, evidence=Evidence.SCHEDULER),
            Reason.CANCELLED,
            Evidence.SCHEDULER,
            "cancelled",
        ),
        (result(Reason.LOST, evidence=Evidence.NONE), Reason.CANCELLED, Evidence.NONE, "cancelled"),
    ],
)
def test_the_end_of_a_cancelled_run(
    found: transitions.RunResult, reason: Reason, evidence: Evidence, message: str
) -> None:
    job = replace(CANCELLING, spec=replace(CANCELLING.spec, retry=ONCE_MORE))
    job = end(job, found)
    assert job.outcome is not None
    assert (job.state, job.outcome.reason, job.outcome.evidence) == (reason.state, reason, evidence)
    assert job.outcome.message == message
    assert job.attempts[0].outcome == found.outcome, "the attempt keeps what was seen"


def test_a_cancelled_start_that_never_ran_ends_the_job() -> None:
    job = changed(transitions.cancel(RESERVED, 12.0, None))
    assert job.state is State.QUEUED
    job = end(job, NEVER)
    assert (job.state, job.outcome) == (State.CANCELLED, NEVER_STARTED)


def test_cancel_of_a_waiting_job_ends_it_at_once() -> None:
    job = changed(transitions.cancel(HELD, 12.0, 3.0))
    assert (job.state, job.outcome) == (State.CANCELLED, NEVER_STARTED)
    assert (job.cancel_request_time, job.end_time, job.held) == (12.0, 12.0, True)


def test_cancel_between_two_attempts_does_not_say_that_it_never_started() -> None:
    job = changed(transitions.cancel(end(running(make_job(1, retry=ONCE_MORE)), LICENSE), 25.0, None))
    assert (job.state, job.outcome) == (State.CANCELLED, Outcome(Reason.CANCELLED, Evidence.SERVICE, "cancelled"))
    assert (job.next_attempt_time, job.backing_off) == (0.0, False)


@pytest.mark.parametrize(
    ("first", "second", "grace"),
    [(None, None, "same"), (None, 5.0, 5.0), (5.0, None, "same"), (5.0, 5.0, "same"), (5.0, 0.0, 0.0)],
)
def test_cancel_again_changes_only_the_grace(first: float | None, second: float | None, grace: object) -> None:
    job = changed(transitions.cancel(RUNNING, 12.0, first))
    assert (job.state, job.cancel_request_time, job.cancel_grace_period) == (State.RUNNING, 12.0, first)
    again = transitions.cancel(job, 99.0, second)
    if grace == "same":
        assert again is None
    else:
        assert (changed(again).cancel_request_time, changed(again).cancel_grace_period) == (12.0, grace)


# Processes that resist ----------------------------------------------------------------------------------


def test_processes_that_resist_are_named_until_they_are_gone() -> None:
    change = transitions.unkillable(CANCELLING, 1, (7, 8))
    assert change is not None
    assert (change.type, change.detail) == (EventType.JOB_NOTE, "these processes cannot be ended: 7, 8")
    gone = transitions.unkillable(change.job, 1, ())
    assert gone is not None
    assert (gone.job.unkillable, gone.detail) == ((), "the processes that resisted are gone")
    assert transitions.unkillable(change.job, 1, (7, 8)) is None


@pytest.mark.parametrize("job", [STUBBORN, replace(STUBBORN, cancel_request_time=None)])
def test_giving_up_ends_the_record_and_says_what_is_left(job: Job) -> None:
    job = changed(transitions.abandon(job, 90.0))
    message = "given up on; these processes could not be ended: 7, 8"
    assert (job.state, job.outcome) == (State.CANCELLED, Outcome(Reason.UNKILLABLE, Evidence.NONE, message))
    assert (job.unkillable, job.end_time) == ((), 90.0)
    assert job.cancel_request_time is not None
    assert job.attempts[0].end_time == 90.0


def test_a_normal_end_forgets_what_resisted() -> None:
    assert completed(STUBBORN).unkillable == ()


# Waiting jobs -------------------------------------------------------------------------------------------


def test_hold_release_and_priority() -> None:
    assert changed(transitions.hold(WAITING)).held
    assert not changed(transitions.release(HELD)).held
    change = transitions.set_priority(WAITING, -2)
    assert change is not None
    assert (change.job.priority, change.detail) == (-2, "priority 0 -> -2")


def test_a_start_that_comes_to_nothing_again_and_again_waits_ever_longer() -> None:
    job, now, waits = make_job(1), 100.0, []
    for _ in range(6):
        change = transitions.reserve(job, now, "boot", "/runs")
        assert change is not None
        nothing = result(Reason.NOT_STARTED, now, Evidence.SERVICE, message="never ran", ran=False)
        change = transitions.ended(change.job, change.job.attempt_count, nothing, now)
        assert change is not None
        job = change.job
        waits.append(max(0.0, job.next_attempt_time - now))
    assert waits == [0.0, 0.0, 0.0, 2.0, 4.0, 8.0]
    assert job.backing_off


def test_a_run_that_nobody_sees_can_be_abandoned_once_its_cancel_came_to_nothing() -> None:
    job = changed(transitions.cancel(running(make_job(1)), 100.0, 5.0))
    with pytest.raises(Refused):
        transitions.abandon(job, 160.0)
    ended = changed(transitions.abandon(job, 166.0))
    assert ended.outcome is not None
    assert (ended.state, ended.outcome.reason) == (State.CANCELLED, Reason.UNKILLABLE)
    assert ended.outcome.evidence is Evidence.NONE
    assert "nothing was heard" in ended.outcome.message
