"""What became of a run on a cluster: pure conclusions from what its scheduler and its own record say.

The order of evidence: the scheduler's queue command, then its accounting (both come as a `ClusterJobStatus`), then the
record that the run's script wrote into its folder. The last one alone counts only when the scheduler, which
answers, has said more than once that it knows no such job. Nothing follows from an answer that did not come.
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
    """What a run's folder and the memory of its executor tell.

    Attributes
    ----------
    record : Record
        What the run's script has written.
    said : tuple of (Ending, str) or None
        What the scheduler wrote into the job's output about its end.
    asked : bool
        We have asked for the end.
    requeued : bool
        The scheduler put the job back into its queue after it had begun, or began it again.
    """

    record: Record
    said: tuple[Ending, str] | None = None
    asked: bool = False
    requeued: bool = False


def is_of_twin(sighting: ClusterJobStatus, record: Record) -> bool:
    """Tell whether an end is that of a second run of the job, which left because the first one had the claim.

    A controller that crashed before it saved what it knew begins jobs again under their ids (SLURM, measured).
    """
    claim = record.claim
    if claim is None or claim.kind != "run" or not record.dups or sighting.exit_code != DUPLICATE_CODE:
        return False
    return all(dup.restart == claim.restart for dup in record.dups)  # else it was put back into the queue


def conclude(key: RunKey, sighting: ClusterJobStatus, found: Found, now: float) -> RunEnded:
    """Conclude from a scheduler's word that a job has ended; its `ending` must be known."""
    assert sighting.ending is not None, "an ending that is not known is asked for first"
    record = found.record
    start_time = _start_time(sighting, record)
    # As the start, by the clock of the node: some schedulers tell the minute only.
    end_time = record.exit.time if record.exit is not None else sighting.end_time or now
    end_time = max(end_time, start_time or end_time)
    if record.refusal:
        return RunEnded(key, Ending.START_FAILED, end_time, message=record.refusal, by_scheduler=False)
    void = record.claim is not None and record.claim.kind == "void"
    if void and (found.asked or sighting.exit_code == DUPLICATE_CODE):
        return never_ran(key, end_time)
    ending, message = _ending(sighting, found)
    code = sighting.exit_code
    if ending is Ending.EXITED and record.exit is not None:
        code = record.exit.code or code
    return RunEnded(
        key,
        ending,
        end_time,
        start_time=start_time,
        exit_code=code if ending is Ending.EXITED else None,
        signal=sighting.signal if ending is Ending.SIGNALLED else None,
        message=message,
        by_scheduler=ending is not Ending.EXITED or record.exit is None,
    )


def _ending(sighting: ClusterJobStatus, found: Found) -> tuple[Ending, str]:
    ending = sighting.ending
    assert ending is not None, "checked by the caller"
    if found.asked and ending is Ending.CANCELLED_EXTERNALLY:
        return Ending.CANCELLED, ""
    if found.requeued or any(dup.restart for dup in found.record.dups):
        kind, line = found.said or (Ending.NODE_FAIL, "")
        text = f"{sighting.state}: the scheduler put it back into its queue; it is not run a second time"
        return kind if kind is not Ending.EXITED else Ending.NODE_FAIL, f"{text}{': ' + line if line else ''}"
    if found.said is not None and ending in _VAGUE and not (ending is Ending.EXITED and sighting.exit_code == 0):
        return found.said
    return ending, _words(sighting)


def _words(sighting: ClusterJobStatus) -> str:
    if sighting.ending in (Ending.EXITED, Ending.SIGNALLED) and not sighting.message:
        return ""  # code and signal say it all
    reason = f" ({sighting.reason})" if sighting.reason and sighting.reason != "None" else ""
    return f"the scheduler says {sighting.state}{reason}{': ' + sighting.message if sighting.message else ''}"


def _start_time(sighting: ClusterJobStatus, record: Record) -> float | None:
    """Tell when the run began; a job that ended while it waited has no node."""
    began = _began(record)
    return began if began is not None or not sighting.nodes else sighting.start_time


def _began(record: Record) -> float | None:
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
    start = _began(record)
    if record.exit is not None:
        return _by_exit(key, found, start)
    if found.said is not None:
        kind, line = found.said
        kind = Ending.CANCELLED if found.asked and kind is Ending.CANCELLED_EXTERNALLY else kind
        return RunEnded(key, kind, now, start_time=start, message=line, by_scheduler=True)
    if not record.claimed or (record.claim is not None and record.claim.kind == "void"):
        text = "it never began, and the scheduler knows it no longer: somebody cancelled it, or the scheduler lost it"
        return RunEnded(key, Ending.LOST, now, message=text)
    if not stale:
        return None
    if record.signal in _DEMANDS:
        text = f"its script got {record.signal} and was killed before it could tell the end"
        return _signalled(key, found, record.signal, now, f"{text}; the scheduler knows the job no longer")
    text = "the scheduler knows it no longer, and its record ends in the middle: its node or its script was killed"
    return RunEnded(key, Ending.LOST, now, start_time=start, message=text)


def _by_exit(key: RunKey, found: Found, start: float | None) -> RunEnded:
    left = found.record.exit
    assert left is not None, "checked by the caller"
    if found.said is not None and found.said[0] is not Ending.EXITED:
        kind, line = found.said
        kind = Ending.CANCELLED if found.asked and kind is Ending.CANCELLED_EXTERNALLY else kind
        return RunEnded(key, kind, left.time, start_time=start, message=line, by_scheduler=True)
    name = found.record.signal or ("" if left.signal == "none" else left.signal)
    if name:
        return _signalled(key, found, name, left.time, f"its script got {name}; the scheduler knows the job no longer")
    return RunEnded(key, Ending.EXITED, left.time, start_time=start, exit_code=left.code)


def _signalled(key: RunKey, found: Found, name: str, end_time: float, text: str) -> RunEnded:
    ending = Ending.CANCELLED if found.asked else Ending.SIGNALLED
    number = _SIGNALS.get(name, 15)
    return RunEnded(key, ending, end_time, start_time=_began(found.record), signal=number, message=text)


def never_ran(key: RunKey, now: float) -> RunEnded:
    """Tell that a run was called off before it began."""
    return RunEnded(key, Ending.NEVER_RAN, now, message="it was called off before it began")
