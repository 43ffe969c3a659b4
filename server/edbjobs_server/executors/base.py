"""What every executor does, and the values that pass between it and the manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RunKey:
    """Names one run for ever: the job's number and uid, and the number of the attempt."""

    seq: int
    uid: str
    attempt: int

    @property
    def folder(self) -> str:
        """Folder of the run below the runs folder."""
        return f"{self.seq // 1000:06d}/{self.seq}.{self.attempt}"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to run.

    Attributes
    ----------
    key : RunKey
        Which run.
    argv : sequence of str
        Program and arguments; no shell is involved.
    cwd : str
        Working directory.
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
    """

    key: RunKey
    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    wall_clock_limit: float | None = None
    cancel_grace: float = 30.0
    keep: Sequence[str] = ()
    info: Mapping[str, str] = field(default_factory=dict)


class Ending(Enum):
    """How a run ended, as far as the executor can tell."""

    EXITED = "exited"  # by itself, with an exit code
    SIGNALLED = "signalled"  # by a signal that we did not send
    CANCELLED = "cancelled"  # by our cancel
    TIMEOUT = "timeout"  # by the wall-clock limit
    START_FAILED = "start_failed"  # the program could not be executed
    NEVER_RAN = "never_ran"  # proven: voided, or its supervisor died before the start line
    LOST = "lost"  # it had started; nothing of it is left and no end was recorded


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The solver's process has been started."""

    key: RunKey
    time: float
    pid: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Nothing of the run is left. `time` is when it ended, not when it was noticed."""

    key: RunKey
    ending: Ending
    time: float
    start_time: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class RunUnkillable:
    """Some processes of the run cannot be ended; `pids` are theirs. Told again when the set changes."""

    key: RunKey
    pids: tuple[int, ...]


RunUpdate = RunStarted | RunEnded | RunUnkillable
Listener = Callable[[RunUpdate], None]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that was reserved before the service restarted."""

    key: RunKey
    boot_id: str
    cancel_grace: float | None = None  # set: cancel was asked for
    started: bool = False  # its start is known to the store
    data: Mapping[str, str] = field(default_factory=dict)  # executor's own, for example the cluster's id


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
