"""Runs whose processes are gone, and runs that cannot be followed: what they hold, and what users read."""

from __future__ import annotations

import pytest
from edbjobs_server.core import transitions
from edbjobs_server.core.admission import Block
from edbjobs_server.core.errors import Refused, path_unreachable
from edbjobs_server.core.job import RetryOptions
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.states import EventType, Evidence, Reason, State, Waiting
from support.core_jobs import Lab, changed, completed, make_job, reserved, result, running

TROUBLE = Block(Waiting.BACK_OFF, "its result cannot be read yet")


def lab_with_one_running() -> Lab:
    lab = Lab([make_job(1, project="/p/a"), make_job(2, project="/p/a"), make_job(3)], Limits(max_local_jobs=1))
    lab.put(running(lab.jobs["job1"]))
    return lab


def test_a_run_that_is_gone_holds_its_project_only() -> None:
    lab = lab_with_one_running()
    assert lab.plan() == []
    lab.core.run_gone(lab.jobs["job1"].uid)
    lab.core.run_gone(lab.jobs["job1"].uid)
    assert lab.core.usage.jobs == 0
    assert lab.plan() == ["job3"], "job2 is of the same project"
    assert lab.why("job2").reason is Waiting.PROJECT_BUSY


def test_news_of_a_run_that_is_gone_take_nothing_again() -> None:
    lab = lab_with_one_running()
    lab.core.run_gone(lab.jobs["job1"].uid)
    lab.put(changed(transitions.noted(lab.jobs["job1"], 1, "a note")))
    assert lab.core.usage.jobs == 0
    assert lab.core._settling.cores == 0, "nor does it count as a start that the host's averages do not show yet"
    lab.put(completed(lab.jobs["job1"]))
    assert lab.core.usage.jobs == 0
    assert lab.plan() == ["job2"]


def test_a_waiting_job_has_no_run_that_could_be_gone() -> None:
    lab = lab_with_one_running()
    lab.core.run_gone(lab.jobs["job2"].uid)
    lab.core.set_trouble(lab.jobs["job2"].uid, TROUBLE)
    assert lab.core.usage.jobs == 1
    assert lab.core.trouble(lab.jobs["job2"].uid) is None


def test_a_trouble_is_shown_until_it_is_over() -> None:
    lab = lab_with_one_running()
    uid = lab.jobs["job1"].uid
    lab.core.set_trouble(uid, TROUBLE)
    assert lab.why("job1").detail == TROUBLE.detail
    lab.core.set_trouble(uid, None)
    assert lab.why("job1").reason is None
    lab.core.set_trouble(uid, TROUBLE)
    lab.put(completed(lab.jobs["job1"]))
    assert lab.core.trouble(uid) is None


def test_nothing_starts_while_nothing_can_be_written() -> None:
    lab = Lab([make_job(1)])
    lab.core.store_error = "disk full"
    assert lab.plan() == []
    why = lab.why("job1")
    assert (why.reason, "disk full" in why.detail) == (Waiting.STORE_UNAVAILABLE, True)
    lab.core.store_error = ""
    assert lab.plan() == ["job1"]


def test_a_path_that_does_not_answer_has_its_reason() -> None:
    assert path_unreachable("x").reason == "PATH_UNREACHABLE"


# Ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_a_cancel_after_the_end_changes_nothing(before: bool) -> None:
    job = changed(transitions.cancel(running(make_job(1)), 15.0, None))
    end = result(Reason.UNVERIFIED, evidence=Evidence.NONE, before_cancel=before)
    job = changed(transitions.ended(job, 1, end, 20.0))
    expected = (State.FAILED, Reason.UNVERIFIED) if before else (State.CANCELLED, Reason.CANCELLED)
    assert job.outcome is not None
    assert (job.state, job.outcome.reason) == expected


def test_a_start_that_did_not_come_about_is_not_queued_again_after_a_cancel() -> None:
    job = changed(transitions.cancel(reserved(make_job(1)), 15.0, None))
    end = result(Reason.NOT_STARTED, ran=False, before_cancel=True)
    assert changed(transitions.ended(job, 1, end, 20.0)).state is State.CANCELLED


def test_a_job_that_was_cancelled_is_not_retried() -> None:
    policy = RetryOptions(max_attempts=3, reasons=frozenset({Reason.UNVERIFIED}))
    job = changed(transitions.cancel(running(make_job(1, retry=policy)), 15.0, None))
    end = result(Reason.UNVERIFIED, before_cancel=True)
    assert changed(transitions.ended(job, 1, end, 20.0)).state is State.FAILED


def test_what_never_ran_has_no_start_and_says_why() -> None:
    job = running(make_job(1))
    change = transitions.ended(job, 1, result(Reason.NOT_STARTED, ran=False, message="no memory"), 20.0)
    job = changed(change)
    assert (job.start_time, job.attempts[0].start_time, job.waiting_message) == (None, None, "no memory")


def test_starts_that_come_to_nothing_do_not_pile_up() -> None:
    job = make_job(1)
    for _ in range(50):
        end = result(Reason.NOT_STARTED, ran=False, message="no memory")
        job = changed(transitions.ended(reserved(job), job.attempt_count + 1, end, 20.0))
    assert job.attempt_count == 50
    assert len(job.attempts) == transitions.MAX_NEVER_RAN
    assert job.next_attempt_time == 20.0 + 60.0
    assert job.waiting_message.endswith("no memory")


def test_a_note_on_a_run_that_is_being_ended_is_of_no_use() -> None:
    job = changed(transitions.cancel(running(make_job(1)), 15.0, None))
    assert transitions.noted(job, 1, "it will never start") is None


def test_a_run_that_cannot_be_observed_is_abandoned() -> None:
    change = transitions.abandon(running(make_job(1)), 20.0, unseen=True)
    assert (change.job.state, change.type) == (State.CANCELLED, EventType.JOB_CANCELLED)
    assert change.job.outcome is not None
    assert (change.job.outcome.reason, change.job.outcome.evidence) == (Reason.UNKILLABLE, Evidence.NONE)
    with pytest.raises(Refused, match="not known to resist"):
        transitions.abandon(make_job(1), 20.0, unseen=True)


# Clocks that are set back ---------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_makes_no_delay_longer() -> None:
    lab = Lab([make_job(1), make_job(2), make_job(3), make_job(4)], Limits(max_local_jobs=9))
    policy = RetryOptions(max_attempts=3, initial_delay=500.0)
    job = running(make_job(2, retry=policy), now=99_999.0)
    failed = transitions.ended(job, 1, result(Reason.LICENSE), 100_000.0)
    lab.now = 100_000.0
    lab.put(changed(failed), make_job(3, next_attempt_time=100_500.0))
    assert lab.plan() == ["job1", "job4"]
    lab.core.defer(lab.jobs["job1"].uid, 100_005.0, TROUBLE)
    lab.now = 1_000.0
    assert lab.plan() == []
    lab.now = 1_060.0
    assert lab.plan() == ["job1"], "its delay was a minute at most"
    lab.now = 1_600.0
    assert lab.plan() == ["job2"], "its delay was ten minutes at most"
    lab.now = 100_400.0
    assert lab.plan() == [], "job3 waits for a time that its user has set"


def test_a_delay_from_a_clock_that_was_ahead_is_cut_at_the_start() -> None:
    lab = Lab()
    lab.core.now = 1_000.0
    lab.put(make_job(1, next_attempt_time=100_000.0, backing_off=True), make_job(2, next_attempt_time=100_000.0))
    lab.now = 1_601.0
    assert lab.plan() == ["job1"]
