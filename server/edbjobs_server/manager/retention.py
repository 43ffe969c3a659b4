"""Removal of old records: by age and number, in small batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.store import Store
from edbjobs_server.store.retention import cut_events, expire, forget_requests

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 600.0
BATCH = 200
LEAST_EVENTS = 10_000  # however few jobs are kept, watchers must be able to resume
EVENTS_PER_JOB = 10  # events kept for each ended job that may be kept


class Retention:
    """Removes ended jobs, their run folders and old events at intervals.

    Parameters
    ----------
    store : Store
        Records to remove from.
    remove_folders : callable
        Removes the run folders of removed jobs.
    days : float
        Age above which ended jobs are removed; 0: no limit.
    jobs : int
        Number of ended jobs to keep, the newest; 0: no limit.
    """

    def __init__(
        self, store: Store, remove_folders: Callable[[Sequence[Job]], Awaitable[None]], days: float, jobs: int
    ) -> None:
        self._store = store
        self._remove_folders = remove_folders
        self._max_age = days * 86400.0 if days else None
        self._max_number = jobs or None

    async def run(self) -> None:
        """Remove old records until cancelled."""
        while True:
            try:
                await self.once()
            except Refused as refused:
                log.warning("old records could not be removed; tried again later: %s", refused.message)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def once(self) -> None:
        """Remove all that is due, a batch at a time, so that other writes do not wait for it."""
        store = self._store
        age, number = self._max_age, self._max_number
        while removed := await store.write(partial(expire, max_age=age, max_number=number, batch_size=BATCH)):
            await self._remove_folders(removed)
        events = max(number * EVENTS_PER_JOB, LEAST_EVENTS) if number else None
        while await store.write(partial(cut_events, max_age=age, max_number=events)):
            pass
        while await store.write(forget_requests):
            pass
