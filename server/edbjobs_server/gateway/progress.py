"""How far running solves are: told once a second to clients that keep up, and kept nowhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edbjobs.v1 import job_pb2

from edbjobs_server import codec
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import State
from edbjobs_server.gateway import shapes
from edbjobs_server.gateway.events import Frame
from edbjobs_server.manager import JobManager

SECONDS = 1.0


class ProgressTeller:
    """Offers a `job_progress` for each running job whose progress has changed.

    It is no change of the job, so it has no revision of its own: `revision` is that of the job's last change.

    Parameters
    ----------
    manager : JobManager
        Follows the solves.
    offer : callable
        Takes an event that may be lost.
    """

    def __init__(self, manager: JobManager, offer: Callable[[Frame], None]) -> None:
        self._manager = manager
        self._offer = offer
        self._told: dict[str, bytes] = {}

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            running = [job for job in self._manager.core.jobs.values() if job.state is State.RUNNING]
            told: dict[str, bytes] = {}
            for job in running:
                progress = self._manager.runs.following.progress_of(job.uid)
                if progress is None:
                    continue
                told[job.uid] = data = progress.SerializeToString(deterministic=True)
                if self._told.get(job.uid) != data:
                    self._offer(self._frame(job, progress))
            self._told = told

    def _frame(self, job: Job, progress: job_pb2.JobProgress) -> Frame:
        payload = {
            "job_id": job.id,
            "uid": job.uid,
            "attempt": job.attempt,
            "status": job.state.name.lower(),
            "progress": shapes.progress_json(progress),
            "revision": job.revision,
            "store_id": self._manager.store.store_id,
            **shapes.times(time=codec.timestamp(time.time())),
        }
        return Frame("job_progress", payload)
