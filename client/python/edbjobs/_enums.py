"""Enums of the API as lower-case text.

Each class mirrors one enum of protos/edbjobs/v1: a member's value is the proto name without its prefix, in
lower case. A number that this release does not define becomes ``UNKNOWN``: a newer service may send it.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TypeVar, cast

__all__ = [
    "Authentication",
    "EndReason",
    "EventType",
    "Evidence",
    "ExistingResults",
    "JobOrder",
    "JobStatus",
    "JobView",
    "LogStream",
    "Role",
    "SchedulerType",
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


class JobStatus(Word):
    """State of a job. The names are those of the documented job manager; PENDING is never used."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True if a job in this state never changes again."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


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


class Evidence(Word):
    """Evidence for a terminal state."""

    UNKNOWN = "unknown"
    SOLVER_LOG = "solver_log"
    EXIT_CODE = "exit_code"
    SCHEDULER = "scheduler"
    NONE = "none"


class EventType(Word):
    """Type of an event."""

    UNKNOWN = "unknown"
    JOB_QUEUED = "job_queued"
    JOB_STARTING = "job_starting"
    JOB_SCHEDULED = "job_scheduled"
    JOB_STARTED = "job_started"
    JOB_PROGRESS = "job_progress"
    JOB_RETRYING = "job_retrying"
    JOB_CANCEL_REQUESTED = "job_cancel_requested"
    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"
    JOB_CANCELLED = "job_cancelled"
    JOB_HELD = "job_held"
    JOB_RELEASED = "job_released"
    JOB_PRIORITY_CHANGED = "job_priority_changed"
    JOB_DELETED = "job_deleted"
    JOB_NOTE = "job_note"
    LIMITS_UPDATED = "limits_updated"
    QUEUE_PAUSED = "queue_paused"
    QUEUE_RESUMED = "queue_resumed"
    GATE = "gate"
    JOB_SUPERSEDED = "job_superseded"


class SchedulerType(Word):
    """Where a job runs. With ``none``, the documented default, the service decides."""

    NONE = "none"
    LOCAL = "local"
    SLURM = "slurm"
    LSF = "lsf"
    PBS = "pbs"
    WINDOWS_HPC = "windows_hpc"


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


class JobView(Word):
    """How much of a job is sent."""

    UNKNOWN = "unknown"
    BASIC = "basic"
    FULL = "full"


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

# The proto numbers follow the order of the members; the first member has number 0, unless 0 is an
# alias of number 1 ("as KEEP"), or is not received. Checked by tests/unit/test_config_enums.py.
_ZERO_IS_FIRST = (ExistingResults, JobOrder, LogStream)


@cache
def _members(kind: type[Word]) -> tuple[Word, ...]:
    members = tuple(kind)
    return (members[0], *members) if issubclass(kind, _ZERO_IS_FIRST) else members


def from_number(kind: type[W], number: int) -> W:
    """Return the member for a number of the API; the member for 0 if this release does not define it."""
    members = _members(kind)
    return cast("W", members[number] if 0 <= number < len(members) else members[0])


def optional_from_number(kind: type[W], number: int) -> W | None:
    """Return the member for a number of the API, or None for 0, which means that the field does not apply."""
    return from_number(kind, number) if number else None


def to_number(word: Word) -> int:
    """Return the number of a member in the API."""
    members = _members(type(word))
    return len(members) - 1 - members[::-1].index(word)
