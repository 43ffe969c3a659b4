"""The event `job_progress`: how far running solves are, sent to clients that keep up."""

from __future__ import annotations

import time
from collections.abc import Callable

from edbjobs_server.contract import codec
from edbjobs_server.gateway.events.frames import Frame
from edbjobs_server.gateway.json_values import progress_json, times
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.manager.progress_tracker import JobProgressed


async def send_progress(manager: JobManager, offer: Callable[[Frame], None], has_clients: Callable[[], bool]) -> None:
    """Offer an event for each running job whose progress has changed, until cancelled; an event may be lost."""
    async for changes in manager.watch_progress(has_clients):
        for item in changes:
            offer(_frame(item, manager.store_id))


def _frame(item: JobProgressed, store_id: str) -> Frame:
    job = item.job
    payload = {
        "job_id": job.id,
        "uid": job.uid,
        "attempt": job.attempt_count,
        "status": job.state.name.lower(),
        "progress": progress_json(item.progress),
        "revision": job.revision,
        "store_id": store_id,
        **times(time=codec.timestamp(time.time())),
    }
    return Frame("job_progress", payload)
