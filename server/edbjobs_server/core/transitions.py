"""Every change a job can make, as a function from the job before to the job after.

They run in the store's writer thread on the committed job, so a change is decided on what is true at its commit.
A function raises `Refused` for an invalid request and returns None where there is nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Attempt, Job, Outcome
from edbjobs_server.core.states import EventType, Evidence, Reason, State

CANCEL_EFFECT_SECONDS = 60.0  # after its grace, until a cancel counts as without effect
MAX_NEVER_RAN = 20  # attempts in a row that never ran and stay on record
QUICK_STARTS = 3  # starts in a row that may fail before the next one waits
_END_EVENT = {
    State.COMPLETED: EventType.JOB_COMPLETED,
    State.FAILED: EventType.JOB_FAILED,
    State.CANCELLED: EventType.JOB_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Change:
    """A job after a change, and what the change is."""

    job: Job
    type: EventType
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What is known of an attempt that has ended.

    Attributes
    ----------
    outcome : Outcome
        How it ended; NOT_STARTED where it is proven that the solver never ran, and the job is queued again.
    start_time : float or None
        When it was started; a start on record counts more.
    cpu_duration, peak_memory_bytes : float, int or None
        As of `Attempt`.
    ran : bool
        False where it is proven that the solver never ran.
    before_cancel : bool
        Its processes were gone before its cancellation was requested: a later cancel changes nothing.
    """

    outcome: Outcome
    end_time: float
    start_time: float | None = None
    cpu_duration: float | None = None
    peak_memory_bytes: int | None = None
    ran: bool = True
    before_cancel: bool = False

    @property
    def state(self) -> State:
        """State that the job would take."""
        return self.outcome.reason.state


def reserve(job: Job, now: float, boot_id: str, run_directory: str) -> Change | None:
    """Open the next attempt; None where the job may not start any more."""
    if job.state is not State.QUEUED or job.held or job.open_attempt is not None or job.cancel_request_time is not None:
        return None
    number = job.attempt_count + 1
    attempt = Attempt(number=number, reserve_time=now, boot_id=boot_id, run_directory=run_directory)
    after = replace(
        job,
        attempts=(*job.attempts, attempt),
        next_attempt_time=0.0,
        backing_off=False,
        waiting_message="",
        unkillable=(),
    )
    return Change(after, EventType.JOB_STARTING)


def scheduled(job: Job, number: int, scheduler_job_id: str) -> Change | None:
    """Record that a cluster's scheduler has accepted an attempt."""
    attempt = job.open_attempt
    if attempt is None or attempt.number != number or attempt.scheduler_job_id == scheduler_job_id:
        return None
    attempt = replace(attempt, scheduler_job_id=scheduler_job_id)
    state = State.SCHEDULED if attempt.start_time is None else job.state
    after = replace(job, state=state, attempts=(*job.attempts[:-1], attempt))
    return Change(after, EventType.JOB_SCHEDULED, f"job {scheduler_job_id} of the scheduler")


def noted(job: Job, number: int, text: str) -> Change | None:
    """Record a remark about an attempt; one that is being cancelled gets none."""
    attempt = job.open_attempt
    if attempt is None or attempt.number != number or job.cancel_request_time is not None:
        return None
    return Change(job, EventType.JOB_NOTE, text)


def started(job: Job, number: int, time: float, pid: int | None, nodes: tuple[str, ...]) -> Change | None:
    """Record that the solver's process of an attempt started."""
    attempt = job.open_attempt
    if attempt is None or attempt.number != number or attempt.start_time is not None:
        return None
    attempt = replace(attempt, start_time=time, pid=pid, nodes=nodes)
    after = replace(job, state=State.RUNNING, start_time=time, attempts=(*job.attempts[:-1], attempt))
    return Change(after, EventType.JOB_STARTED)


def ended(job: Job, number: int, result: RunResult, now: float) -> Change | None:
    """Close an attempt: the job ends, or waits for its next attempt."""
    attempt = job.open_attempt
    if attempt is None or attempt.number != number:
        return None
    start = attempt.start_time if attempt.start_time is not None else result.start_time
    closed = replace(
        attempt,
        start_time=start if result.ran else None,  # a fork that never became the solver is no start
        end_time=result.end_time,
        outcome=result.outcome,
        cpu_duration=result.cpu_duration,
        peak_memory_bytes=result.peak_memory_bytes,
    )
    job = replace(job, attempts=(*job.attempts[:-1], closed), unkillable=())
    outcome = _as_asked(job, result)
    if not outcome.reason.state.terminal:
        return _never_ran(job, outcome, now)
    if _is_retried(job, outcome):
        return _back_off(job, outcome, now)
    return _end(job, outcome, result.end_time)


def _never_ran(job: Job, outcome: Outcome, now: float) -> Change:
    """Queue a job again whose run was not started: at once, and with a growing delay if that repeats."""
    have_run = [attempt.has_run for attempt in reversed(job.attempts)]
    times = have_run.index(True) if True in have_run else len(have_run)
    # While the cause lasts, only the latest of these attempts stay on record.
    kept = job.attempts if times <= MAX_NEVER_RAN else (*job.attempts[:-times], *job.attempts[-MAX_NEVER_RAN:])
    after = replace(job, state=State.QUEUED, attempts=kept, waiting_message=outcome.message, start_time=None)
    if times > QUICK_STARTS:
        wait = min(60.0, 2.0 ** min(times - QUICK_STARTS, 6))
        detail = f"it could not be started {times} times in a row, the next try is {wait:g} s later: {outcome.message}"
        after = replace(after, next_attempt_time=now + wait, backing_off=True, waiting_message=detail)
    return Change(after, EventType.JOB_RETRYING, outcome.message)


def _as_asked(job: Job, result: RunResult) -> Outcome:
    """Return the outcome as cancelled if cancel was requested, unless the attempt is proven to have ended before."""
    outcome = result.outcome
    is_proven = result.state is State.COMPLETED or outcome.reason is Reason.UNKILLABLE
    if job.cancel_request_time is None or is_proven or (result.before_cancel and result.state.terminal):
        return outcome
    message = _cancelled(job, result.ran)
    # Whatever its log or exit code says, the service ended it; but not where only its scheduler, or nobody, saw that.
    seen = outcome.evidence not in (Evidence.NONE, Evidence.SCHEDULER)
    evidence = Evidence.SERVICE if seen else outcome.evidence
    return replace(outcome, reason=Reason.CANCELLED, evidence=evidence, message=message)


def _cancelled(job: Job, ran: bool) -> str:
    return "cancelled" if ran or job.start_time is not None else "cancelled before it started"


def _is_retried(job: Job, outcome: Outcome) -> bool:
    policy = job.spec.retry
    is_failed = outcome.reason.state is State.FAILED
    is_retried = is_failed and outcome.reason in policy.reasons and _runs(job) < policy.max_attempts
    return is_retried and job.cancel_request_time is None


def _runs(job: Job) -> int:
    return sum(1 for attempt in job.attempts if attempt.has_run)


def _back_off(job: Job, outcome: Outcome, now: float) -> Change:
    wait = job.spec.retry.delay(_runs(job))
    detail = (
        f"attempt {job.attempt_count} ended {outcome.reason.name}; the next starts {wait:g} s later: {outcome.message}"
    )
    after = replace(job, state=State.QUEUED, next_attempt_time=now + wait, backing_off=True, waiting_message=detail)
    return Change(after, EventType.JOB_RETRYING, detail)


def _end(job: Job, outcome: Outcome, time: float) -> Change:
    after = replace(
        job,
        state=outcome.reason.state,
        outcome=outcome,
        end_time=time,
        next_attempt_time=0.0,
        backing_off=False,
        waiting_message="",
        unkillable=(),
    )
    return Change(after, _END_EVENT[after.state], outcome.message)


def fail(job: Job, reason: Reason, message: str, now: float) -> Change | None:
    """End a waiting job that cannot be started any more."""
    if job.state is not State.QUEUED or job.open_attempt is not None:
        return None
    return _end(job, Outcome(reason, Evidence.SERVICE, message), now)


def grace_of(job: Job) -> float:
    """Return the seconds between TERM and KILL when a job is cancelled."""
    return job.cancel_grace_period if job.cancel_grace_period is not None else job.spec.cancel_grace_period


def cancel(job: Job, now: float, grace: float | None) -> Change | None:
    """Cancel a job: at once where nothing runs, else by ending the open attempt.

    Of a job that is being cancelled, a shorter grace period takes effect and a longer one does not.
    """
    _refuse_ended(job, "cancelled")
    if job.open_attempt is None and job.state is State.QUEUED:
        outcome = Outcome(Reason.CANCELLED, Evidence.SERVICE, _cancelled(job, ran=False))
        return _end(replace(job, cancel_request_time=job.cancel_request_time or now), outcome, now)
    if job.cancel_request_time is not None and (grace is None or grace >= grace_of(job)):
        return None
    after = replace(job, cancel_request_time=job.cancel_request_time or now, cancel_grace_period=grace)
    return Change(after, EventType.JOB_CANCEL_REQUESTED)


def abandon(job: Job, now: float, unseen: bool = False) -> Change:
    """End the record of a job that cannot be ended.

    Its processes cannot be ended, its cancel has had no effect for a minute after its grace, or its run is `unseen`:
    it cannot be observed from here, as after a restart of the container it was in.
    """
    _refuse_ended(job, "abandoned")
    asked = job.cancel_request_time
    without_effect = asked is not None and now > asked + grace_of(job) + CANCEL_EFFECT_SECONDS
    if job.open_attempt is None or not (job.unkillable or without_effect or unseen):
        text = f"job {job.id} is not known to resist being ended; cancel it, and abandon it if nothing comes of that"
        raise Refused("JOB_NOT_UNKILLABLE", text, metadata={"uid": job.uid})
    pids = ", ".join(str(pid) for pid in job.unkillable)
    what = f"these processes could not be ended: {pids}" if pids else "nothing was heard of its end"
    result = RunResult(Outcome(Reason.UNKILLABLE, Evidence.NONE, f"given up on; {what}"), now)
    change = ended(replace(job, cancel_request_time=asked or now), job.attempt_count, result, now)
    assert change is not None, "a job that is being ended has an open attempt"
    return change


def unkillable(job: Job, number: int, pids: tuple[int, ...]) -> Change | None:
    """Record which processes of an attempt cannot be ended."""
    attempt = job.open_attempt
    if attempt is None or attempt.number != number or job.unkillable == pids:
        return None
    text = ", ".join(str(pid) for pid in pids)
    detail = f"these processes cannot be ended: {text}" if pids else "the processes that resisted are gone"
    return Change(replace(job, unkillable=pids), EventType.JOB_NOTE, detail)


def hold(job: Job) -> Change | None:
    """Keep a waiting job from starting."""
    _refuse_started(job, "held")
    return None if job.held else Change(replace(job, held=True), EventType.JOB_HELD)


def release(job: Job) -> Change | None:
    """Let a held job start."""
    _refuse_started(job, "released")
    return Change(replace(job, held=False), EventType.JOB_RELEASED) if job.held else None


def set_priority(job: Job, priority: int) -> Change | None:
    """Change the priority of a waiting job."""
    _refuse_started(job, "given another priority")
    if job.priority == priority:
        return None
    detail = f"priority {job.priority} -> {priority}"
    return Change(replace(job, priority=priority), EventType.JOB_PRIORITY_CHANGED, detail)


def supersede(job: Job, uid: str) -> Change:
    """Record that another job retries an ended one."""
    require_ended(job, "retried")
    if job.superseded_by:
        raise Refused(
            "JOB_SUPERSEDED",
            f"job {job.id} was retried already, as {job.superseded_by}: retry that one if it has to run again",
            metadata={"uid": job.uid, "superseded_by": job.superseded_by},
        )
    return Change(replace(job, superseded_by=uid), EventType.JOB_SUPERSEDED, f"retried as {uid}")


def require_ended(job: Job, verb: str) -> None:
    """Refuse what may only be done to an ended job."""
    if not job.state.terminal:
        raise Refused(
            "JOB_NOT_ENDED",
            f"job {job.id} is {job.state.name} and cannot be {verb}; wait for its end or cancel it first",
            metadata={"uid": job.uid, "state": job.state.name},
        )


def _refuse_ended(job: Job, verb: str) -> None:
    if job.state.terminal:
        raise Refused(
            "JOB_ENDED",
            f"job {job.id} has ended ({job.state.name}) and cannot be {verb}",
            metadata={"uid": job.uid, "state": job.state.name},
        )


def _refuse_started(job: Job, verb: str) -> None:
    _refuse_ended(job, verb)
    if job.state is not State.QUEUED or job.open_attempt is not None:
        raise Refused(
            "JOB_STARTED",
            f"job {job.id} has started and cannot be {verb}; cancel it if it should not run",
            metadata={"uid": job.uid, "state": job.state.name},
        )
