"""The campaign's checker sees each kind of breach: a sound history passes, and each change of it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from edbjobs.v1 import event_pb2, job_config_pb2, job_pb2, job_state_pb2
from faults.campaign.checker import RULES, check
from faults.campaign.evidence import ClusterJobStatus, Evidence, Note, Submit

S = job_state_pb2
E = event_pb2
T0 = 1_700_000_000


def note(what: str, job: str, at: float, attempt: int = 1) -> Note:
    return Note(what, job, attempt, at)


def job(uid: str, revision: int, state: S.JobState.ValueType, *, priority: int = 0) -> job_pb2.Job:
    config = job_config_pb2.JobConfig(labels={"request": f"request-{uid}"})
    return job_pb2.Job(uid=uid, id=f"job-{uid}", state=state, revision=revision, priority=priority, config=config)


def history() -> Evidence:
    """Two jobs, one after the other, of which the second is of higher priority and came later."""
    evidence = Evidence(max_jobs=1)
    at = 0
    for uid in ("a", "b"):
        queued = job(uid, at + 1, S.JOB_STATE_QUEUED, priority=5 if uid == "b" else 0)
        starting = job_pb2.Job()
        starting.CopyFrom(queued)
        starting.revision = at + 2
        starting.attempts.add(number=1, reserve_time={"seconds": T0 + at})
        starting.attempt_count, starting.waiting.reason = 1, S.WAITING_REASON_STARTING
        running = job_pb2.Job()
        running.CopyFrom(starting)
        running.ClearField("waiting")
        running.revision, running.state = at + 3, S.JOB_STATE_RUNNING
        running.attempts[0].start_time.seconds = T0 + at
        running.attempts[0].pid = 100
        ended = job_pb2.Job()
        ended.CopyFrom(running)
        ended.revision, ended.state, ended.attempt_count = at + 4, S.JOB_STATE_COMPLETED, 1
        ended.attempts[0].end_time.seconds = ended.end_time.seconds = T0 + at + 3
        for type_, message in (
            (E.JOB_CHANGE_TYPE_QUEUED, queued),
            (E.JOB_CHANGE_TYPE_STARTING, starting),
            (E.JOB_CHANGE_TYPE_STARTED, running),
            (E.JOB_CHANGE_TYPE_COMPLETED, ended),
        ):
            evidence.events.append(
                E.WatchEvent(revision=message.revision, job_change=E.JobChange(type=type_, job=message))
            )
        evidence.jobs[uid] = ended
        evidence.submits.append(Submit(f"request-{uid}", uid, good=True))
        evidence.notes += [note("start", f"job-{uid}", at), note("end", f"job-{uid}", at + 3)]
        evidence.sightings.append(ClusterJobStatus(uid, 1, 100))
        at += 4
    evidence.revision = at
    return evidence


def test_a_sound_history_has_no_breach() -> None:
    assert set(check(history())) == set(RULES)
    assert not any(check(history()).values())


def drop_job(evidence: Evidence) -> None:
    del evidence.jobs["a"]


def leave_running(evidence: Evidence) -> None:
    evidence.jobs["a"].state = S.JOB_STATE_RUNNING


def start_twice(evidence: Evidence) -> None:
    evidence.notes.append(note("start", "job-a", 0.5))


def start_another_attempt(evidence: Evidence) -> None:
    evidence.notes.append(note("start", "job-a", 20, attempt=2))
    evidence.jobs["a"].attempts.add(number=2, start_time={"seconds": T0})


def forget_start(evidence: Evidence) -> None:
    evidence.jobs["a"].attempts[0].ClearField("start_time")


def complete_without_end(evidence: Evidence) -> None:
    del evidence.notes[1]


def complete_a_failure(evidence: Evidence) -> None:
    evidence.submits[0] = replace(evidence.submits[0], good=False)


def fail_a_success(evidence: Evidence) -> None:
    evidence.jobs["a"].state = S.JOB_STATE_FAILED


def lose_a_run(evidence: Evidence) -> None:
    lost = evidence.jobs["a"]
    lost.state, lost.outcome.reason, lost.outcome.evidence = S.JOB_STATE_FAILED, S.END_REASON_LOST, S.EVIDENCE_NONE


def leave_process(evidence: Evidence) -> None:
    evidence.left.append(("a", 100))


def harm_stranger(evidence: Evidence) -> None:
    evidence.harmed.append("a process was killed")


def answer_twice(evidence: Evidence) -> None:
    evidence.submits.append(Submit("request-a", "b", good=True))


def make_two_jobs(evidence: Evidence) -> None:
    evidence.jobs["b"].config.labels["request"] = "request-a"


def run_side_by_side(evidence: Evidence) -> None:
    evidence.notes[2] = note("start", "job-b", 1)


def reserve_too_much(evidence: Evidence) -> None:
    evidence.events[3].job_change.job.state = S.JOB_STATE_RUNNING


def pass_by(evidence: Evidence) -> None:
    first = evidence.events.pop(4)  # the second job was there from the beginning, and is of higher priority
    evidence.events.insert(0, first)
    evidence.max_jobs = 0


def lose_event(evidence: Evidence) -> None:
    del evidence.events[2]


def lose_first_event(evidence: Evidence) -> None:
    del evidence.events[0]


def repeat_event(evidence: Evidence) -> None:
    evidence.events.insert(2, evidence.events[2])


def tell_otherwise(evidence: Evidence) -> None:
    evidence.jobs["a"].outcome.exit_code = 7


def refuse_watcher(evidence: Evidence) -> None:
    evidence.watch_errors.append("OUT_OF_RANGE")


def cancel_slowly(evidence: Evidence) -> None:
    evidence.cancels["a"] = 1.0
    evidence.jobs["a"].cancel_request_time.seconds = T0 - 4
    evidence.downs.append((T0 - 3.5, T0 - 3.0))


def change_process(evidence: Evidence) -> None:
    evidence.jobs["a"].attempts[0].pid = 101


def break_store(evidence: Evidence) -> None:
    evidence.integrity = "row 7 missing from index jobs_uid"


@pytest.mark.parametrize(
    ("number", "change"),
    [
        ("I1", drop_job),
        ("I1", leave_running),
        ("I2", start_twice),
        ("I2", start_another_attempt),
        ("I2", forget_start),
        ("I3", complete_without_end),
        ("I3", complete_a_failure),
        ("I3", fail_a_success),
        ("I3", lose_a_run),
        ("I4", leave_process),
        ("I4", harm_stranger),
        ("I5", answer_twice),
        ("I5", make_two_jobs),
        ("I6", run_side_by_side),
        ("I6", reserve_too_much),
        ("I7", pass_by),
        ("I8", lose_event),
        ("I8", lose_first_event),
        ("I8", repeat_event),
        ("I8", tell_otherwise),
        ("I8", refuse_watcher),
        ("I9", cancel_slowly),
        ("I10", change_process),
        ("I12", break_store),
    ],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_each_breach_is_found(number: str, change: Callable[[Evidence], None]) -> None:
    evidence = history()
    change(evidence)
    found = {name.split()[0]: breaches for name, breaches in check(evidence).items() if breaches}
    assert number in found


@pytest.mark.parametrize("excuse", ["killed", "cancels", "downs", "stepped"])
def test_what_a_fault_explains_is_no_breach(excuse: str) -> None:
    evidence = history()
    if excuse == "killed":
        lose_a_run(evidence)
        evidence.killed.add("a")
    elif excuse == "cancels":
        fail_a_success(evidence)
        evidence.jobs["a"].state = S.JOB_STATE_CANCELLED
        evidence.cancels["a"] = 1.0
    else:
        cancel_slowly(evidence)
        evidence.downs.append((T0 - 4, T0 + 2))
        evidence.stepped = excuse == "stepped"
    evidence.events[3].job_change.job.CopyFrom(evidence.jobs["a"])
    assert not any(check(evidence).values())
