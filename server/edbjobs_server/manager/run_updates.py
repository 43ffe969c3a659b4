"""Changes of a job after updates of its run: commands for the store's writer."""

from __future__ import annotations

from edbjobs_server.core import transitions
from edbjobs_server.core.job import Outcome
from edbjobs_server.core.runs import Ending, RunEnded, RunKey, RunNote, RunScheduled, RunStarted, RunUnkillable
from edbjobs_server.core.states import EventType, Evidence, Reason
from edbjobs_server.core.transitions import Change, RunResult
from edbjobs_server.store import Transaction


def put(tx: Transaction, change: Change | None) -> bool:
    """Write a change, if there is one."""
    if change is None:
        return False
    tx.put(change.job, change.type, detail=change.detail)
    return True


def result_of(ended: RunEnded, reason: Reason, evidence: Evidence, message: str) -> RunResult:
    """Build the result of a run from the executor's and the solver's reports."""
    return RunResult(
        Outcome(reason, evidence, message, ended.exit_code, ended.signal),
        end_time=ended.time,
        start_time=ended.start_time,
        cpu_duration=ended.cpu_duration,
        peak_memory_bytes=ended.peak_memory_bytes,
        ran=ended.ending is not Ending.NEVER_RAN,
    )


def apply_update(tx: Transaction, update: RunScheduled | RunStarted | RunNote | RunUnkillable) -> None:
    """Record what an executor reports of a run that has not ended."""
    job = tx.find(update.key.uid)
    if job is None:
        return
    number = update.key.attempt
    if isinstance(update, RunScheduled):
        put(tx, transitions.scheduled(job, number, update.scheduler_job_id))
    elif isinstance(update, RunStarted):
        put(tx, transitions.started(job, number, update.time, update.pid, update.nodes))
    elif isinstance(update, RunNote):
        put(tx, transitions.noted(job, number, update.text))
    else:
        put(tx, transitions.unkillable(job, number, update.pids))


def apply_end(tx: Transaction, key: RunKey, result: RunResult, started: RunEnded | None, note: str = "") -> None:
    """Record an end; a start that was not recorded yet is recorded before it, so that watchers receive both."""
    job = tx.find(key.uid)
    if job is None:
        return
    if started is not None and started.start_time is not None:
        put(tx, transitions.started(job, key.attempt, started.start_time, None, ()))
        job = tx.job(key.uid)
    if note:
        tx.put(job, EventType.JOB_NOTE, detail=note)
        job = tx.job(key.uid)
    put(tx, transitions.ended(job, key.attempt, result, tx.now))


def fail(tx: Transaction, uid: str, reason: Reason, message: str) -> None:
    """End a waiting job that cannot be started; a job that no longer waits stays as it is."""
    job = tx.find(uid)
    if job is not None:
        put(tx, transitions.fail(job, reason, message, tx.now))
