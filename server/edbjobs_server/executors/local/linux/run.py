"""One local run, followed by the service from its request, or from its adoption, to its end (Linux).

Whatever goes wrong on the way is retried with a growing delay and shown as `RunTrouble`: the run's record decides in
the end, and settling by it is safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from edbjobs_server.core.runs import Ending, RunEnded, RunKey, RunTrouble, RunUnkillable, RunUpdate
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.local import outcome, record
from edbjobs_server.executors.local.linux import channel, inspection, orphans, processes

assert sys.platform != "win32"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_FIRST_RETRY = 1.0  # seconds between attempts at what failed; doubled until
_LAST_RETRY = 60.0
_FIRST_LOOK = 0.05  # seconds between looks at the record; doubled until
_LAST_LOOK = 10.0  # news comes through a pipe, but not from runs that an earlier service started
_SEEN = frozenset({"cancel"})  # troubles that leave no doubt about which processes the run has
_ELSEWHERE_LOOK = 60.0  # seconds between looks at a run that another host has


class Means(Protocol):
    """What the executor does for its runs."""

    @property
    def here(self) -> record.Here:
        """Where we are."""

    @property
    def unkillable_after(self) -> float:
        """Seconds after KILL until processes that are still there are reported."""

    def emit(self, update: RunUpdate) -> None:
        """Hand an update on to the manager."""

    async def launch(self, spec: RunSpec, folder: str) -> None:
        """Send a request for a supervisor; raises `channel.LauncherGone` or `channel.NotStarted`."""

    async def off_loop(self, work: Callable[[], _T]) -> _T:
        """Run a function that may block, in a thread."""


class Run:
    """An active run.

    Parameters
    ----------
    key : RunKey
        The run.
    folder : str
        Its folder.
    boot : str
        Boot id when it was reserved.
    means : Means
        What the executor does for it.
    grace : float or None
        Set: its end was asked for.
    """

    def __init__(self, key: RunKey, folder: str, boot: str, means: Means, grace: float | None = None) -> None:
        self.looked = asyncio.Event()  # its standing has been looked at once
        self.orphans: orphans.Orphans | None = None
        self.task: asyncio.Task[None] | None = None
        self._key = key
        self._folder = folder
        self._boot = boot
        self._means = means
        self._grace = grace
        self._wake = asyncio.Event()
        self._gone = False  # its supervisor may be gone: settle by the record
        self._found = record.Record(exists=False)  # what is known to be on record
        self._started = False
        self._stuck: tuple[int, ...] = ()
        self._ask_at: float | None = None  # when to try again to pass a cancellation on
        self._ask_delay = _FIRST_RETRY
        self._held_at: float | None = None  # when a run that is to end should have started or ended
        self._refusal: OSError | channel.NotStarted | None = None  # why it got no supervisor
        self._troubles: dict[str, str] = {}

    # What comes in -----------------------------------------------------------------------------------------

    def on_news(self, line: bytes) -> None:
        """Take a line that its supervisor has just put on record."""
        news = record.parse(line + b"\n")
        if news.start is not None and (self._found.start is None or not self._found.start["pid"]):
            self._found.start = news.start
        if news.end is not None and self._found.end is None:
            self._found.end = news.end
        self._found.stuck = news.stuck or self._found.stuck
        self._tell(self._found)
        if news.start is None and news.stuck is None:  # its end, or something too long for the pipe
            self._wake.set()

    def on_gone(self) -> None:
        """Have the run settled by its record: its supervisor, or the launcher, is gone."""
        self._gone = True
        self._wake.set()

    def on_refused(self, error: OSError) -> None:
        """Take note that it got no supervisor."""
        self._refusal = error
        self.on_gone()

    async def cancel(self, grace: float) -> None:
        """End it: TERM, `grace` seconds, KILL; asked again with a shorter grace, it is killed earlier."""
        self._grace = grace
        if self.orphans is not None:
            self.orphans.end(grace)
        else:
            await self._ask_end()

    # The way from start to end -----------------------------------------------------------------------------

    async def follow(self, spec: RunSpec | None) -> None:
        """Follow the run to its end, whatever is raised meanwhile; `spec`: start it first."""
        delay = _FIRST_RETRY
        while True:
            try:
                await self._follow(spec)
            except Exception as error:
                spec = None  # it may have been asked for: what is on record decides
                self._trouble("follow", f"it cannot be followed: {_words(error)}", error)
                self.looked.set()
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)
            else:
                return

    async def _follow(self, spec: RunSpec | None) -> None:
        self.orphans = None
        if spec is not None and await self._launch(spec):
            await self._watch(None)
        while not self._knows_end():
            standing = await self._insist(
                lambda: inspection.settle(self._folder, self._key, self._boot, self._means.here)
            )
            self._take(standing.record)
            if not standing.alive:
                break
            self._trouble("follow", "")
            self.looked.set()
            if self._grace is not None:
                await self._ask_end()
            await self._watch(standing.supervisor)
        await self._conclude()

    def _knows_end(self) -> bool:
        """Return whether the supervisor's notifications make reading the record needless."""
        return self._found.end is not None and self._found.start is not None

    async def _launch(self, spec: RunSpec) -> bool:
        """Request a supervisor; False if no request can have been sent."""
        self._gone = False
        try:
            await self._means.launch(spec, self._folder)
        except channel.LauncherGone:
            _log.warning("the launcher ended before it took %s; its record decides", self._folder)
            return False
        except channel.NotStarted as error:
            self._refusal = error
            return False
        if self._grace is not None:  # asked for meanwhile
            await self._ask_end()
        return True

    async def _watch(self, supervisor: int | None) -> None:
        """Report news of the run until it has ended, or its supervisor may be gone.

        Parameters
        ----------
        supervisor : int or None
            A pidfd, closed here. None: the end of the supervisor is reported by the launcher, or found by polling.
        """
        loop = asyncio.get_running_loop()
        delay = _FIRST_LOOK
        with self._reader(supervisor):
            while not self._gone and self._found.end is None and not self._found.void:
                timer = loop.call_later(_LAST_LOOK if self._started else delay, self._wake.set)
                await self._wake.wait()
                timer.cancel()
                self._wake.clear()
                if self._ask_at is not None and loop.time() >= self._ask_at:
                    await self._ask_end()
                if not self._gone and self._found.end is None:
                    await self._look()
                    self._report_held(loop.time())
                    delay = min(2 * delay, _LAST_LOOK)
        self._gone = False

    @contextmanager
    def _reader(self, supervisor: int | None) -> Iterator[None]:
        if supervisor is None:
            yield
            return
        loop = asyncio.get_running_loop()
        try:
            with suppress(OSError):  # no memory for another reader: polling finds it in time
                loop.add_reader(supervisor, self.on_gone)
            yield
        finally:
            loop.remove_reader(supervisor)
            os.close(supervisor)

    async def _look(self) -> None:
        try:
            standing = await self._means.off_loop(lambda: inspection.look(self._folder, self._means.here, self._found))
        except OSError as error:
            self._trouble("look", f"its record cannot be read: {_words(error)}", error)
            return
        self._trouble("look", "")
        self._take(standing.record)
        if standing.record.claim is not None and not standing.alive:
            self._gone = True

    async def _insist(self, work: Callable[[], _T]) -> _T:
        """Find something out about the run, and try until it is known: nothing is concluded from an error."""
        delay = _FIRST_RETRY
        while True:
            try:
                result = await self._means.off_loop(work)
            except OSError as error:
                self._trouble("look", f"how it stands cannot be found out: {_words(error)}", error)
                self.looked.set()
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)
            else:
                self._trouble("look", "")
                return result

    async def _conclude(self) -> None:
        found, here = self._found, self._means.here
        while found.end is None and outcome.sight(found, here) is outcome.HostMatch.ELSEWHERE:
            found = await self._wait_elsewhere(found)
        self._tell(found, over=True)
        if inspection.may_have_left(found, here):
            await self._follow_orphans(found)
        end = outcome.ended(self._key, found, here)
        if found.void and self._refusal is not None:
            end = self._refused(end, self._refusal)
        for source in list(self._troubles):
            self._trouble(source, "")
        self._means.emit(end)
        self.looked.set()

    def _refused(self, end: RunEnded, refusal: OSError | channel.NotStarted) -> RunEnded:
        """Say why it got no supervisor. Only what would be the same at the next attempt is a failure."""
        if isinstance(refusal, channel.NotStarted):
            definite = refusal.definite
        else:
            definite = bool(refusal.errno) and not processes.is_transient(refusal.errno)
        message = f"no supervisor could be started: {_words(refusal)}"
        return replace(end, ending=Ending.START_FAILED if definite else Ending.NEVER_RAN, message=message)

    async def _wait_elsewhere(self, found: record.Record) -> record.Record:
        """Look now and then at a run that cannot be judged from here, because its end may come on record."""
        claim = found.claim or {}
        self._trouble(
            "elsewhere",
            f"it is not visible from here and left alone: its record was written on host {claim.get('host')}, "
            f"boot {claim.get('boot')}, pid namespace {claim.get('pidns')}",
        )
        self.looked.set()
        await asyncio.sleep(_ELSEWHERE_LOOK)
        self._take(await self._insist(lambda: record.read(self._folder)))
        return self._found

    async def _follow_orphans(self, found: record.Record) -> None:
        self.orphans = orphans.Orphans(
            lambda: self._insist(lambda: inspection.left_of(found, self._key)),
            self._tell_stuck,
            self._means.unkillable_after,
        )
        if self._grace is not None:
            self.orphans.end(self._grace)
        self._trouble("follow", "")
        self.looked.set()
        await self.orphans.follow()

    async def _ask_end(self) -> None:
        """Have the supervisor end the run, or void it; if that fails, `_watch` tries again."""
        loop = asyncio.get_running_loop()
        self._ask_at = None
        grace = 0.0 if self._grace is None else self._grace
        try:
            await self._means.off_loop(lambda: inspection.ask_end(self._folder, self._key, grace, self._means.here))
        except Exception as error:
            self._trouble("cancel", f"the cancellation cannot be passed on: {_words(error)}", error)
            self._ask_at = loop.time() + self._ask_delay
            loop.call_later(self._ask_delay, self._wake.set)
            self._ask_delay = min(2 * self._ask_delay, _LAST_RETRY)
        else:
            self._ask_delay = _FIRST_RETRY
            self._held_at = loop.time() + grace + self._means.unkillable_after
            self._trouble("cancel", "")
            self._wake.set()  # it may be voided

    # What goes out -----------------------------------------------------------------------------------------

    def _take(self, found: record.Record) -> None:
        """Take what was read, unless it was read before an end that has been notified meanwhile."""
        found.end = found.end or self._found.end
        self._found = found
        self._tell(found)

    def _tell(self, found: record.Record, *, over: bool = False) -> None:
        update = None if self._started else outcome.started(self._key, found, self._means.here, over=over)
        if update is not None:
            self._means.emit(update)
            self._started = True
        if found.stuck is not None and found.end is None:
            self._tell_stuck(tuple(found.stuck["pids"]))

    def _report_held(self, now: float) -> None:
        """Report a supervisor that cannot end its run, because a file system holds up the start of the solver."""
        claim = self._found.claim
        if claim is not None and not self._started and self._held_at is not None and now >= self._held_at:
            self._tell_stuck((claim["pid"],))

    def _tell_stuck(self, pids: tuple[int, ...]) -> None:
        if pids != self._stuck:
            self._means.emit(RunUnkillable(self._key, pids))
            self._stuck = pids

    def _trouble(self, source: str, text: str, error: BaseException | None = None) -> None:
        """Show why the run cannot be followed; an empty text: this is over."""
        before = "; ".join(self._troubles.values())
        if text and self._troubles.get(source) != text:
            bug = error is not None and not isinstance(error, OSError)
            _log.warning("run %s: %s; it is tried again", self._folder, text, exc_info=error if bug else None)
        if text:
            self._troubles[source] = text
        else:
            self._troubles.pop(source, None)
        now = "; ".join(self._troubles.values())
        if now != before:
            try:
                self._means.emit(RunTrouble(self._key, now, unseen=not _SEEN.issuperset(self._troubles)))
            except Exception:
                _log.exception("run %s: its trouble cannot be shown: %s", self._folder, now)


def _words(error: BaseException) -> str:
    if isinstance(error, (OSError, channel.NotStarted)):
        return str(error)
    return f"{type(error).__name__}: {error}"
