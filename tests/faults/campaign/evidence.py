"""What was seen from outside the service, as values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edbjobs.v1 import event_pb2, job_pb2

REQUEST_LABEL = "request"  # each job bears the request that made it


@dataclass(frozen=True)
class Note:
    """A line of a solver's witness file; `at` is monotonic time in seconds."""

    what: str
    job: str
    attempt: int
    at: float


@dataclass(frozen=True)
class Submit:
    """One answered try of a submit: the job in the answer, and whether its solver was to end well."""

    request_id: str
    uid: str
    good: bool


@dataclass(frozen=True)
class ClusterJobStatus:
    """A run that was going on just before the service was hit."""

    uid: str
    attempt: int
    pid: int


@dataclass
class Evidence:
    """All that the checker goes by.

    Attributes
    ----------
    notes, submits, sightings
        As seen by solvers, by clients, and before each hit.
    events, revision
        All a watcher got, over all its reconnections, and the service's last revision.
    watch_errors
        Answers to the watcher other than that the service is away.
    jobs
        By uid, as the service reports them at the end.
    cancels
        By uid: the grace asked for, in seconds.
    killed
        Jobs of which a process was killed by a fault.
    left
        uid and pid of what was alive more than 10 s after all jobs had ended.
    harmed
        Processes that are none of the service's and did not survive.
    downs
        Unix times between which the service was gone or stopped.
    stepped
        The clock was changed: recorded times cannot be compared.
    """

    max_jobs: int
    notes: list[Note] = field(default_factory=list)
    submits: list[Submit] = field(default_factory=list)
    sightings: list[ClusterJobStatus] = field(default_factory=list)
    events: list[event_pb2.WatchEvent] = field(default_factory=list)
    revision: int = 0
    watch_errors: list[str] = field(default_factory=list)
    jobs: dict[str, job_pb2.Job] = field(default_factory=dict)
    cancels: dict[str, float] = field(default_factory=dict)
    killed: set[str] = field(default_factory=set)
    left: list[tuple[str, int]] = field(default_factory=list)
    harmed: list[str] = field(default_factory=list)
    downs: list[tuple[float, float]] = field(default_factory=list)
    stepped: bool = False
    integrity: str = "ok"


def read_notes(folder: Path) -> Iterator[Note]:
    """Read the witness files; a file's name is ``<id>-<seq>-<attempt>``."""
    for file in sorted(folder.iterdir()):
        for line in file.read_text().splitlines():
            what, name, *_, at = line.split()
            job, _, attempt = name.rsplit("-", 2)
            yield Note(what, job, int(attempt), int(at) / 1e9)
