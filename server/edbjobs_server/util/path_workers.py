"""Threads for work on users' paths, which may hang: a network file system waits indefinitely for its server.

A look at a path runs in a thread of the path's mount, so that a mount that hangs holds up its own paths only. Each key
(a job, a folder) has at most one look in flight: one that hangs costs one thread, however often it is tried again.
Threads are daemons, so that a hanging one never keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 10.0
THREADS = 1  # of one mount that are started at once
MAX_THREADS = 64  # of one mount
MAX_THREADS_IN_ALL = 256
PATIENCE_SECONDS = 0.1  # without any look of a mount ending, before it gets a further thread
_MAX_ADDED = 4  # threads at a time
IDLE_SECONDS = 10.0  # until a thread without work ends
_MOST_KNOWN = 1_000  # paths whose mount is remembered
_MOUNTS_SECONDS = 5.0  # for which the table of mounts is taken as unchanged


class _Look:
    """One piece of work and where its answer goes."""

    __slots__ = ("answer", "error", "finished", "key", "result", "work")

    def __init__(self, work: Callable[[], Any], key: str, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.key = key
        self.answer: asyncio.Future[Any] = loop.create_future()  # for the caller; done early when it stops waiting
        self.finished: asyncio.Future[None] | None = None  # for callers that wait for the key
        self.result: Any = None
        self.error: BaseException | None = None

    def do(self) -> None:
        if self.answer.done():  # it has no waiter any more
            return
        try:
            self.result = self.work()
        except Exception as error:  # raised where it is awaited
            self.error = RuntimeError(repr(error)) if isinstance(error, StopIteration) else error
        except BaseException as error:  # it must end neither this thread nor the loop
            self.error = RuntimeError(f"work on a path raised {error!r}")


class _Lane:
    """The threads of one mount and what waits for them."""

    def __init__(self, name: str, on_done: Callable[[_Look], None]) -> None:
        self._name = name
        self._on_done = on_done
        self._ready = threading.Condition()
        self._waiting: deque[_Look] = deque()
        self.idle = 0
        self.threads = 0
        self.taken = 0  # looks taken so far: grows while the mount answers
        self.closed = False

    def put(self, look: _Look) -> None:
        with self._ready:
            self._waiting.append(look)
            if self.idle:
                self._ready.notify()

    @property
    def waiting(self) -> int:
        """Number of looks that no thread has taken yet."""
        return len(self._waiting)

    def add_thread(self) -> None:
        with self._ready:
            self.threads += 1
        threading.Thread(target=self._run, name=f"path {self._name}", daemon=True).start()

    def close(self) -> None:
        with self._ready:
            self.closed = True
            self._waiting.clear()
            self._ready.notify_all()

    def _run(self) -> None:
        while (look := self._next()) is not None:
            look.do()
            self._on_done(look)
            del look

    def _next(self) -> _Look | None:
        with self._ready:
            while not self._waiting and not self.closed:
                self.idle += 1
                woken = self._ready.wait(IDLE_SECONDS)
                self.idle -= 1
                if not woken and not self._waiting:
                    break
            if self._waiting and not self.closed:
                self.taken += 1
                return self._waiting.popleft()
            self.threads -= 1
            return None


class PathWorkers:
    """Runs work on users' paths in threads, with a deadline.

    Parameters
    ----------
    unreachable : callable, optional
        Makes the error of a path that does not answer from its text. Default: an `OSError` with ETIMEDOUT.
    mount_of : callable, optional
        Returns the mount of a path without touching the path. Default: by the system's table of mounts.
    """

    def __init__(
        self,
        unreachable: Callable[[str], Exception] | None = None,
        mount_of: Callable[[str], str] | None = None,
    ) -> None:
        self._unreachable = unreachable or partial(OSError, errno.ETIMEDOUT)
        self.mount_of = mount_of or MountTable().mount_of
        self._lanes: dict[str, _Lane] = {}
        self._keys: dict[str, _Look] = {}  # looks in flight, also those without a waiter
        self._done: deque[_Look] = deque()
        self._signaled = False
        self._watch: asyncio.TimerHandle | None = None
        self._taken: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def run(self, work: Callable[[], T], path: str, deadline: float = DEADLINE_SECONDS, *, key: str = "") -> T:
        """Run `work` in a thread of the path's mount.

        Parameters
        ----------
        work : callable
            Takes nothing; may block. What it raises is raised here.
        path : str
            What it touches: chooses the thread, and stands in the error's text.
        deadline : float, default: 10
            Seconds to wait for it, the wait for an earlier look of the same key included.
        key : str, optional
            Of looks with the same key only one is in flight. Default: the path.

        Raises
        ------
        Exception
            As `unreachable` makes it, when the deadline passes. Work that has started then goes on, and its result is
            dropped.
        """
        if self._closed:
            raise self._unreachable(f"{path} is not looked at any more: the service is stopping")
        loop = self._loop = asyncio.get_running_loop()
        look = _Look(work, key or path, loop)
        timer = loop.call_later(deadline, self._expire, look.answer, path, deadline)
        try:
            while (earlier := self._keys.get(look.key)) is not None:
                await self._end_of(earlier, look.answer)
            self._keys[look.key] = look
            self._put(path, look)
            return await look.answer  # type: ignore[no-any-return]
        finally:
            timer.cancel()
            if not look.answer.done():
                look.answer.cancel()

    def hurry(self, key: str, seconds: float) -> None:
        """Wait for the look of a key that is in flight no longer than so many seconds from now."""
        look = self._keys.get(key)
        if look is not None and not look.answer.done():
            asyncio.get_running_loop().call_later(seconds, self._expire, look.answer, key, seconds)

    def close(self) -> None:
        """End the threads; one that hangs is not waited for."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        for lane in self._lanes.values():
            lane.close()
        for look in self._keys.values():
            if not look.answer.done():
                look.answer.cancel()

    async def _end_of(self, earlier: _Look, answer: asyncio.Future[Any]) -> None:
        """Wait until an earlier look has ended; raise when `answer` gets its error first."""
        if earlier.finished is None:
            earlier.finished = asyncio.get_running_loop().create_future()
        await asyncio.wait({earlier.finished, answer}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            answer.result()

    def _expire(self, answer: asyncio.Future[Any], path: str, deadline: float) -> None:
        if not answer.done():
            text = f"{path} did not answer within {deadline:g} s; is its file system mounted and its server up?"
            answer.set_exception(self._unreachable(text))

    def _put(self, path: str, look: _Look) -> None:
        mount = self.mount_of(path)
        lane = self._lanes.get(mount)
        if lane is None:
            lane = self._lanes[mount] = _Lane(mount, self._on_done)
        lane.put(look)
        if lane.threads < THREADS and lane.waiting > lane.idle:
            lane.add_thread()
        if self._watch is None:
            self._start_watch()

    def _start_watch(self) -> None:
        assert self._loop is not None, "something was run"
        self._taken = {name: lane.taken for name, lane in self._lanes.items()}
        self._watch = self._loop.call_later(PATIENCE_SECONDS, self._look_for_hangs)

    def _look_for_hangs(self) -> None:
        """Add threads to a mount where looks wait and none was taken for a while."""
        self._watch = None
        short = [(name, lane) for name, lane in self._lanes.items() if lane.waiting]
        for name, lane in short:
            if lane.taken == self._taken.get(name):
                in_all = sum(other.threads for other in self._lanes.values())
                room = min(MAX_THREADS - lane.threads, MAX_THREADS_IN_ALL - in_all, lane.waiting, _MAX_ADDED)
                for _ in range(room):
                    lane.add_thread()
        if short:
            self._start_watch()

    def _on_done(self, look: _Look) -> None:
        """Hand an ended look to the loop; in its thread. Many that end together cost one wake-up."""
        self._done.append(look)
        if not self._signaled:
            self._signaled = True
            assert self._loop is not None, "something was run"
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: there is no waiter
                return

    def _deliver(self) -> None:
        self._signaled = False
        while self._done:
            look = self._done.popleft()
            self._keys.pop(look.key, None)
            if look.finished is not None and not look.finished.done():
                look.finished.set_result(None)
            if look.answer.done():
                continue
            if look.error is None:
                look.answer.set_result(look.result)
            else:
                look.answer.set_exception(look.error)


class MountTable:
    """The system's mounts; reading the table touches none of them."""

    def __init__(self) -> None:
        self._until = 0.0
        self._mounts: frozenset[str] = frozenset()
        self._known: dict[str, str] = {}  # by path, since the table was read

    def mount_of(self, path: str) -> str:
        """Return the mount point that a path lies on, by its text: links in it are not followed."""
        if sys.platform == "win32":
            return os.path.splitdrive(path)[0].lower()
        now = time.monotonic()
        if now >= self._until:
            self._mounts, self._until = _read_mounts(), now + _MOUNTS_SECONDS
            self._known.clear()
        mount = self._known.get(path)
        if mount is None:
            mount = self._find(path)
            if len(self._known) < _MOST_KNOWN:
                self._known[path] = mount
        return mount

    def _find(self, path: str) -> str:
        place = os.path.normpath(path)
        while place not in self._mounts and len(place) > 1:
            place = os.path.dirname(place)
        return place if place in self._mounts else "/"


def _read_mounts() -> frozenset[str]:
    """Read the mount points from /proc/self/mountinfo, where blanks stand as octal numbers."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            fields = [line.split(" ", 5)[4] for line in table]
    except (OSError, IndexError):
        return frozenset({"/"})
    escapes = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
    found = set()
    for name in fields:
        for escape, char in escapes:
            name = name.replace(escape, char)
        found.add(name)
    return frozenset(found)
