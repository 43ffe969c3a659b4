"""The active runs of a cluster's executor, and the updates reported for them."""

from __future__ import annotations

import logging
import time

from edbjobs_server.core.runs import Listener, Reachability, RunEnded, RunScheduled, RunStarted, RunUpdate
from edbjobs_server.executors.cluster.record import Record
from edbjobs_server.executors.cluster.run import Run
from edbjobs_server.executors.schedulers.base import ClusterJobStatus

_log = logging.getLogger(__name__)


class RunTable:
    """Runs by their folder; each of their changes is reported once.

    Parameters
    ----------
    name : str
        Of the executor.

    Attributes
    ----------
    runs : dict of str to Run
        By `RunKey.folder`.
    listener : callable or None
    Receives the updates.
    reach : Reachability
        Whether the scheduler answers.
    """

    def __init__(self, name: str) -> None:
        self.runs: dict[str, Run] = {}
        self.listener: Listener | None = None
        self.reach = Reachability(name, False, time.time(), error="it was not asked yet")

    def know(self, run: Run, run_id: str) -> None:
        """Store the scheduler's id of a run."""
        run.id = run_id
        self.emit(RunScheduled(run.key, time.time(), run_id))

    def tell_start(self, run: Run, found: Record, status: ClusterJobStatus | None) -> None:
        """Report that a run has started, by its record or the scheduler."""
        start = found.start
        if run.started or (start is None and status is None):
            return
        run.started = True
        nodes = status.nodes if status is not None else ()
        since = start.time if start is not None else status.start_time if status is not None else None
        self.emit(
            RunStarted(
                run.key,
                since if since is not None else time.time(),
                start.pid if start is not None else 0,
                nodes or (start.nodes if start is not None else ()),
            )
        )

    def finish(self, run: Run, ended: RunEnded) -> None:
        """Report the end of a run and drop it."""
        if self.runs.pop(run.key.folder, None) is not None:
            self.emit(ended)

    def set_reach(self, responding: bool, version: str = "", error: str = "") -> None:
        """Report whether the scheduler responds, if that has changed."""
        before = self.reach
        same = before.responding == responding and bool(before.version or responding or before.error)
        self.reach = Reachability(
            before.executor, responding, before.since_time if same else time.time(), version or before.version, error
        )
        if responding != before.responding or error != before.error:
            if responding:
                _log.info("%s %s answers", before.executor, self.reach.version)
            else:
                _log.warning("%s does not answer: %s", before.executor, error)
            self.emit(self.reach)

    def emit(self, update: RunUpdate) -> None:
        """Report an update."""
        if self.listener is not None:
            self.listener(update)
