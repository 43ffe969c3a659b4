"""What a job waits for by itself, whatever other jobs and the host do: it is known from the job alone."""

from __future__ import annotations

from datetime import datetime, timezone

from edbjobs_server.core.admission import Block
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import State, Waiting

STARTING = Block(Waiting.STARTING, "its resources are reserved and it is being started", own=True)
_CANCELLING = Block(Waiting.CANCELLING, "its processes are being ended", own=True)
_HELD = Block(Waiting.HELD, "held; release it to let it start", own=True)


def own_wait(job: Job) -> Block | None:
    """Return what a job says itself of what keeps it from starting, or from ending; None: nothing.

    A time that it waits for may have come since.
    """
    if job.state.terminal:
        return None
    if job.unkillable:
        pids = ", ".join(str(pid) for pid in job.unkillable)
        return Block(Waiting.UNKILLABLE, f"these processes cannot be ended: {pids}", own=True)
    if job.cancel_request_time is not None:
        return _CANCELLING
    if job.state is not State.QUEUED:
        return None
    if job.open_attempt is not None:
        return STARTING
    return _HELD if job.held else _delay(job)


def _delay(job: Job) -> Block | None:
    if not job.next_attempt_time:
        return None
    if job.backing_off:
        return Block(Waiting.BACK_OFF, job.waiting_message, own=True)
    return Block(Waiting.NOT_BEFORE, f"not before {_utc(job.next_attempt_time)}", own=True)


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
