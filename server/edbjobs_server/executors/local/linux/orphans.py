"""Follows what is left of a run whose supervisor was killed; its exit code can no longer be known."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from edbjobs_server.executors.local.linux import processes

assert sys.platform != "win32"

_RESCAN = 1.0  # seconds between looks while something should be ending
_LONGEST = 60.0  # the same otherwise
_SETTLE = 0.1  # seconds after which an empty result is believed: a fork may slip through one look at /proc

Scan = Callable[[], Awaitable[list[processes.Process]]]


class Orphans:
    """What is left of one run.

    Parameters
    ----------
    scan : async callable
        Finds what is left.
    report : callable
        Told the pids of what is there long after KILL.
    unkillable_after : float
        How long, in seconds.
    """

    def __init__(self, scan: Scan, report: Callable[[tuple[int, ...]], None], unkillable_after: float) -> None:
        self._scan = scan
        self._report = report
        self._unkillable_after = unkillable_after
        self._news = asyncio.Event()
        self._grace: float | None = None
        self._kill_at: float | None = None

    def end(self, grace: float) -> None:
        """Ask all to end; asked again, kill no later than this time's grace."""
        self._grace = grace
        self._news.set()

    async def follow(self) -> None:
        """Wait until nothing is left."""
        while True:
            left = await self._scan()
            if not left:
                await asyncio.sleep(_SETTLE)
                left = await self._scan()
                if not left:
                    return
            self._act(left)
            await self._wait(left)

    def _act(self, left: Sequence[processes.Process]) -> None:
        now = asyncio.get_running_loop().time()
        if self._grace is not None:
            kill_at = now + self._grace
            if self._kill_at is None:
                processes.terminate(left)
                self._kill_at = kill_at
            self._kill_at = min(self._kill_at, kill_at)
            self._grace = None
        if self._kill_at is not None and now >= self._kill_at:
            processes.kill(left)
            if now >= self._kill_at + self._unkillable_after:
                self._report(tuple(sorted(process.pid for process in left)))

    async def _wait(self, left: Sequence[processes.Process]) -> None:
        """Wait until one of them ends, somebody asks for the end, or it is time to kill."""
        loop = asyncio.get_running_loop()
        pidfds = [_open(process) for process in left]
        opened = [pidfd for pidfd in pidfds if pidfd is not None]
        until = loop.time() + (_LONGEST if self._kill_at is None else _RESCAN)
        timer = loop.call_at(until if self._kill_at is None else max(self._kill_at, until), self._news.set)
        try:
            for pidfd in opened:
                loop.add_reader(pidfd, self._news.set)
            if len(opened) == len(left):
                await self._news.wait()
            else:  # some have ended meanwhile
                await asyncio.sleep(_SETTLE)
            self._news.clear()
        finally:
            timer.cancel()
            for pidfd in opened:
                loop.remove_reader(pidfd)
                os.close(pidfd)


def _open(process: processes.Process) -> int | None:
    try:
        return processes.open_process(process.pid, process.ticks)
    except OSError:  # too many open files: look again
        return None
