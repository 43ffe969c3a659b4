"""Letting go of old records: by age and number, in small batches, and never of anything else."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from edbjobs_server.core.errors import Refused
from edbjobs_server.manager import JobManager
from edbjobs_server.store.retention import cut_events, expire, expire_requests

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 600.0
BATCH = 200


class Retention:
    """Removes ended jobs, their run folders and old events, now and then.

    Parameters
    ----------
    manager : JobManager
        Whose jobs.
    days : float
        Ended jobs older than this go; 0: none goes by age.
    jobs : int
        Of the ended jobs so many stay, the newest; 0: none goes by number.
    """

    def __init__(self, manager: JobManager, days: float, jobs: int) -> None:
        self._manager = manager
        self._max_age = days * 86400.0
        self._max_number = jobs

    async def run(self) -> None:
        """Tidy up until cancelled."""
        while True:
            try:
                await self.once()
            except Refused as refused:
                log.warning("old records stay for now: %s", refused.message)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def once(self) -> None:
        """Tidy up all that is due, a batch at a time so that nobody waits for it."""
        store = self._manager.store
        while True:
            command = partial(expire, max_age_seconds=self._max_age, max_number=self._max_number, batch_size=BATCH)
            removed = await store.write(command)
            await self._manager.runs.remove_folders(removed)
            if len(removed) < BATCH:
                break
        while await store.write(partial(cut_events, batch_size=10 * BATCH)):
            pass
        while await store.write(partial(expire_requests, batch_size=10 * BATCH)):
            pass
