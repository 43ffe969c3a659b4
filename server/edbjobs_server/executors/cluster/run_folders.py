"""The folders of a cluster's runs, and the notifications they write when their record has changed.

A run's folder and the notifications are on the file system that service and nodes share. One folder holds those
of all runs, so that one listing shows what is new, however many runs there are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edbjobs_server.core.runs import RunKey
from edbjobs_server.executors.schedulers.base import ERRORS

OUTPUT = "scheduler.out"  # what the scheduler itself writes; the solver's output goes to stdout and stderr
_TAIL_BYTES = 65_536
_BELL = re.compile(r"(\d{1,18})\.(\d{1,9})")


class RunFolders:
    """Folders of one store's runs below the shared folder.

    Parameters
    ----------
    root : Path
        Of this store alone: two services may share one shared folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._notifications = root / "news"

    def prepare(self) -> None:
        """Make the folders that must exist before a run can notify.

        Raises
        ------
        OSError
            The shared folder cannot be written.
        """
        self._notifications.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, key: RunKey) -> Path:
        """Folder of a run."""
        return self.root / "runs" / key.folder

    def notification(self, key: RunKey) -> Path:
        """File that a run makes when it has written something."""
        return self._notifications / f"{key.seq}.{key.attempt}"

    def rung(self) -> list[str]:
        """Return the runs that have a notification, as `RunKey.folder`; each is returned once."""
        try:
            names = os.listdir(self._notifications)
        except FileNotFoundError:
            return []
        found: list[str] = []
        for name in names:
            match = _BELL.fullmatch(name)
            if match is None:
                continue
            (self._notifications / name).unlink(missing_ok=True)
            found.append(RunKey(int(match[1]), "", int(match[2])).folder)
        return found


def output_tail(folder: Path) -> str:
    """Read the end of what the scheduler itself has written about a run; empty: nothing is there."""
    return _tail(folder / OUTPUT) + _tail(folder / (OUTPUT + ERRORS))


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
