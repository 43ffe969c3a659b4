"""What every scheduler's module does, and the values that pass between it and the cluster's executor.

A scheduler's module translates: it builds commands, parses answers, and maps a scheduler's states. It keeps
nothing and concludes nothing from an answer that did not come; that is `executor` and `evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation

ERRORS = ".err"  # suffix of the file for errors, where a scheduler cannot write output and errors into one file


class Unreachable(Exception):
    """A scheduler did not answer, or its answer cannot be used; nothing follows from it. The text is its output."""


class SubmitRefused(Exception):
    """A scheduler has definitely refused a submission, and has no such job. The text is its output."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A run that is ready to be handed over.

    Attributes
    ----------
    allocation : Allocation
        What it asks for; its directives are in the script already.
    script : Path
        Batch script in the run's folder. A scheduler that copies it when it is submitted needs it no longer.
    output : Path
        File in the run's folder for what the scheduler itself writes; the solver's output goes elsewhere.
    cwd : Path
        Folder the script starts in.
    env : mapping of str to str
        Environment of the submitting command, which most schedulers pass on to the job.
    """

    allocation: Allocation
    script: Path
    output: Path
    cwd: Path
    env: Mapping[str, str]


class Phase(Enum):
    """What a scheduler's state means."""

    PENDING = "pending"  # has not started, or is to start again
    RUNNING = "running"  # has started and not ended, suspended ones included
    ENDING = "ending"  # its script has ended or is being ended; the scheduler is not done with it
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ClusterJobStatus:
    """What a scheduler reports of one of its jobs.

    Attributes
    ----------
    id, name : str
        As the scheduler gives them. A job counts as ours only if both are right: ids are used again.
    state, reason : str
        The scheduler's words.
    never : bool
        It waits for something that cannot come about by itself.
    nodes : tuple of str
        Where it runs or ran, expanded.
    submit_time, start_time, end_time : float or None
        Seconds since the epoch, by the scheduler's clock.
    ending : Ending or None
        How it ended. None of an ended job: not in this answer; ask `look`.
    exit_code, signal : int or None
        Of the batch script.
    message : str
        A sentence for people, where the words alone would mislead.
    """

    id: str
    name: str
    phase: Phase
    state: str
    reason: str = ""
    never: bool = False
    nodes: tuple[str, ...] = ()
    submit_time: float | None = None
    start_time: float | None = None
    end_time: float | None = None
    ending: Ending | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition or queue; numbers as of ``edbjobs.v1.Partition``, None: not known."""

    name: str
    state: str
    is_default: bool = False
    nodes_total: int | None = None
    nodes_used: int | None = None
    nodes_free: int | None = None
    cores_total: int | None = None
    cores_used: int | None = None
    cores_free: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    time_limit: int | None = None  # seconds; None: no limit, or not known


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """A job of the cluster, whosever it is."""

    id: str
    name: str
    user: str
    partition: str
    state: str
    reason: str = ""
    node_count: int = 0
    core_count: int = 0
    nodes: tuple[str, ...] = ()  # names or ranges, as the scheduler writes them
    start_time: float | None = None


class Scheduler(Protocol):
    """One kind of scheduler. Methods may be called at the same time; each has its own deadline.

    Every method but `node_path`, `directives` and `end_in_output` raises `Unreachable` where no usable answer came.

    Attributes
    ----------
    name : str
        ``slurm``, ``lsf``, ``pbs`` or ``windows_hpc``.
    template : str
        File name of its batch script's template.
    """

    name: str
    template: str

    def node_path(self, path: str) -> str:
        """Return a path of this host as the nodes see it.

        Raises
        ------
        Refused
            PROJECT_NOT_SHARED: they do not see it.
        """

    async def probe(self) -> str:
        """Ask whether the scheduler answers, as cheaply as it can be asked; gives its version."""

    def directives(self, allocation: Allocation) -> Sequence[str]:
        """Return the request as the batch script's directives, one line each, without their prefix.

        Raises
        ------
        Refused
            INVALID_JOB, naming fields as ``config.scheduler_options.<name>``: this scheduler does not accept it.
        """

    def submit_command(self, submission: Submission) -> Sequence[str]:
        """Return the command that submits, for people to read."""

    async def submit(self, submission: Submission) -> str:
        """Submit a run; returns the scheduler's id.

        Raises
        ------
        SubmitRefused
            It was refused for certain.
        Unreachable
        It is unknown whether it was accepted: look for it with `find` before submitting again.
        """

    async def find(self, name: str) -> Sequence[ClusterJobStatus]:
        """Find the jobs of a name, ended ones included as far as the scheduler still knows them."""

    async def poll(self) -> Mapping[str, ClusterJobStatus]:
        """See all jobs of this account with one query, by id; it may lack jobs that have ended."""

    async def look(self, ids: Sequence[str]) -> Mapping[str, ClusterJobStatus | None]:
        """See some jobs closely: the queue first, then accounting.

        None means that the scheduler, which answered, knows no such job (any more). An id that is missing in the
        answer means that nothing is known of it now.
        """

    async def cancel(self, ids: Sequence[str], *, kill: bool = False) -> None:
        """End jobs; those that have ended are passed over. `kill`: what resisted an earlier cancel."""

    def end_in_output(self, output: str) -> tuple[Ending, str] | None:
        """Return what the scheduler wrote into a job's own output about its end, if it did; the text is its line."""

    async def partitions(self) -> Sequence[Partition]:
        """List partitions or queues."""

    async def jobs(self) -> Sequence[ClusterJob]:
        """List the jobs that have not ended, of all users."""

    async def close(self) -> None:
        """Release all resources."""


class SamePaths:
    """What schedulers have in common whose nodes have the shared file systems in the same places as this host."""

    def node_path(self, path: str) -> str:
        """See `Scheduler.node_path`."""
        return path
