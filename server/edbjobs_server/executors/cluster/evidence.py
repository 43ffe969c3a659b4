"""What became of a run on a cluster: pure conclusions from its scheduler's answers and its own record.

The order of evidence: the scheduler's queue command, then its accounting (both come as a `ClusterJobStatus`), then the
record that the run's script wrote into its folder. The last one alone counts only when the scheduler, which
responds, has reported more than once that it knows no such job. Nothing follows from a missing answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from edbjobs_server.core.runs import Ending, RunEnded, RunKey
from edbjobs_server.executors.cluster.record import DUPLICATE_CODE, Record
from edbjobs_server.executors.schedulers.base import ClusterJobStatus

# Endings that a line of the scheduler in the job's output may make more precise: SLURM calls a job that it ended
# for its memory FAILED by signal 9, and one whose node failed and came back may end with any code.
_VAGUE = frozenset({Ending.EXITED, Ending.SIGNALLED, Ending.LOST, Ending.CANCELLED_EXTERNALLY})
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "TERM": 15, "XCPU": 24}
# Those by which a scheduler asks for a job's end before it kills it; the others can be warnings.
_DEMANDS = frozenset({"HUP", "INT", "QUIT", "TERM", "XCPU"})


@dataclass(frozen=True, slots=True)
class Found:
    """The evidence in a run's folder and in the executor's memory.

    Attributes
    ----------
    record : Record
        What the run's script has written.
    end_in_output : tuple of (Ending, str) or None
        What the scheduler wrote into the job's output about its end.
    asked : bool
    A cancel was requested by us.
    requeued : bool
        The scheduler requeued the job after it had started, or started it again.
    """

    record: Record
    end_in_output: tuple[Ending, str] | None = None
    asked: bool = False
    requeued: bool = False


def is_of_twin(status: ClusterJobStatus, record: Record) -> bool:
    """Return whether an end is that of a second run of the job, which left because the first one had the claim.

    A controller that crashed before it saved its state starts jobs again under their ids (SLURM, measured).
    """
    claim = record.claim
    if claim is None or claim.kind != "run" or not record.dups or status.exit_code != DUPLICATE_CODE:
        return False
    return all(dup.restart == claim.restart for dup in record.dups)  # else it was put back into the queue


def conclude(key: RunKey, status: ClusterJobStatus, found: Found, now: float) -> RunEnded:
    """Conclude from a scheduler's report that a job has ended; its `ending` must be known."""
    assert status.ending is not None, "an unknown ending is requested first"
    record = found.record
    start_time = _start_time(status, record)
    # As the start, by the node's clock: some schedulers report only the minute.
    end_time = record.exit.time if record.exit is not None else status.end_time or now
    end_time = max(end_time, start_time or end_time)
    if record.refusal:
        return RunEnded(key, Ending.START_FAILED, end_time, message=record.refusal, by_scheduler=False)
    void = record.claim is not None and record.claim.kind == "void"
    if void and (found.asked or status.exit_code == DUPLICATE_CODE):
        return never_ran(key, end_time)
    ending, message = _ending(status, found)
    code = status.exit_code
    if ending is Ending.EXITED and record.exit is not None:
        code = record.exit.code or code
    return RunEnded(
        key,
        ending,
        end_time,
        start_time=start_time,
        exit_code=code if ending is Ending.EXITED else None,
        signal=status.signal if ending is Ending.SIGNALLED else None,
        message=message,
        by_scheduler=ending is not Ending.EXITED or record.exit is None,
    )


def _ending(status: ClusterJobStatus, found: Found) -> tuple[Ending, str]:
    ending = status.ending
    assert ending is not None, "checked by the caller"
    if found.asked and ending is Ending.CANCELLED_EXTERNALLY:
        return Ending.CANCELLED, ""
    if found.requeued or any(dup.restart for dup in found.record.dups):
        kind, line = found.end_in_output or (Ending.NODE_FAIL, "")
        text = f"{status.state}: the scheduler put it back into its queue; it is not run a second time"
        return kind if kind is not Ending.EXITED else Ending.NODE_FAIL, f"{text}{': ' + line if line else ''}"
    if found.end_in_output is not None and ending in _VAGUE and not (ending is Ending.EXITED and status.exit_code == 0):
        return found.end_in_output
    return ending, _words(status)


def _words(status: ClusterJobStatus) -> str:
    if status.ending in (Ending.EXITED, Ending.SIGNALLED) and not status.message:
        return ""  # code and signal are sufficient
    reason = f" ({status.reason})" if status.reason and status.reason != "None" else ""
    return f"the scheduler reports {status.state}{reason}{': ' + status.message if status.message else ''}"


def _start_time(status: ClusterJobStatus, record: Record) -> float | None:
    """Return when the run started; a job that ended while it waited has no node."""
    start_time = _recorded_start(record)
    return start_time if start_time is not None or not status.nodes else status.start_time


def _recorded_start(record: Record) -> float | None:
    if record.start is not None:
        return record.start.time
    return record.claim.time if record.claim is not None and record.claim.kind == "run" else None


def presume(key: RunKey, found: Found, *, stale: bool, now: float) -> RunEnded | None:
    """Conclude from a run's own record, after its scheduler has denied it more than once.

    Parameters
    ----------
    key : RunKey
        Which run.
    found : Found
        What is there.
    stale : bool
        The record shows no sign of life any more.
    now : float
        Seconds since the epoch.

    Returns
    -------
    RunEnded or None
        None: it shows signs of life, so nothing is concluded.
    """
    record = found.record
    if record.refusal:
        return RunEnded(key, Ending.START_FAILED, now, message=record.refusal)
    start = _recorded_start(record)
    if record.exit is not None:
        return _by_exit(key, found, start)
    if found.end_in_output is not None:
        kind, line = found.end_in_output
        kind = Ending.CANCELLED if found.asked and kind is Ending.CANCELLED_EXTERNALLY else kind
        return RunEnded(key, kind, now, start_time=start, message=line, by_scheduler=True)
    if not record.claimed or (record.claim is not None and record.claim.kind == "void"):
        text = "it never started, and the scheduler no longer knows it: cancelled elsewhere, or lost by the scheduler"
        return RunEnded(key, Ending.LOST, now, message=text)
    if not stale:
        return None
    if record.signal in _DEMANDS:
        text = f"its script got {record.signal} and was killed before it could record the end"
        return _signalled(key, found, record.signal, now, f"{text}; the scheduler knows the job no longer")
    text = "the scheduler knows it no longer, and its record ends in the middle: its node or its script was killed"
    return RunEnded(key, Ending.LOST, now, start_time=start, message=text)


def _by_exit(key: RunKey, found: Found, start: float | None) -> RunEnded:
    left = found.record.exit
    assert left is not None, "checked by the caller"
    if found.end_in_output is not None and found.end_in_output[0] is not Ending.EXITED:
        kind, line = found.end_in_output
        kind = Ending.CANCELLED if found.asked and kind is Ending.CANCELLED_EXTERNALLY else kind
        return RunEnded(key, kind, left.time, start_time=start, message=line, by_scheduler=True)
    name = found.record.signal or ("" if left.signal == "none" else left.signal)
    if name:
        return _signalled(key, found, name, left.time, f"its script got {name}; the scheduler knows the job no longer")
    return RunEnded(key, Ending.EXITED, left.time, start_time=start, exit_code=left.code)


def _signalled(key: RunKey, found: Found, name: str, end_time: float, text: str) -> RunEnded:
    ending = Ending.CANCELLED if found.asked else Ending.SIGNALLED
    number = _SIGNALS.get(name, 15)
    return RunEnded(key, ending, end_time, start_time=_recorded_start(found.record), signal=number, message=text)


def never_ran(key: RunKey, now: float) -> RunEnded:
    """Return the end of a run that was cancelled before it started."""
    return RunEnded(key, Ending.NEVER_RAN, now, message="it was cancelled before it started")
