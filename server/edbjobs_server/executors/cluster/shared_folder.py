"""Work on the file system that service and nodes share: in threads and with a deadline, because it may hang."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from edbjobs_server.core.runs import Ending, RunKey
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.cluster.evidence import Found
from edbjobs_server.executors.cluster.run import Run
from edbjobs_server.executors.cluster.run_folders import RunFolders, output_tail
from edbjobs_server.util.path_workers import PathWorkers

_T = TypeVar("_T")

DEADLINE_SECONDS = 60.0


class SilentFolder(OSError):
    """The shared file system did not answer in time."""


class SharedFolder:
    """The run folders of a cluster, as the event loop uses them.

    Every method raises OSError where the file system does not let it do its work, `SilentFolder` where it hangs.

    Parameters
    ----------
    folders : RunFolders
        Where runs have their folders.
    end_in_output : callable
        Tells what the scheduler wrote into a job's output about its end.
    template : str
        Of the batch scripts; PowerShell runs only files that are called ``.ps1``.
    """

    def __init__(
        self, folders: RunFolders, end_in_output: Callable[[str], tuple[Ending, str] | None], template: str
    ) -> None:
        self._folders = folders
        self._end_in_output = end_in_output
        self._script = record.SCRIPT + (".ps1" if template.endswith(".ps1.j2") else "")
        self._workers = PathWorkers(partial(SilentFolder, errno.ETIMEDOUT))

    def close(self) -> None:
        """End the threads; one that hangs is not waited for."""
        self._workers.close()

    def of(self, key: RunKey) -> Path:
        """Folder of a run."""
        return self._folders.of(key)

    def notification(self, key: RunKey) -> Path:
        """File that a run makes when it has written something."""
        return self._folders.notification(key)

    def script(self, key: RunKey) -> Path:
        """Batch script of a run."""
        return self.of(key) / self._script

    async def rung(self) -> list[str]:
        """Return the runs that have written something, as `RunKey.folder`."""
        return await self._off_loop(self._folders.rung)

    async def prepare(self, run: Run, script: str) -> None:
        """Write a run's batch script."""

        def work() -> None:
            self._folders.prepare()
            record.prepare(run.folder, script, self._script)

        await self._off_loop(work, run)

    async def is_prepared(self, run: Run) -> bool:
        """Return whether a run's batch script exists."""
        return await self._off_loop((run.folder / self._script).exists, run)

    async def record(self, run: Run) -> record.Record:
        """Read what a run has written."""
        return await self._off_loop(partial(record.read, run.folder), run)

    async def found(self, run: Run) -> Found:
        """Collect the evidence of a run's end beside the scheduler's report."""

        def work() -> Found:
            end_in_output = self._end_in_output(output_tail(run.folder))
            return Found(record.read(run.folder), end_in_output, run.grace is not None, run.requeued)

        return await self._off_loop(work, run)

    async def void(self, run: Run) -> bool:
        """Prevent a run that has not started from starting; False: it has started."""
        return await self._off_loop(partial(record.void, run.folder, time.time()), run)

    async def _off_loop(self, work: Callable[[], _T], run: Run | None = None) -> _T:
        root = str(self._folders.root)
        key = root if run is None else str(run.folder)
        return await self._workers.run(work, root, DEADLINE_SECONDS, key=key)
