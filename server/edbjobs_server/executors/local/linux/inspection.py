"""What a run's record and the processes of this host say about it; everything here may block on the disk."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import sys
from typing import NamedTuple

from edbjobs_server.core.runs import RunKey
from edbjobs_server.executors.local import outcome, record
from edbjobs_server.executors.local.linux import processes

assert sys.platform != "win32"

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 10.0
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)  # this file system has none


class Standing(NamedTuple):
    """How a run stands.

    Attributes
    ----------
    record : Record
        What is on record.
    alive : bool
        Its supervisor lives and has not written an end: it is on this run, because none leaves a run without an end.
    supervisor : int or None
        A pidfd of it, the caller's to close; None also if there are no file descriptors for one.
    """

    record: record.Record
    alive: bool
    supervisor: int | None = None


def settle(folder: str, key: RunKey, boot: str, here: record.Here) -> Standing:
    """Find the state of a run; one that is not claimed is voided, so that it never can be.

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
    if found.end is not None:
        return Standing(found, alive=False)
    supervisor, alive = None, False
    try:
        supervisor = _open_claimer(found, here)
        alive = supervisor is not None
    except OSError as error:
        if not processes.is_transient(error.errno):
            raise
        alive = claimer_lives(found, here)
    if not alive and found.claim is not None:
        found = record.read(folder)  # it may have written its end just before it went
    return Standing(found, alive, supervisor)


def look(folder: str, here: record.Here, before: record.Record) -> Standing:
    """Look how a run stands that may not be claimed yet; changes nothing and opens no pidfd.

    `before` is what was found last time: a record that has not grown is not read again.
    """
    unchanged = before.claim is not None and record.size(folder) == before.size
    found = before if unchanged else record.read(folder)
    if found.claim is None or found.end is not None:
        return Standing(found, alive=False)
    return Standing(found, claimer_lives(found, here))


def void(folder: str, key: RunKey, here: record.Here) -> bool:
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


def ask_end(folder: str, key: RunKey, grace: float, here: record.Here) -> None:
    """Void a run that is not claimed yet, ask the supervisor of one that is to end it.

    Raises
    ------
    OSError
        If the run is not claimed and cannot be voided: somebody may still claim it.
    """
    found = record.read(folder)
    if not found.exists:  # else a full disk, on which nothing can be claimed, would keep a cancel from the supervisor
        if void(folder, key, here):
            return
        found = record.read(folder)
    if found.end is not None or found.claim is None or found.void:
        return
    file = os.open(f"{folder}/{record.NAME}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(file)  # from here on its supervisor cannot go on to another run
        _send_end(folder, grace, here)
    finally:
        os.close(file)


def _lock(file: int) -> None:
    try:
        if not processes.lock(file, fcntl.LOCK_SH, _LOCK_SECONDS):
            raise BlockingIOError(errno.EAGAIN, "the end of the run is being written")
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # else its supervisor has no second run
            raise


def _send_end(folder: str, grace: float, here: record.Here) -> None:
    found = record.read(folder)
    supervisor = None if found.end is not None else _open_claimer(found, here)
    if supervisor is None:
        return
    try:
        record.append_cancel(folder, grace)
    except OSError as error:
        _log.warning("the grace of a cancel cannot be read, the run's own one is used: %s: %s", folder, error)
    try:
        signal.pidfd_send_signal(supervisor, signal.SIGUSR1)
    except ProcessLookupError:
        return
    finally:
        os.close(supervisor)


def _open_claimer(found: record.Record, here: record.Here) -> int | None:
    if found.claim is None or found.void or outcome.sight(found, here) is not outcome.HostMatch.HERE:
        return None
    return processes.open_process(found.claim["pid"], found.claim["ticks"])


def claimer_lives(found: record.Record, here: record.Here) -> bool:
    """Return whether the process that claimed a run lives here; it is on this run as long as there is no end."""
    if found.claim is None or found.void or outcome.sight(found, here) is not outcome.HostMatch.HERE:
        return False
    return processes.is_alive(found.claim["pid"], found.claim["ticks"])


def left_of(found: record.Record, key: RunKey) -> list[processes.Process]:
    """Find what is left of a run whose supervisor is gone, but for its keep-list."""
    solver = None if found.start is None or not found.start["pid"] else (found.start["pid"], found.start["ticks"])
    keep = [] if found.claim is None else found.claim["keep"]
    everybody = processes.table()
    return processes.without(processes.of_run(outcome.mark(key), solver, everybody), keep, everybody)


def may_have_left(found: record.Record, here: record.Here) -> bool:
    """Return whether processes of a run without supervisor may still be running here."""
    if not found.exists or found.end is not None or outcome.sight(found, here) is not outcome.HostMatch.HERE:
        return False
    return found.claim is None or found.start is not None
