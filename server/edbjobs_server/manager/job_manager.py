"""The job manager: the asyncio shell around the core, and the only interface of the service for endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from edbjobs_server.core.gates import HostLoad
from edbjobs_server.core.states import EventType
from edbjobs_server.manager.job_commands import JobCommands
from edbjobs_server.manager.retention import Retention
from edbjobs_server.manager.status import ServiceStatus
from edbjobs_server.store import Committed, Snapshot

Observer = Callable[[Sequence[Committed]], None]


class JobManager(JobCommands, ServiceStatus):
    """Queues, runs and watches jobs.

    Every method may be called by any endpoint, on the event loop; each change is on disk when it returns. This class
    opens and closes the parts and applies commits to them. Requests are answered by the methods of its bases:
    `JobQueries`, `JobCommands` and `ServiceStatus`.
    """

    async def open(self, limits: Mapping[str, Any], before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Apply the given limits, adopt the runs of an earlier service, then start to plan.

        `before` is awaited when changes can be made and no job has been started yet.
        """
        self._store.start(asyncio.get_running_loop(), self._on_commit, self._on_reset)
        if limits:
            await self.set_limits(limits)
        if before is not None:
            await before()
        await self._runs.open()

    def observe(self, observer: Observer) -> None:
        """Have a function called with every commit, after it was applied."""
        self._observers.append(observer)

    def retention(self, days: float, jobs: int) -> Retention:
        """Return the task that removes ended jobs by age and number."""
        return Retention(self._store, self._runs.remove_folders, days, jobs)

    def take_load(self, load: HostLoad) -> None:
        """Apply a new sample of the host."""
        self._runs.take_load(load)

    def stop_starts(self) -> None:
        """Start no more jobs; runs and watches continue."""
        self._core.draining = True

    def drain(self) -> None:
        """Start no more jobs and end all watches and waits; runs continue."""
        self.stop_starts()
        self._events.close()
        self._updates.close()
        self._waiters.notify_all()

    async def close(self) -> None:
        """Release all resources; runs continue."""
        self.drain()
        await self._clusters.close()
        await self._runs.close()
        await self._store.close()
        self._paths.close()

    # Commits -------------------------------------------------------------------------------------------

    def _on_commit(self, batch: Sequence[Committed]) -> None:
        """Apply a commit: core first, then watchers and waiters."""
        for item in batch:
            if item.limits is not None:
                self._core.limits = item.limits
            elif item.type in (EventType.QUEUE_PAUSED, EventType.QUEUE_RESUMED):
                self._core.paused = item.type is EventType.QUEUE_PAUSED
            elif item.type is EventType.JOB_DELETED and item.job is not None:
                self._core.remove(item.job.uid)
                self._runs.forget(item.job.uid)
            elif item.job is not None:
                self._core.apply(item.job)
                if item.type is EventType.JOB_STARTING:
                    self._runs.own(item.job.uid)
                elif item.job.state.terminal:
                    self._runs.forget(item.job.uid)
                    self._waiters.notify(item.job.uid)
        self._events.publish(batch)
        for observe in self._observers:
            observe(batch)
        if any(item.type not in _NOTHING_TO_PLAN for item in batch):
            self._runs.wake()

    def _on_reset(self, snapshot: Snapshot) -> None:
        """Reload the state from the store after a failed commit."""
        self._core.reset(snapshot.jobs, snapshot.limits, snapshot.paused, snapshot.generation)
        self._events.reset(snapshot.revision)
        self._waiters.notify_all()
        self._runs.on_reset()


_NOTHING_TO_PLAN = frozenset(
    {
        EventType.JOB_STARTING,
        EventType.JOB_SCHEDULED,
        EventType.JOB_STARTED,
        EventType.JOB_CANCEL_REQUESTED,
        EventType.JOB_NOTE,
        EventType.JOB_SUPERSEDED,
        EventType.JOB_DELETED,
        EventType.GATE_CLOSED,
        EventType.GATE_OPENED,
        EventType.JOB_SUPERSEDED,
    }
)
