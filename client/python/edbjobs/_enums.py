"""Enums of the API as lower-case text.

Each class mirrors one enum of protos/edbjobs/v1: a member's value is the proto name without its prefix, in
lower case. A number that this release does not define becomes ``UNKNOWN``: a newer service may send it.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from itertools import count
from typing import TypeVar, cast

__all__ = [
    "Authentication",
    "Convergence",
    "DesignMode",
    "EndReason",
    "Evidence",
    "ExistingResults",
    "JobChangeType",
    "JobOrder",
    "JobState",
    "JobView",
    "LogStream",
    "QueueChangeType",
    "Role",
    "SchedulerPriority",
    "SolvePhase",
    "SolverSource",
    "WaitingReason",
    "Word",
    "from_number",
    "optional_from_number",
    "to_number",
]


class Word(str, Enum):
    """A text enum whose `str` is its value and whose lookup ignores case."""

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def _missing_(cls, value: object) -> Word | None:
        if isinstance(value, str):
            lower = value.lower()
            return next((member for member in cls if member.value == lower), None)
        return None


class JobState(Word):
    """What a job is doing. `Job.ended` says whether it can change any more."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobView(Word):
    """How much of a job was sent: what a table of jobs shows, or everything."""

    UNKNOWN = "unknown"
    BASIC = "basic"
    FULL = "full"


class WaitingReason(Word):
    """Why a job is not running yet, or has not ended yet."""

    UNKNOWN = "unknown"
    JOBS_BEFORE = "jobs_before"
    JOB_LIMIT = "job_limit"
    CORES = "cores"
    MEMORY = "memory"
    LICENSES = "licenses"
    USER_JOBS = "user_jobs"
    USER_CORES = "user_cores"
    HELD = "held"
    QUEUE_PAUSED = "queue_paused"
    NOT_BEFORE = "not_before"
    BACK_OFF = "back_off"
    PROJECT_BUSY = "project_busy"
    PROJECT_LOCKED = "project_locked"
    CPU_GATE = "cpu_gate"
    MEMORY_GATE = "memory_gate"
    DISK_GATE = "disk_gate"
    STARTING = "starting"
    UNKILLABLE = "unkillable"
    CANCELLING = "cancelling"
    DRAINING = "draining"
    SCHEDULER_PENDING = "scheduler_pending"
    SCHEDULER_UNREACHABLE = "scheduler_unreachable"
    LICENSE_WAIT = "license_wait"
    STORE_UNAVAILABLE = "store_unavailable"
    NEVER_RUNNABLE = "never_runnable"
    CLUSTER_JOB_LIMIT = "cluster_job_limit"
    DEPENDENCY = "dependency"
    PATH_UNREACHABLE = "path_unreachable"
    ENDING = "ending"


class EndReason(Word):
    """Why a job or an attempt ended."""

    UNKNOWN = "unknown"
    NORMAL = "normal"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    LICENSE = "license"
    SOLVER_ERROR = "solver_error"
    NOTHING_SOLVED = "nothing_solved"
    UNVERIFIED = "unverified"
    PROJECT_LOCKED = "project_locked"
    SUBMIT_REFUSED = "submit_refused"
    NODE_FAIL = "node_fail"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    CANCELLED = "cancelled"
    CANCELLED_EXTERNALLY = "cancelled_externally"
    UNKILLABLE = "unkillable"
    START_FAILED = "start_failed"
    SOLVER_NOT_FOUND = "solver_not_found"
    PROJECT_NOT_FOUND = "project_not_found"
    RESULTS_EXIST = "results_exist"
    PREEMPTED = "preempted"
    UP_TO_DATE = "up_to_date"
    NOT_CONVERGED = "not_converged"
    OUTPUT_MISSING = "output_missing"
    EXPORT_FAILED = "export_failed"
    DISK_FULL = "disk_full"
    PROJECT_CHANGED = "project_changed"
    SCHEDULER_UNREACHABLE = "scheduler_unreachable"
    DEPENDENCY_FAILED = "dependency_failed"
    NOT_STARTED = "not_started"
    INTERNAL = "internal"


class Evidence(Word):
    """What an outcome rests on; NONE: how it ended was not seen."""

    UNKNOWN = "unknown"
    SOLVER_LOG = "solver_log"
    EXIT_CODE = "exit_code"
    SCHEDULER = "scheduler"
    NONE = "none"
    SERVICE = "service"


class Convergence(Word):
    """Whether a solve reached the accuracy asked for; UNKNOWN: the solver's output does not show it."""

    NOT_APPLICABLE = "not_applicable"
    CONVERGED = "converged"
    NOT_CONVERGED = "not_converged"
    UNKNOWN = "unknown"


class SolvePhase(Word):
    """What a running solve is working on."""

    UNKNOWN = "unknown"
    OPENING = "opening"
    MESHING = "meshing"
    ADAPTIVE = "adaptive"
    SWEEP = "sweep"
    EXPORT = "export"
    DONE = "done"


class JobChangeType(Word):
    """What happened to a job."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    STARTING = "starting"
    SCHEDULED = "scheduled"
    STARTED = "started"
    RETRYING = "retrying"
    CANCEL_REQUESTED = "cancel_requested"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HELD = "held"
    RELEASED = "released"
    PRIORITY_CHANGED = "priority_changed"
    SUPERSEDED = "superseded"
    NOTE = "note"
    DELETED = "deleted"


class QueueChangeType(Word):
    """What happened to the queue."""

    UNKNOWN = "unknown"
    PAUSED = "paused"
    RESUMED = "resumed"
    GATE_CLOSED = "gate_closed"
    GATE_OPENED = "gate_opened"


class DesignMode(Word):
    """What of a design is solved."""

    NOMINAL = "nominal"
    OPTIMETRICS = "optimetrics"


class SchedulerPriority(Word):
    """A priority that each scheduler has in its own form; it never decreases from the first to the last."""

    LOWEST = "lowest"
    LOW = "low"
    BELOW_NORMAL = "below_normal"
    NORMAL = "normal"
    ABOVE_NORMAL = "above_normal"
    HIGH = "high"
    HIGHEST = "highest"


class ExistingResults(Word):
    """What to do if the project already has results."""

    KEEP = "keep"
    CLEAR = "clear"
    REFUSE = "refuse"


class JobOrder(Word):
    """Order of a list of jobs."""

    CREATE_TIME = "create_time"
    CREATE_TIME_DESCENDING = "create_time_descending"
    END_TIME_DESCENDING = "end_time_descending"
    PRIORITY = "priority"


class LogStream(Word):
    """Output stream of a run."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SOLVER = "solver"
    SCRIPT = "script"
    EXPORT = "export"


class SolverSource(Word):
    """Where a solver was found."""

    UNKNOWN = "unknown"
    ENVIRONMENT = "environment"
    SETTINGS = "settings"
    REGISTRY = "registry"
    FOLDER = "folder"
    BUILT_IN = "built_in"


class Role(Word):
    """Permissions of a caller."""

    UNKNOWN = "unknown"
    VIEWER = "viewer"
    USER = "user"
    ADMIN = "admin"


class Authentication(Word):
    """How a caller was identified."""

    UNKNOWN = "unknown"
    UNIX_SOCKET = "unix_socket"
    LOOPBACK = "loopback"
    TOKEN = "token"  # noqa: S105 (a word)
    CERTIFICATE = "certificate"


W = TypeVar("W", bound=Word)

# The proto numbers follow the order of the members, from 0 or, where 0 is no value of its own, from 1.
# Checked by tests/unit/test_config_enums.py.
_FROM_ONE = (Convergence, DesignMode, ExistingResults, JobOrder, LogStream, SchedulerPriority)
_RESERVED: dict[type[Word], tuple[int, ...]] = {JobState: (1,)}


@cache
def _by_number(kind: type[Word]) -> dict[int, Word]:
    reserved = _RESERVED.get(kind, ())
    numbers = (number for number in count(1 if kind in _FROM_ONE else 0) if number not in reserved)
    return dict(zip(numbers, kind, strict=False))


@cache
def _numbers(kind: type[Word]) -> dict[Word, int]:
    return {word: number for number, word in _by_number(kind).items()}


def from_number(kind: type[W], number: int) -> W:
    """Return the member for a number of the API.

    For a number that this release does not define it is UNKNOWN, or the first member of an enum without that.
    """
    found = _by_number(kind).get(number)
    return cast("W", found or getattr(kind, "UNKNOWN", None) or next(iter(kind)))


def optional_from_number(kind: type[W], number: int) -> W | None:
    """Return the member for a number of the API, or None for 0, which means that the field does not apply."""
    return from_number(kind, number) if number else None


def to_number(word: Word) -> int:
    """Return the number of a member in the API."""
    return _numbers(type(word))[word]
