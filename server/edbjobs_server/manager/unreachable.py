"""Unreachable schedulers: no run is submitted to them, and jobs wait for them no longer than their limit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from edbjobs_server.core.job import Job
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.runs import Reachability
from edbjobs_server.core.states import State
from edbjobs_server.executors.base import Executor


def no_executor(name: str, executors: Mapping[str, Executor]) -> str:
    """Explain that a job needs a scheduler that this service does not have."""
    have = ", ".join(sorted(executors))
    return f"this service has no scheduler {name!r}, it has: {have}; start it with that scheduler, or cancel the job"


class UnreachableSchedulers:
    """Keeps which executors cannot start runs now.

    Parameters
    ----------
    core : Planner
        Starts no job there.
    """

    def __init__(self, core: Planner) -> None:
        self._core = core
        self._since: dict[str, float] = {}

    def take(self, reach: Reachability) -> None:
        """Record whether an executor's scheduler responds."""
        if reach.responding:
            self._core.unreachable.pop(reach.executor, None)
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(reach.since_time))
        self._core.unreachable[reach.executor] = f"{reach.executor} does not answer since {since}: {reach.error}"
        self._since[reach.executor] = reach.since_time

    def note_missing(self, needed: Iterable[str], executors: Mapping[str, Executor]) -> None:
        """Mark schedulers that this service was started without as unreachable."""
        for name in set(needed) - executors.keys():
            self._core.unreachable[name] = no_executor(name, executors)
            self._since[name] = time.time()

    def deadlines(self) -> Iterator[tuple[float, Job]]:
        """Yield the jobs that wait for an unreachable scheduler, each with the end of its wait."""
        for job in [*self._core.jobs.values()] if self._core.unreachable else ():
            limit, executor = job.spec.scheduler_wait_limit, job.spec.scheduler
            waits = job.state is State.QUEUED and job.open_attempt is None and executor in self._core.unreachable
            if waits and limit is not None:
                yield max(self._since[executor], job.create_time) + limit, job
