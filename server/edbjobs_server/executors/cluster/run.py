"""One run in the hands of a cluster's executor."""

from __future__ import annotations

from pathlib import Path

from edbjobs_server.core.runs import RunKey
from edbjobs_server.executors.cluster.record import Record
from edbjobs_server.executors.schedulers.base import ClusterJobStatus


class Run:
    """What is known of a run, in memory only: all of it can be found out again.

    Attributes
    ----------
    name, id : str
        Name of the scheduler's job, and its id; empty: not known (yet).
    submitting, handed : bool
        It is being handed over right now; a command that hands it over has been run, by us or an earlier service.
    started : bool
        Its start has been reported.
    urgent : bool
        Its record shows that it has ended, so the scheduler is queried.
    requeued : bool
        The scheduler put it back into its queue.
    noted : set of str
        Why it will never start, as far as reported: a scheduler may find one reason after another.
    grace : float or None
    Its end was requested.
    asked : float or None
        When the scheduler was asked for its end (monotonic).
    """

    def __init__(self, key: RunKey, name: str, folder: Path, run_id: str = "") -> None:
        self.key = key
        self.name = name
        self.folder = folder
        self.id = run_id
        self.submitting = False
        self.handed = True
        self.started = False
        self.urgent = False
        self.requeued = False
        self.noted: set[str] = set()
        self.ending = False
        self.grace: float | None = None
        self.asked: float | None = None
        self.status: ClusterJobStatus | None = None
        self._denied: float | None = None
        self._beat: tuple[float | None, float] | None = None

    def update(self, status: ClusterJobStatus) -> None:
        """Store the scheduler's report."""
        self.status = status
        self._denied = None

    def denied(self, now: float, gap: float) -> bool:
        """Note that the scheduler knows no such job; True once that was so for `gap` seconds."""
        if self._denied is None:
            self._denied = now
        return now - self._denied >= gap

    def is_stale(self, found: Record, now: float, limit: float) -> bool:
        """Return whether its heartbeat has not changed for `limit` seconds of our own clock: others may be wrong."""
        if self._beat is None or self._beat[0] != found.beat:
            self._beat = (found.beat, now)
        return now - self._beat[1] >= limit
