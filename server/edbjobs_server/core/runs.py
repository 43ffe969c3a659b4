"""What becomes of a run: its name, its end, and what an executor reports of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


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
class Reachability:
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


RunUpdate = RunScheduled | RunStarted | RunEnded | RunNote | RunTrouble | RunUnkillable | Reachability
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
