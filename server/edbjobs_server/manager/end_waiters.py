"""Callers that wait for the end of a job."""

from __future__ import annotations

import asyncio

from edbjobs_server.util import timeouts


class EndWaiters:
    """Notifies callers that wait for a job, by its uid."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    async def wait(self, uid: str, timeout: float) -> None:
        """Wait until `notify` names the job, or for `timeout` seconds."""
        ended = asyncio.Event()
        events = self._events.setdefault(uid, set())
        events.add(ended)
        try:
            async with timeouts.timeout(timeout):
                await ended.wait()
        except (asyncio.TimeoutError, TimeoutError):
            return
        finally:
            events.discard(ended)
            if not events:
                self._events.pop(uid, None)

    def notify(self, uid: str) -> None:
        """Notify the callers that wait for a job."""
        for ended in self._events.get(uid, ()):
            ended.set()

    def notify_all(self) -> None:
        """Notify all callers."""
        for uid in self._events:
            self.notify(uid)
