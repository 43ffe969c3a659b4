"""What every executor does, and the values that pass between it and the manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from edbjobs.config import SchedulerOptions


@dataclass(frozen=True, slots=True)
class RunKey:
    """Names one run for ever: the job's number and uid, and the number of the attempt.

    Attributes
    ----------
    folder : str
        Folder of the run below the runs folder.
    """

    seq: int
    uid: str
    attempt: int
    folder: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", f"{self.seq // 1000:06d}/{self.seq}.{self.attempt}")


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
    nodes, tasks_per_node, cores_per_node : int
        At least 1 each; `cores_per_node` is what AEDT may use on each node, at least `tasks_per_node`.
    memory_mib : int
        On each node; 0: not asked for.
    time : str
        Limit in one of the scheduler's own forms; empty: `wall_clock_limit` if there is one.
    wall_clock_limit : float or None
        Longest run in seconds.
    options : SchedulerOptions
        Everything else that was asked for. `queue`, `time` and `memory` of it are not to be used.
    queue : str
        Partition or queue; empty: the scheduler's default.
    account : str
        Empty: the scheduler's default.
    """

    name: str
    comment: str
    nodes: int = 1
    tasks_per_node: int = 1
    cores_per_node: int = 1
    memory_mib: int = 0
    time: str = ""
    wall_clock_limit: float | None = None
    queue: str = ""
    account: str = ""
    options: SchedulerOptions = field(default_factory=SchedulerOptions)


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
    wall_clock_limit : float or None
        Seconds after which the supervisor itself ends the run.
    cancel_grace : float
        Seconds between TERM and KILL.
    keep : sequence of str
        Names of programs that may outlive the run, for example AEDT's licence client ``ansyscl``.
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
    wall_clock_limit: float | None = None
    cancel_grace: float = 30.0
    keep: Sequence[str] = ()
    info: Mapping[str, str] = field(default_factory=dict)
    additions: Mapping[str, str] = field(default_factory=dict)
    umask: int | None = None
    allocation: Allocation | None = None


class Ending(Enum):
    """How a run ended, as far as the executor can tell."""

    EXITED = "exited"  # by itself, with an exit code
    SIGNALLED = "signalled"  # by a signal that we did not send
    CANCELLED = "cancelled"  # by our cancel
    TIMEOUT = "timeout"  # by the wall-clock limit
    START_FAILED = "start_failed"  # the program could not be executed
    NEVER_RAN = "never_ran"  # proven: voided, or its supervisor died before the start line
    LOST = "lost"  # it had started; nothing of it is left and no end was recorded
    SUBMIT_REFUSED = "submit_refused"  # the scheduler did not take it
    NODE_FAIL = "node_fail"  # the scheduler lost its node
    OUT_OF_MEMORY = "out_of_memory"  # it was ended for using too much memory
    PREEMPTED = "preempted"  # the scheduler gave its place to another job
    CANCELLED_EXTERNALLY = "cancelled_externally"  # somebody else ended it through the scheduler


@dataclass(frozen=True, slots=True)
class RunScheduled:
    """A cluster's scheduler has taken the run."""

    key: RunKey
    time: float
    scheduler_job_id: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The solver's process has been started."""

    key: RunKey
    time: float
    pid: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Nothing of the run is left. `time` is when it ended, not when it was noticed.

    `by_scheduler`: a cluster's scheduler says so, and no record of the run itself.
    """

    key: RunKey
    ending: Ending
    time: float
    start_time: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    message: str = ""
    by_scheduler: bool = False


@dataclass(frozen=True, slots=True)
class RunNote:
    """Something about a run that people should know of; nothing changes by it."""

    key: RunKey
    text: str


@dataclass(frozen=True, slots=True)
class RunTrouble:
    """The run cannot be followed now; `text` says why, empty: the trouble is over.

    `unseen`: whether there are processes of the run cannot be told from here.
    """

    key: RunKey
    text: str
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class RunUnkillable:
    """Some processes of the run cannot be ended; `pids` are theirs. Told again when the set changes."""

    key: RunKey
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether what an executor needs answers: a cluster's scheduler.

    Attributes
    ----------
    executor : str
        Its name.
    answering : bool
        It answered last time.
    since : float
        When `answering` got its value, seconds since the epoch.
    version, error : str
        Release, as it says; what went wrong, in its words.
    """

    executor: str
    answering: bool
    since: float
    version: str = ""
    error: str = ""


RunUpdate = RunScheduled | RunStarted | RunEnded | RunNote | RunTrouble | RunUnkillable | Reach
Listener = Callable[[RunUpdate], None]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that was reserved before the service restarted."""

    key: RunKey
    boot_id: str
    cancel_grace: float | None = None  # set: cancel was asked for
    started: bool = False  # its start is known to the store
    scheduler_job_id: str = ""
    name: str = ""  # of the scheduler's job, as `Allocation.name`
    directory: Path | None = None  # its folder, if that was elsewhere than it would be today


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
