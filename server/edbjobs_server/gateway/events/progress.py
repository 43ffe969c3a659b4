"""How far running solves are: told once a second to clients that keep up, and kept nowhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edbjobs.v1 import job_pb2

from edbjobs_server.contract import codec
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import State
from edbjobs_server.gateway.events.frames import Frame
from edbjobs_server.gateway.json_values import progress_json, times
from edbjobs_server.manager.job_manager import JobManager

SECONDS = 1.0


class ProgressBroadcaster:
    """Offers a `job_progress` for each running job whose progress has changed.

    It is no change of the job, so it has no revision of its own: `revision` is that of the job's last change.

    Parameters
    ----------
    manager : JobManager
        Follows the solves.
    offer : callable
        Takes an event that may be lost.
    has_clients : callable
        Returns whether anybody is connected; if not, nothing is worked out.
    """

    def __init__(self, manager: JobManager, offer: Callable[[Frame], None], has_clients: Callable[[], bool]) -> None:
        self._manager = manager
        self._offer = offer
        self._has_clients = has_clients
        self._last: dict[str, job_pb2.JobProgress] = {}

    async def run(self) -> None:
        """Offer events until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            self._last = self._offer_changes() if self._has_clients() else {}

    def _offer_changes(self) -> dict[str, job_pb2.JobProgress]:
        """Offer what has changed since the last time; return the progress of each running job."""
        latest: dict[str, job_pb2.JobProgress] = {}
        for job in self._manager.core.running():
            if job.state is not State.RUNNING:
                continue
            progress = self._manager.runs.following.progress_of(job.uid)
            if progress is None:
                continue
            latest[job.uid] = progress
            if self._last.get(job.uid) != progress:
                self._offer(self._frame(job, progress))
        return latest

    def _frame(self, job: Job, progress: job_pb2.JobProgress) -> Frame:
        payload = {
            "job_id": job.id,
            "uid": job.uid,
            "attempt": job.attempt,
            "status": job.state.name.lower(),
            "progress": progress_json(progress),
            "revision": job.revision,
            "store_id": self._manager.store.store_id,
            **times(time=codec.timestamp(time.time())),
        }
        return Frame("job_progress", payload)
