"""Runs: their key, their end, and the updates that executors report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunKey:
    """Unique key of one run: the job's number and uid, and the number of the attempt.

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
    """How a run ended, as reported by its executor."""

    EXITED = "exited"  # by itself, with an exit code
    SIGNALLED = "signalled"  # by a signal that we did not send
    CANCELLED = "cancelled"  # by our cancel
    TIMEOUT = "timeout"  # by the wall-clock limit
    START_FAILED = "start_failed"  # the program could not be executed
    NEVER_RAN = "never_ran"  # proven: voided, or its supervisor died before the start line
    LOST = "lost"  # it had started; no process is left and no end was recorded
    SUBMIT_REFUSED = "submit_refused"  # the scheduler did not take it
    NODE_FAIL = "node_fail"  # the scheduler lost its node
    OUT_OF_MEMORY = "out_of_memory"  # it was ended for using too much memory
    PREEMPTED = "preempted"  # the scheduler gave its place to another job
    CANCELLED_EXTERNALLY = "cancelled_externally"  # ended through the scheduler, not by us


@dataclass(frozen=True, slots=True)
class RunScheduled:
    """A cluster's scheduler has accepted the run."""

    key: RunKey
    time: float
    scheduler_job_id: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The solver's process has been started."""

    key: RunKey
    time: float
    pid: int | None
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """No process of the run is left. `time` is when it ended, not when it was noticed.

    `cpu_duration` (seconds) and `peak_memory_bytes` are None where they are not known.
    `by_scheduler`: reported by a cluster's scheduler, without a record of the run itself.
    """

    key: RunKey
    ending: Ending
    time: float
    start_time: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_duration: float | None = None
    peak_memory_bytes: int | None = None
    message: str = ""
    by_scheduler: bool = False


@dataclass(frozen=True, slots=True)
class RunNote:
    """A remark about a run; it changes no state."""

    key: RunKey
    text: str


@dataclass(frozen=True, slots=True)
class RunTrouble:
    """The run cannot be observed now; `text` is the reason, empty: it can be again.

    `unseen`: it cannot be determined from here whether processes of the run exist.
    """

    key: RunKey
    text: str
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class RunUnkillable:
    """Some processes of the run cannot be ended; `pids` are theirs. Reported again when the set changes."""

    key: RunKey
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reachability:
    """Whether the scheduler of a cluster executor responds.

    Attributes
    ----------
    executor : str
        Its name.
    responding : bool
        It responded last time.
    since_time : float
        When `responding` got its value, seconds since the epoch.
    version, error : str
        Its release, and its error, as it reports them.
    """

    executor: str
    responding: bool
    since_time: float
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
    directory: Path | None = None  # its folder, if the settings of today would give another one
