"""Where runs of a cluster have their folders, and the bell they ring when they have written something.

A run's folder and the bells lie on the file system that the service and the nodes share. One folder holds the bells
of all runs, so that one listing tells what is new, however many runs there are.
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
        self._bells = root / "news"

    def prepare(self) -> None:
        """Make what must be there before a run can ring.

        Raises
        ------
        OSError
            The shared folder cannot be written.
        """
        self._bells.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, key: RunKey) -> Path:
        """Folder of a run."""
        return self.root / "runs" / key.folder

    def bell(self, key: RunKey) -> Path:
        """File that a run makes when it has written something."""
        return self._bells / f"{key.seq}.{key.attempt}"

    def rung(self) -> list[str]:
        """Tell which runs have something to tell, as `RunKey.folder`; each is told once."""
        try:
            names = os.listdir(self._bells)
        except FileNotFoundError:
            return []
        found: list[str] = []
        for name in names:
            match = _BELL.fullmatch(name)
            if match is None:
                continue
            (self._bells / name).unlink(missing_ok=True)
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
