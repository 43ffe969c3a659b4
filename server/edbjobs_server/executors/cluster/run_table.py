"""The runs in hand of a cluster's executor, and what is told of them."""

from __future__ import annotations

import logging
import time

from edbjobs_server.core.runs import Listener, Reachability, RunEnded, RunScheduled, RunStarted, RunUpdate
from edbjobs_server.executors.cluster.record import Record
from edbjobs_server.executors.cluster.run import Run
from edbjobs_server.executors.schedulers.base import ClusterJobStatus

_log = logging.getLogger(__name__)


class RunTable:
    """Runs by their folder; each of their changes is told once.

    Parameters
    ----------
    name : str
        Of the executor.

    Attributes
    ----------
    runs : dict of str to Run
        By `RunKey.folder`.
    listener : callable or None
        Who is told.
    reach : Reachability
        Whether the scheduler answers.
    """

    def __init__(self, name: str) -> None:
        self.runs: dict[str, Run] = {}
        self.listener: Listener | None = None
        self.reach = Reachability(name, False, time.time(), error="it was not asked yet")

    def know(self, run: Run, run_id: str) -> None:
        """Take in the scheduler's id of a run."""
        run.id = run_id
        self.emit(RunScheduled(run.key, time.time(), run_id))

    def tell_start(self, run: Run, found: Record, sighting: ClusterJobStatus | None) -> None:
        """Tell that a run has begun, as it or the scheduler says."""
        start = found.start
        if run.started or (start is None and sighting is None):
            return
        run.started = True
        nodes = sighting.nodes if sighting is not None else ()
        began = start.time if start is not None else sighting.start_time if sighting is not None else None
        self.emit(
            RunStarted(
                run.key,
                began if began is not None else time.time(),
                start.pid if start is not None else 0,
                nodes or (start.nodes if start is not None else ()),
            )
        )

    def finish(self, run: Run, ended: RunEnded) -> None:
        """Tell the end of a run and let go of it."""
        if self.runs.pop(run.key.folder, None) is not None:
            self.emit(ended)

    def set_reach(self, answering: bool, version: str = "", error: str = "") -> None:
        """Take in whether the scheduler answers."""
        before = self.reach
        same = before.answering == answering and bool(before.version or answering or before.error)
        self.reach = Reachability(
            before.executor, answering, before.since if same else time.time(), version or before.version, error
        )
        if answering != before.answering or error != before.error:
            if answering:
                _log.info("%s %s answers", before.executor, self.reach.version)
            else:
                _log.warning("%s does not answer: %s", before.executor, error)
            self.emit(self.reach)

    def emit(self, update: RunUpdate) -> None:
        """Tell something."""
        if self.listener is not None:
            self.listener(update)
