"""AEDT's lock of a project: who has the project open, and the lock that an ended run of ours left. May block.

As in `edbjobs_server.solver.project`, an `OSError` that is raised is a transient one.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edbjobs_server.solver.project import KINDS, Project, moved
from edbjobs_server.solver.project_checks import invalid
from edbjobs_server.util import files
from edbjobs_server.util.files import is_transient, text_of

_OWNER_BYTES = 200
_TICK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Lock:
    """AEDT's lock file of a project: who made it, as far as known, and when."""

    path: Path
    mtime: float
    owner: str


def lock_state(project: Project) -> Lock | None:
    """Return the lock of a project, under whichever of its suffixes it was opened; None: it is not locked.

    Raises
    ------
    Refused
        INVALID_JOB: the status of a lock cannot be read.
    OSError
        A transient one.
    """
    for path in _locks(project.path):
        try:
            found = files.status_of(path, follow=False)
        except OSError as error:
            if is_transient(error):
                raise
            raise invalid(str(project.path), f"has a lock that cannot be read: {text_of(error)}") from error
        if found is not None:
            return Lock(path, found.st_mtime, _owner(path, found.st_uid))
    return None


def remove_own_lock(path: str | Path, started_at: float) -> Path | None:
    """Remove the lock that an ended run of ours left; call it only when no process of that run is left.

    Parameters
    ----------
    path : path
        Real path of the project.
    started_at : float
        When the run started. An older lock is another's, and so is one of another account: neither is touched.

    Returns
    -------
    Path or None
        What was removed; None also where a lock may not be removed.

    Raises
    ------
    OSError
        A transient one.
    """
    for lock in _locks(Path(path)):
        try:
            found = files.status_of(lock, follow=False)
            if found is None:
                continue
            ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            if ours and found.st_mtime >= _file_time(started_at, found.st_mtime_ns):
                if moved(os.path.dirname(path)):  # then it is that of another project
                    return None
                with suppress(FileNotFoundError):
                    os.unlink(lock)
                return lock
        except OSError as error:
            if is_transient(error):
                raise
    return None


def _file_time(moment: float, like_ns: int) -> float:
    """Return the earliest time stamp of a file made at this moment: file systems keep whole seconds, or clock ticks."""
    return float(int(moment)) if like_ns % 1_000_000_000 == 0 else moment - _TICK_SECONDS


def _locks(project: Path) -> tuple[Path, ...]:
    own = Path(f"{project}.lock")  # its suffix may be in capitals
    return (own, *(other for kind in KINDS if (other := project.with_suffix(f".{kind}.lock")) != own))


def _owner(path: Path, uid: int) -> str:
    try:
        with files.open_regular(path, follow=False) as file:
            text = file.read(_OWNER_BYTES).decode("utf-8", "replace")
    except OSError as error:
        if is_transient(error):
            raise
        text = ""
    words = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(words.split()) or _account(uid)


def _account(uid: int) -> str:
    if sys.platform == "win32":
        return ""
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return ""
