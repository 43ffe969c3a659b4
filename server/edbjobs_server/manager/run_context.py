"""State that all runs share, and state of a job that is kept between its plans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.planner import Planner
from edbjobs_server.executors.base import Executor
from edbjobs_server.manager.submission import Rules
from edbjobs_server.manager.unreachable import no_executor
from edbjobs_server.store import Store
from edbjobs_server.util.backoff import Backoff
from edbjobs_server.util.path_workers import PathWorkers


@dataclass
class RetryState:
    """Delays and errors of a waiting job; kept between its plans, until it starts or leaves the queue."""

    delays: Backoff = field(default_factory=lambda: Backoff(first=1.0))
    locked_since: float | None = None
    logged: str = ""  # the last error that was logged


@dataclass
class RunContext:
    """State that all runs share.

    Attributes
    ----------
    wake : callable
        Requests a plan.
    ending : set of Future
        One for each run that has ended and whose end is not on record yet: done when the record is on its way to the
        disk, or delayed.
    """

    store: Store
    core: Planner
    executors: Mapping[str, Executor]
    rules: Rules
    paths: PathWorkers
    environment: Mapping[str, str]
    boot_id: str
    lock_wait: float
    wake: Callable[[], None]
    ending: set[asyncio.Future[None]] = field(default_factory=set)

    def executor(self, name: str) -> Executor:
        """Return an executor.

        Raises
        ------
        Refused
            NO_SCHEDULER: the service was started without it.
        """
        found = self.executors.get(name)
        if found is None:
            raise Refused("NO_SCHEDULER", no_executor(name, self.executors))
        return found
