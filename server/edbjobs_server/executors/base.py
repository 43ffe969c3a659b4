"""What every executor does, and what it is given to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edbjobs.config import SchedulerOptions

from edbjobs_server.core.runs import Listener, OpenRun, RunKey


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a run asks a scheduler for.

    Attributes
    ----------
    name : str
        Name of the scheduler's job: ``edb-<job id>-<16 hex digits>-<attempt>`` in ``[A-Za-z0-9_-]``, at most 80
        characters. No other job bears it: it is the token a job is found by.
    comment : str
        ``edbjobs:<uid>:<user>`` and the words of the job; printable, in no need of a line of its own.
    nodes, tasks_per_node : int
        At least 1 each.
    cores_per_node : int or None
        At least `tasks_per_node`; None: the scheduler's default.
    memory_bytes_per_node : int or None
        None: the scheduler's default.
    time_limit : float or None
        Longest run in seconds; 0: unlimited. None: the scheduler's default.
    partition : str
        Partition or queue; empty: the scheduler's default.
    account : str
        Empty: the scheduler's default.
    options : SchedulerOptions
        Everything else that was asked for.
    """

    name: str
    comment: str
    nodes: int = 1
    tasks_per_node: int = 1
    cores_per_node: int | None = None
    memory_bytes_per_node: int | None = None
    time_limit: float | None = None
    partition: str = ""
    account: str = ""
    options: SchedulerOptions = field(default_factory=SchedulerOptions)

    @property
    def known_cores(self) -> int:
        """Cores on each node that the run has for certain: what it asks for, at least one for each task."""
        return max(self.tasks_per_node, self.cores_per_node or 1)

    @property
    def memory_mib(self) -> int:
        """Memory on each node in MiB, rounded up; 0: not asked for."""
        return -(-(self.memory_bytes_per_node or 0) // 1024**2)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to run.

    Attributes
    ----------
    key : RunKey
        Which run.
    argv : sequence of str
        Program and arguments; no shell is involved. Of a cluster's run, paths are as its nodes see them.
    cwd : str
        Working directory; the same holds for it.
    env : mapping of str to str
        The whole environment; the executor adds only its mark.
    time_limit : float or None
        Seconds after which the supervisor itself ends the run.
    cancel_grace_period : float
        Seconds between TERM and KILL.
    keep : sequence of str
        Names of programs that may outlive the run, for example AEDT's license client ``ansyscl``.
    info : mapping of str to str
        Copied into the run's record, so that a lost store can be rebuilt from the records.
    additions : mapping of str to str
        What of `env` the job itself adds.
    umask : int or None
        File mode creation mask of the solver; None: that of the service's process.
    allocation : Allocation or None
        What a run on a cluster asks for; None: it runs here.
    """

    key: RunKey
    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    time_limit: float | None = None
    cancel_grace_period: float = 30.0
    keep: Sequence[str] = ()
    info: Mapping[str, str] = field(default_factory=dict)
    additions: Mapping[str, str] = field(default_factory=dict)
    umask: int | None = None
    allocation: Allocation | None = None


class Executor(Protocol):
    """A place where runs run. Every method is safe to repeat."""

    name: str

    async def open(self, listener: Listener) -> None:
        """Get ready; `listener` is called on the event loop with every update."""

    async def start(self, run: RunSpec) -> None:
        """Start a reserved run; its start and its end come as updates."""

    async def cancel(self, key: RunKey, grace: float) -> None:
        """End a run: TERM, `grace` seconds, KILL. A run not yet started is voided. The end comes as an update."""

    async def adopt(self, runs: Sequence[OpenRun]) -> None:
        """Take over what an earlier service left; tells how each stands by updates, `RunStarted` included."""

    async def close(self) -> None:
        """Let go of everything; runs go on."""

    def run_directory(self, key: RunKey) -> Path:
        """Folder of a run."""
