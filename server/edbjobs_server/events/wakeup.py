"""Waking many watchers without stalling the loop."""

from __future__ import annotations

import asyncio

_SLICE = 100
_TICK = 0.5
_SHORTEST = 0.005
_LONGEST = 0.1
_PER_WATCHER = 0.0001


class Wakeup:
    """Wakes all who wait: at once while little happens, less often while much does.

    Between two wake-ups lies a time that grows with the number of those who wait, so that under load each of
    them gets several events in one message, and the loop has time for the rest of the service.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._due: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._last = 0.0

    async def wait(self, deadline: float) -> None:
        """Wait to be woken, or until a time of the loop's clock has passed, to the second."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = deadline
        if self._tick is None:
            self._tick = loop.call_later(_TICK, self._wake_late)
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    def wake(self) -> None:
        """Wake all who wait, soon."""
        if self._due is not None or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        pause = min(_LONGEST, max(_SHORTEST, len(self._waiting) * _PER_WATCHER))
        self._due = loop.call_at(max(loop.time(), self._last + pause), self._wake_all)

    def _wake_all(self) -> None:
        self._due = None
        waiting = list(self._waiting)
        self._waiting.clear()
        self._last = asyncio.get_running_loop().time()
        self._wake_slice(waiting)

    def _wake_late(self) -> None:
        """Wake those whose time has passed: one timer for all, however many there are."""
        self._tick = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [future for future, deadline in self._waiting.items() if deadline <= now]
        for future in late:
            del self._waiting[future]
        if self._waiting:
            self._tick = loop.call_later(_TICK, self._wake_late)
        self._wake_slice(late)

    def _wake_slice(self, waiting: list[asyncio.Future[None]]) -> None:
        """Wake some, and the others in the loop's next rounds: what else is due comes in between."""
        for future in waiting[:_SLICE]:
            if not future.done():
                future.set_result(None)
        rest = waiting[_SLICE:]
        if rest:
            asyncio.get_running_loop().call_soon(self._wake_slice, rest)
