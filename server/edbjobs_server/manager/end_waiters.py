"""Callers that wait for the end of a job."""

from __future__ import annotations

import asyncio

from edbjobs_server.util import timeouts


class EndWaiters:
    """Wakes those who wait for a job, by its uid."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    async def wait(self, uid: str, timeout: float) -> None:
        """Wait until `tell` names the job, or for `timeout` seconds."""
        told = asyncio.Event()
        events = self._events.setdefault(uid, set())
        events.add(told)
        try:
            async with timeouts.timeout(timeout):
                await told.wait()
        except (asyncio.TimeoutError, TimeoutError):
            return
        finally:
            events.discard(told)
            if not events:
                self._events.pop(uid, None)

    def tell(self, uid: str) -> None:
        """Wake those who wait for a job."""
        for told in self._events.get(uid, ()):
            told.set()

    def tell_all(self) -> None:
        """Wake everybody."""
        for uid in self._events:
            self.tell(uid)
