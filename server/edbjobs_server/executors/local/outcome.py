"""Updates about a run, from its record and the host that wrote it."""

from __future__ import annotations

import time
from enum import Enum

from edbjobs_server.core.runs import Ending, RunEnded, RunKey, RunStarted
from edbjobs_server.executors.local import record

_ENDINGS = frozenset(ending.value for ending in Ending)


class HostMatch(Enum):
    """Whether the pids of a record mean anything to us."""

    HERE = "here"
    REBOOTED = "rebooted"  # the machine has been started again since: nothing of the run can be left
    ELSEWHERE = "elsewhere"  # another host or pid namespace: what is left of the run cannot be seen


def mark(key: RunKey) -> str:
    """Value of the mark ``EDBJOBS_RUN`` in the environment of a run's processes."""
    return f"{key.uid}.{key.attempt}"


def sight(found: record.Record, here: record.Here) -> HostMatch:
    """Compare where a record was written with where we are."""
    if found.claim is None or (found.claim["boot"] == here.boot and found.claim["pidns"] == here.pidns):
        return HostMatch.HERE
    if found.claim["boot"] != here.boot and found.claim["host"] == here.host:
        return HostMatch.REBOOTED
    return HostMatch.ELSEWHERE


def started(key: RunKey, found: record.Record, here: record.Here, *, over: bool = False) -> RunStarted | None:
    """Return the update for a start, once the solver's process is on record, or is not awaited any more (`over`)."""
    if found.start is None or not (found.start["pid"] or over):
        return None
    return RunStarted(key, time=found.start["time"], pid=found.start["pid"], nodes=(here.host,))


def ended(key: RunKey, found: record.Record, here: record.Here) -> RunEnded:
    """Build the update with the end of a run that has no process left."""
    start_time = None if found.start is None else found.start["time"]
    if found.end is not None:
        known = found.end["ending"] in _ENDINGS
        return RunEnded(
            key,
            Ending(found.end["ending"]) if known else Ending.LOST,
            found.end["time"],
            start_time=start_time,
            exit_code=found.end["code"],
            signal=found.end["signal"],
            cpu_duration=found.end["cpu"],
            peak_memory_bytes=found.end["rss"],
            message=found.end["message"] if known else f"this version has no ending {found.end['ending']!r}",
        )
    if found.void:
        return RunEnded(key, Ending.NEVER_RAN, time.time(), message="it was voided before it was started")
    if found.claim is not None and found.start is None:
        return RunEnded(key, Ending.NEVER_RAN, time.time(), message="its supervisor ended before it was started")
    return RunEnded(key, Ending.LOST, time.time(), start_time=start_time, message=_why_lost(found, here))


def _why_lost(found: record.Record, here: record.Here) -> str:
    if not found.exists:
        return "the machine was started again after it was reserved, and it is unknown whether it ran"
    if found.claim is None:
        return f"its record ({record.NAME} in the run's folder) is damaged; no process of it is left"
    if sight(found, here) is HostMatch.REBOOTED:
        return "the machine went down or was started again while it ran"
    return f"its supervisor (pid {found.claim['pid']}) was killed; no process of it is left and no end is on record"
