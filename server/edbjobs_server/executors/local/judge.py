"""What a run's record and the processes of this host say about it; everything here may block on the disk."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from enum import Enum
from typing import NamedTuple

from edbjobs_server.executors.base import Ending, RunEnded, RunKey, RunStarted
from edbjobs_server.executors.local import processes, record

assert sys.platform != "win32"

_log = logging.getLogger(__name__)


class Sight(Enum):
    """Whether the pids of a record mean anything to us."""

    HERE = "here"
    REBOOTED = "rebooted"  # the machine has been started again since: nothing of the run can be left
    ELSEWHERE = "elsewhere"  # another host or pid namespace: what is left of the run cannot be seen


class Standing(NamedTuple):
    """How a run stands: what is on record and, if its supervisor lives, a pidfd of it."""

    record: record.Record
    supervisor: int | None


def mark(key: RunKey) -> str:
    """Value of `processes.MARK` in the environment of a run's processes."""
    return f"{key.uid}.{key.attempt}"


def sight(found: record.Record, here: processes.Here) -> Sight:
    """Compare where a record was written with where we are."""
    if found.claim is None or (found.claim["boot"] == here.boot and found.claim["pidns"] == here.pidns):
        return Sight.HERE
    if found.claim["boot"] != here.boot and found.claim["host"] == here.host:
        return Sight.REBOOTED
    return Sight.ELSEWHERE


def settle(folder: str, key: RunKey, boot: str, here: processes.Here) -> Standing:
    """Find out how a run stands; one that nobody has claimed is voided, so that nobody ever will.

    Parameters
    ----------
    folder : str
        The run's folder.
    key : RunKey
        The run.
    boot : str
        Boot id when the run was reserved. After another boot nothing is voided: a missing record may have
        been lost with the power, so it proves nothing.
    here : Here
        Where we are.

    Raises
    ------
    OSError
        If the record can be neither read nor written; the run's standing is unknown then.
    """
    found = record.read(folder)
    if not found.exists and boot == here.boot:
        void(folder, key, here)
        found = record.read(folder)
    supervisor = _open_claimer(found, here)
    if supervisor is None and found.claim is not None:
        found = record.read(folder)  # it may have written its end just before it went
    return Standing(found, supervisor)


def void(folder: str, key: RunKey, here: processes.Here) -> bool:
    """Claim a run as void; False if another claim stands."""
    facts = {
        "kind": "void",
        **here.facts(),
        "pid": os.getpid(),
        "ticks": processes.own_ticks(),
        "seq": key.seq,
        "uid": key.uid,
        "attempt": key.attempt,
        "keep": [],
        "info": {},
    }
    file = record.claim(folder, facts)
    if file is None:
        return False
    os.close(file)
    return True


def ask_end(folder: str, key: RunKey, grace: float, here: processes.Here) -> None:
    """Void a run that is not claimed yet, ask the supervisor of one that is to end it."""
    if void(folder, key, here):
        return
    found = record.read(folder)
    supervisor = _open_claimer(found, here)
    if supervisor is None or found.end is not None:
        return
    try:
        record.append_cancel(folder, grace)
    except OSError as error:
        _log.warning("the grace of a cancel cannot be told, the run's own one counts: %s: %s", folder, error)
    try:
        signal.pidfd_send_signal(supervisor, signal.SIGUSR1)
    except ProcessLookupError:
        return
    finally:
        os.close(supervisor)


def _open_claimer(found: record.Record, here: processes.Here) -> int | None:
    if found.claim is None or found.void or sight(found, here) is not Sight.HERE:
        return None
    return processes.open_process(found.claim["pid"], found.claim["ticks"])


def left_of(found: record.Record, key: RunKey) -> list[processes.Process]:
    """Find what is left of a run whose supervisor is gone, but for its keep-list."""
    solver = None if found.start is None else (found.start["pid"], found.start["ticks"])
    keep = [] if found.claim is None else found.claim["keep"]
    everybody = processes.table()
    return processes.without(processes.of_run(mark(key), solver, everybody), keep, everybody)


def may_have_left(found: record.Record, here: processes.Here) -> bool:
    """Tell whether processes of a run without supervisor may still be running here."""
    if not found.exists or found.end is not None or sight(found, here) is not Sight.HERE:
        return False
    return found.claim is None or found.start is not None


def started(key: RunKey, found: record.Record, here: processes.Here) -> RunStarted | None:
    """Make the update that tells a start, if it is on record."""
    if found.start is None:
        return None
    return RunStarted(key, time=found.start["time"], pid=found.start["pid"], nodes=(here.host,))


def ended(key: RunKey, found: record.Record, here: processes.Here) -> RunEnded:
    """Make the update that tells the end of a run of which nothing is left."""
    start_time = None if found.start is None else found.start["time"]
    if found.end is not None:
        return RunEnded(
            key,
            Ending(found.end["ending"]),
            found.end["time"],
            start_time=start_time,
            exit_code=found.end["code"],
            signal=found.end["signal"],
            cpu_seconds=found.end["cpu"],
            max_rss_bytes=found.end["rss"],
            message=found.end["message"],
        )
    if found.void:
        return RunEnded(key, Ending.NEVER_RAN, time.time(), message="it was voided before it was started")
    if found.claim is not None and found.start is None:
        return RunEnded(key, Ending.NEVER_RAN, time.time(), message="its supervisor ended before it was started")
    return RunEnded(key, Ending.LOST, time.time(), start_time=start_time, message=_why_lost(found, here))


def _why_lost(found: record.Record, here: processes.Here) -> str:
    if not found.exists:
        return "the machine was started again after it was reserved, and nothing tells whether it ran"
    if found.claim is None:
        return f"its record ({record.NAME} in the run's folder) is damaged; no process of it is left"
    if sight(found, here) is Sight.REBOOTED:
        return "the machine went down or was started again while it ran"
    return f"its supervisor (pid {found.claim['pid']}) was killed; no process of it is left and no end is on record"
