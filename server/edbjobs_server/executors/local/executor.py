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

from edbjobs_server.executors.base import (
    Ending,
    Listener,
    OpenRun,
    RunEnded,
    RunKey,
    RunSpec,
    RunUnkillable,
    RunUpdate,
)
from edbjobs_server.executors.local import channel, judge, orphans, processes, record, verdict

assert sys.platform != "win32"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_THREADS = 4  # for records: many runs may end at once, on a disk that takes its time
_RETRY = 1.0  # seconds between attempts to read or void a record
_FIRST_LOOK = 0.05  # seconds; doubled until
_LAST_LOOK = 10.0  # news comes through a pipe, but not from runs that an earlier service started


class _Run:
    """A run in hand."""

    def __init__(self, key: RunKey, folder: str, boot: str) -> None:
        self.key = key
        self.folder = folder
        self.boot = boot
        self.news = asyncio.Event()  # the record should be looked at, or the supervisor is gone
        self.looked = asyncio.Event()  # its standing has been looked at once
        self.gone = False
        self.started = False
        self.stuck: tuple[int, ...] = ()
        self.grace: float | None = None  # cancel was asked for
        self.unasked = False  # and could not be passed on yet
        self.failure = ""  # why no supervisor could be had
        self.orphans: orphans.Orphans | None = None
        self.task: asyncio.Task[None] | None = None

    def on_gone(self) -> None:
        self.gone = True
        self.news.set()


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
        self._root = runs_root.absolute()
        self._linger = linger
        self._unkillable_after = unkillable_after
        self._here = processes.here()
        self._runs: dict[str, _Run] = {}
        self._listener: Listener | None = None
        self._channel: channel.Channel | None = None
        self._starting = asyncio.Lock()
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
        await self._off_loop(lambda: self._root.mkdir(mode=0o700, parents=True, exist_ok=True))
        self._listener = listener
        self._news = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._news[0], self._read_news)
        await self._launcher()

    async def close(self) -> None:
        """Let go of everything; runs go on, and so does the launcher until the last of them has ended."""
        self._listener = None
        tasks = [run.task for run in self._runs.values() if run.task is not None]
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
        """Start a reserved run; starting it again does nothing, whoever started it and whenever."""
        if run.key.folder not in self._runs:
            self._take(run.key, self._here.boot, run)

    async def adopt(self, runs: Sequence[OpenRun]) -> None:
        """Take over runs of an earlier service; returns when each has been looked at once.

        A run whose record was written on another host or in another pid namespace cannot be judged from here:
        nothing is told about it, and the log says so.
        """
        taken = [
            self._take(run.key, run.boot_id, None, run.cancel_grace) for run in runs if run.key.folder not in self._runs
        ]
        await asyncio.gather(*(run.looked.wait() for run in taken))

    async def cancel(self, key: RunKey, grace: float) -> None:
        """End a run; asked again with a shorter grace, it is killed earlier. A run not in hand has ended."""
        run = self._runs.get(key.folder)
        if run is None:
            return
        run.grace = grace
        if run.orphans is not None:
            run.orphans.end(grace)
        else:
            await self._ask_end(run)

    def _take(self, key: RunKey, boot: str, spec: RunSpec | None, grace: float | None = None) -> _Run:
        run = _Run(key, str(self.run_directory(key)), boot)
        run.grace = grace
        self._runs[key.folder] = run
        run.task = asyncio.get_running_loop().create_task(self._mind(run, spec))
        run.task.add_done_callback(self._on_done)
        return run

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.error("a run is no longer followed", exc_info=task.exception())

    async def _mind(self, run: _Run, spec: RunSpec | None) -> None:
        """Follow a run from its request, or from its adoption, to its end."""
        supervisor = None if spec is None else await self._ask_start(run, spec)
        while True:
            if supervisor is not None:
                if run.grace is not None:
                    await self._ask_end(run)
                await self._watch(run, supervisor)
            standing = await self._settle(run)
            supervisor = standing.supervisor
            if supervisor is None:
                break
            self._tell(run, standing.record)
            run.looked.set()
        await self._conclude(run, standing.record)

    async def _ask_start(self, run: _Run, spec: RunSpec) -> int | None:
        try:
            launcher = await self._launcher()
            return await launcher.request(self._request(spec, run.folder))
        except channel.LauncherGone:
            _log.warning("the launcher ended before it answered for %s; its record decides", run.folder)
        except OSError as error:
            run.failure = f"no supervisor could be started: {error}"
        return None

    async def _launcher(self) -> channel.Channel:
        async with self._starting:
            if self._channel is None or self._channel.gone:
                self._channel = await channel.Channel.open(self._root / "launcher.log", self._news[1])
            return self._channel

    def _request(self, spec: RunSpec, folder: str) -> dict[str, Any]:
        return {
            "name": spec.key.folder,
            "folder": folder,
            "seq": spec.key.seq,
            "uid": spec.key.uid,
            "attempt": spec.key.attempt,
            "argv": list(spec.argv),
            "cwd": spec.cwd,
            "env": {**spec.env, processes.MARK: verdict.mark(spec.key)},
            "keep": list(spec.keep),
            "info": dict(spec.info),
            "limit": spec.wall_clock_limit,
            "umask": spec.umask,
            "grace": spec.cancel_grace,
            "linger": self._linger,
            "unkillable": self._unkillable_after,
        }

    async def _watch(self, run: _Run, supervisor: int) -> None:
        """Tell news of a run until its supervisor is gone."""
        loop = asyncio.get_running_loop()
        run.gone = False
        delay = _FIRST_LOOK
        loop.add_reader(supervisor, run.on_gone)
        try:
            while not run.gone:
                timer = loop.call_later(_LAST_LOOK if run.started else delay, run.news.set)
                delay = min(2 * delay, _LAST_LOOK)
                await run.news.wait()
                timer.cancel()
                run.news.clear()
                if run.unasked and not run.gone:
                    run.unasked = False
                    await self._ask_end(run)
                if not run.gone:
                    await self._look(run)
        finally:
            loop.remove_reader(supervisor)
            os.close(supervisor)

    async def _look(self, run: _Run) -> None:
        try:
            found = await self._off_loop(lambda: record.read(run.folder))
        except OSError as error:
            _log.warning("cannot read a run's record, will try again: %s", error)
        else:
            self._tell(run, found)

    async def _settle(self, run: _Run) -> judge.Standing:
        return await self._insist(run, lambda: judge.settle(run.folder, run.key, run.boot, self._here))

    async def _insist(self, run: _Run, work: Callable[[], _T]) -> _T:
        """Find something out about a run, and try until it is known: nothing is concluded from an error."""
        while True:
            try:
                return await self._off_loop(work)
            except OSError as error:
                _log.warning("cannot tell how a run stands, will try again: %s: %s", run.folder, error)
                run.looked.set()
                await asyncio.sleep(_RETRY)

    async def _conclude(self, run: _Run, found: record.Record) -> None:
        self._tell(run, found)
        if found.end is None and verdict.sight(found, self._here) is verdict.Sight.ELSEWHERE:
            _log.warning("a run is not visible from here, it is left alone: %s: %s", run.folder, found.claim)
            run.looked.set()
            return
        if judge.may_have_left(found, self._here):
            await self._follow_orphans(run, found)
        end = verdict.ended(run.key, found, self._here)
        if found.void and run.failure:
            end = RunEnded(run.key, Ending.START_FAILED, end.time, message=run.failure)
        del self._runs[run.key.folder]
        self._emit(end)
        run.looked.set()

    async def _follow_orphans(self, run: _Run, found: record.Record) -> None:
        def report(pids: tuple[int, ...]) -> None:
            self._tell_stuck(run, pids)

        run.orphans = orphans.Orphans(
            lambda: self._insist(run, lambda: judge.left_of(found, run.key)), report, self._unkillable_after
        )
        if run.grace is not None:
            run.orphans.end(run.grace)
        run.looked.set()
        await run.orphans.follow()

    async def _ask_end(self, run: _Run) -> None:
        grace = 0.0 if run.grace is None else run.grace
        try:
            await self._off_loop(lambda: judge.ask_end(run.folder, run.key, grace, self._here))
        except OSError as error:
            _log.warning("a cancel could not be passed on, will try again: %s: %s", run.folder, error)
            run.unasked = True
            asyncio.get_running_loop().call_later(_RETRY, run.news.set)

    def _tell(self, run: _Run, found: record.Record) -> None:
        update = verdict.started(run.key, found, self._here)
        if update is not None and not run.started:
            run.started = True
            self._emit(update)
        if found.stuck is not None and found.end is None:
            self._tell_stuck(run, tuple(found.stuck["pids"]))

    def _tell_stuck(self, run: _Run, pids: tuple[int, ...]) -> None:
        if pids != run.stuck:
            run.stuck = pids
            self._emit(RunUnkillable(run.key, pids))

    def _emit(self, update: RunUpdate) -> None:
        if self._listener is not None:
            self._listener(update)

    def _read_news(self) -> None:
        """Tell what supervisors have just put on record."""
        *news, self._partial = (self._partial + os.read(self._news[0], 1 << 16)).split(b"\n")
        for piece in news:
            name, _, line = piece.partition(b" ")
            run = self._runs.get(name.decode())
            if run is not None:
                self._tell(run, record.parse(line + b"\n"))

    async def _off_loop(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
