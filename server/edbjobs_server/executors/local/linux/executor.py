"""Runs on this host, as the asyncio service sees them (Linux)."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from edbjobs_server.core.runs import Listener, OpenRun, RunEnded, RunKey, RunUpdate
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.local import outcome
from edbjobs_server.executors.local.linux import channel, processes
from edbjobs_server.executors.local.linux.run import Run

assert sys.platform != "win32"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_THREADS = 4  # for records: many runs may end at once, on a disk that takes its time
_LAUNCHER_TRIES = 5  # in a row, before those who wait for a launcher get an error
_FIRST_DELAY = 0.1  # seconds before a launcher is started again; doubled until
_LAST_DELAY = 5.0
_LAUNCHER_LIVES = 10.0  # seconds after which the end of a launcher has nothing to do with the end of the last one
_LONGEST_NEWS = 1 << 16


class LocalExecutor:
    """Runs on this host.

    Each run has a supervisor that outlives the service and keeps the run's record; the record alone decides
    what is told about a run. Implements `edbjobs_server.executors.base.Executor`.

    Parameters
    ----------
    runs_root : Path
        Folder for the runs' folders, on a local file system. What launcher and supervisors complain about
        goes to ``launcher.log`` in it.
    linger : float
        Seconds that processes may stay on after their solver has ended by itself; then TERM, grace, KILL.
    unkillable_after : float
        Seconds after KILL until processes that are still there are reported.
    """

    name = "local"

    def __init__(self, runs_root: Path, *, linger: float = 10.0, unkillable_after: float = 60.0) -> None:
        self.here = processes.here()
        self.unkillable_after = unkillable_after
        self._root = runs_root.absolute()
        self._linger = linger
        self._runs: dict[str, Run] = {}
        self._listener: Listener | None = None
        self._channel: channel.Channel | None = None
        self._opening: asyncio.Task[None] | None = None
        self._opened_at: float | None = None
        self._delay = 0.0  # before the next launcher
        self._pool = ThreadPoolExecutor(_THREADS, "edbjobs-runs")
        self._news = (-1, -1)
        self._partial = b""

    async def open(self, listener: Listener) -> None:
        """Start the launcher.

        Raises
        ------
        OSError
            If the folder cannot be written or the launcher cannot be started.
        """
        await self.off_loop(lambda: self._root.mkdir(mode=0o700, parents=True, exist_ok=True))
        self._listener = listener
        self._news = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._news[0], self._read_news)
        try:
            await self._launcher()
        except channel.NotStarted as error:
            raise OSError(f"the launcher of local runs could not be started: {error}") from error

    async def close(self) -> None:
        """Let go of everything; runs go on, and so does the launcher until the last of them has ended."""
        self._listener = None
        tasks: list[asyncio.Task[Any]] = [run.task for run in self._runs.values() if run.task is not None]
        if self._opening is not None:
            tasks.append(self._opening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runs.clear()
        if self._channel is not None:
            self._channel.close()
        if self._news[0] >= 0:
            asyncio.get_running_loop().remove_reader(self._news[0])
            os.close(self._news[0])
            os.close(self._news[1])
            self._news = (-1, -1)
        self._pool.shutdown(wait=False)

    def run_directory(self, key: RunKey) -> Path:
        """Folder of a run: ``record``, ``stdout`` and ``stderr`` are in it."""
        return self._root / key.folder

    async def start(self, run: RunSpec) -> None:
        """Start a reserved run; a second request for it starts nothing, but reports its state again."""
        if run.key.folder not in self._runs:
            self._take(run.key, self.here.boot, run)

    async def adopt(self, runs: Sequence[OpenRun]) -> None:
        """Take over runs of an earlier service; returns when each has been looked at once.

        A run whose record was written on another host or in another pid namespace cannot be judged from here:
        it is in trouble until its end is on record.
        """
        taken = [
            self._take(run.key, run.boot_id, None, run.cancel_grace) for run in runs if run.key.folder not in self._runs
        ]
        await asyncio.gather(*(run.looked.wait() for run in taken))

    async def cancel(self, key: RunKey, grace: float) -> None:
        """End a run; a further call with a shorter grace kills it earlier. A run that is not active has ended."""
        run = self._runs.get(key.folder)
        if run is not None:
            await run.cancel(grace)

    def _take(self, key: RunKey, boot: str, spec: RunSpec | None, grace: float | None = None) -> Run:
        run = Run(key, f"{self._root}/{key.folder}", boot, self, grace)
        self._runs[key.folder] = run
        run.task = asyncio.get_running_loop().create_task(run.follow(spec))
        return run

    # What a run needs --------------------------------------------------------------------------------------

    def emit(self, update: RunUpdate) -> None:
        """Hand an update on to the manager; a run that has ended is forgotten."""
        if self._listener is not None:
            self._listener(update)
        if isinstance(update, RunEnded):
            self._runs.pop(update.key.folder, None)

    async def launch(self, spec: RunSpec, folder: str) -> None:
        """Ask the launcher for a supervisor.

        Raises
        ------
        LauncherGone
            If it has ended meanwhile.
        NotStarted
            If there is none.
        """
        launcher = self._channel
        if launcher is None or launcher.gone:
            launcher = await self._launcher()
        await launcher.request(spec.key.folder, self._request(spec, folder))

    async def off_loop(self, work: Callable[[], _T]) -> _T:
        """Run a function that may block, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _request(self, spec: RunSpec, folder: str) -> dict[str, Any]:
        return {
            "name": spec.key.folder,
            "folder": folder,
            "seq": spec.key.seq,
            "uid": spec.key.uid,
            "attempt": spec.key.attempt,
            "argv": list(spec.argv),
            "cwd": spec.cwd,
            "env": {**spec.env, processes.MARK: outcome.mark(spec.key)},
            "keep": list(spec.keep),
            "info": dict(spec.info),
            "limit": spec.time_limit,
            "umask": spec.umask,
            "grace": spec.cancel_grace_period,
            "linger": self._linger,
            "unkillable": self.unkillable_after,
        }

    # Launcher ----------------------------------------------------------------------------------------------

    async def _launcher(self) -> channel.Channel:
        """Return a launcher that lives; all who wait for one wait for the same."""
        while self._channel is None or self._channel.gone:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.get_running_loop().create_task(self._open_launcher())
            await asyncio.shield(self._opening)
        return self._channel

    async def _open_launcher(self) -> None:
        for tries in range(1, _LAUNCHER_TRIES + 1):
            await asyncio.sleep(self._next_delay())
            try:
                self._channel = await channel.Channel.open(self._root / "launcher.log", self._news[1], self)
            except channel.NotStarted as error:
                _log.warning("the launcher of local runs could not be started: %s", error)
                if tries == _LAUNCHER_TRIES:
                    raise
            else:
                return

    def _next_delay(self) -> float:
        """Return how long to wait before a launcher is started, so that one that ends at once is no load."""
        now = asyncio.get_running_loop().time()
        if self._opened_at is None or now - self._opened_at > _LAUNCHER_LIVES:
            self._delay = 0.0
        else:
            self._delay = min(max(2 * self._delay, _FIRST_DELAY), _LAST_DELAY)
        self._opened_at = now + self._delay
        return self._delay

    def on_launcher_gone(self) -> None:
        """Settle every run by its record: the launcher reports no ends of supervisors any more."""
        _log.warning("the launcher of local runs has ended; the next run starts another")
        for run in list(self._runs.values()):
            run.on_gone()

    def on_supervisor_gone(self, name: str) -> None:
        """Have a run settled by its record."""
        run = self._runs.get(name)
        if run is not None:
            run.on_gone()

    def on_refused(self, name: str, error: OSError) -> None:
        """Have a run settled by its record that got no supervisor."""
        run = self._runs.get(name)
        if run is not None:
            run.on_refused(error)

    def _read_news(self) -> None:
        """Take what supervisors have just put on record; what gets lost here is found when the record is looked at."""
        try:
            data = os.read(self._news[0], 1 << 16)
        except OSError as error:
            _log.warning("news of local runs cannot be read, their records are looked at instead: %s", error)
            return
        *news, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LONGEST_NEWS:
            self._partial = b""
        for piece in news:
            name, _, line = piece.partition(b" ")
            run = self._runs.get(name.decode(errors="replace"))
            if run is None:
                continue
            try:
                run.on_news(line)
            except Exception:  # its own task meets the same, and shows it
                _log.exception("news of %s cannot be taken", name)
                run.on_gone()
