"""State that the writer keeps in memory."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field

from edbjobs.v1 import resource_pb2

from edbjobs_server.contract.codec import limits_from_message
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import INITIAL_LIMITS, Limits
from edbjobs_server.store.queries import QUERIES
from edbjobs_server.store.rows import live_jobs
from edbjobs_server.store.values import Snapshot


@dataclass(slots=True)
class State:
    """Counters, settings, and the jobs that have not ended, by uid; `uids` finds theirs by id.

    Attributes
    ----------
    newest_time : float
        Time of the newest event; 0: there is none.
    last_end : float
        Where the newest end stands in the order of ends; never goes back.
    age_time : float
        The clock that ages are measured by, as it stood at `age_mark` of the monotonic clock.
    """

    store_id: str
    revision: int
    last_seq: int
    paused: bool
    limits: Limits
    jobs: dict[str, Job] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    newest_time: float = field(default=0.0, compare=False)
    last_end: float = field(default=0.0, compare=False)
    age_time: float = field(default=0.0, compare=False)
    age_mark: float = field(default_factory=time.monotonic, compare=False)

    def snapshot(self) -> Snapshot:
        """Make a value of it that does not change."""
        jobs = sorted(self.jobs.values(), key=lambda job: job.seq)
        return Snapshot(self.store_id, self.revision, tuple(jobs), self.limits, self.paused, self.generation)


def read_state(connection: sqlite3.Connection) -> State:
    """Read the committed state."""
    connection.execute("BEGIN")
    try:
        row = connection.execute(QUERIES["service"]).fetchone()
        store_id, revision, last_seq, paused, limits, age_time, _ = row
        state = State(store_id, revision, last_seq, bool(paused), _limits_of(limits))
        state.newest_time = float((connection.execute(QUERIES["newest_time"]).fetchone() or (0.0,))[0])
        state.last_end = float(connection.execute(QUERIES["last_end"]).fetchone()[0] or 0.0)
        state.age_time = age_time or state.newest_time or time.time()
        for job in live_jobs(connection):
            state.jobs[job.uid] = job
            state.uids[job.id] = job.uid
    finally:
        connection.execute("ROLLBACK")
    return state


def _limits_of(data: bytes | None) -> Limits:
    return INITIAL_LIMITS if data is None else limits_from_message(resource_pb2.Limits.FromString(data))
