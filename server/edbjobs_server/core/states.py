"""States and reasons. Their names and numbers are those of protos/edbjobs/v1/job_state.proto."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """State of a job."""

    QUEUED = 2
    SCHEDULED = 3
    RUNNING = 4
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7

    @property
    def terminal(self) -> bool:
        """Whether a job in this state never changes state again."""
        return self >= State.COMPLETED


TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class Waiting(IntEnum):
    """Why a job is not running, or not ended, yet."""

    JOBS_BEFORE = 1
    JOB_LIMIT = 2
    CORES = 3
    MEMORY = 4
    LICENSES = 5
    USER_JOBS = 6
    USER_CORES = 7
    HELD = 8
    QUEUE_PAUSED = 9
    NOT_BEFORE = 10
    BACK_OFF = 11
    PROJECT_BUSY = 12
    PROJECT_LOCKED = 13
    CPU_GATE = 14
    MEMORY_GATE = 15
    DISK_GATE = 16
    STARTING = 17
    UNKILLABLE = 18
    CANCELLING = 19
    DRAINING = 20
    SCHEDULER_PENDING = 21
    SCHEDULER_UNREACHABLE = 22
    LICENSE_WAIT = 23
    STORE_UNAVAILABLE = 24
    NEVER_RUNNABLE = 25
    CLUSTER_JOB_LIMIT = 26
    DEPENDENCY = 27
    PATH_UNREACHABLE = 28
    ENDING = 29


class Reason(IntEnum):
    """Why a job, or one attempt of it, ended as it did."""

    NORMAL = 1
    EXIT_CODE = 2
    SIGNAL = 3
    TIMEOUT = 4
    LICENSE = 5
    SOLVER_ERROR = 6
    NOTHING_SOLVED = 7
    UNVERIFIED = 8
    PROJECT_LOCKED = 9
    SUBMIT_REFUSED = 10
    NODE_FAIL = 11
    OUT_OF_MEMORY = 12
    LOST = 13
    CANCELLED = 14
    CANCELLED_EXTERNALLY = 15
    UNKILLABLE = 16
    START_FAILED = 17
    SOLVER_NOT_FOUND = 18
    PROJECT_NOT_FOUND = 19
    RESULTS_EXIST = 20
    PREEMPTED = 21
    UP_TO_DATE = 22
    NOT_CONVERGED = 23
    OUTPUT_MISSING = 24
    EXPORT_FAILED = 25
    DISK_FULL = 26
    PROJECT_CHANGED = 27
    SCHEDULER_UNREACHABLE = 28
    DEPENDENCY_FAILED = 29
    NOT_STARTED = 30
    INTERNAL = 31

    @property
    def state(self) -> State:
        """State of a job, or of an attempt, that ends for this reason; of NOT_STARTED the job is queued again."""
        return _STATE_AFTER.get(self, State.FAILED)


_STATE_AFTER = {
    Reason.NORMAL: State.COMPLETED,
    Reason.UP_TO_DATE: State.COMPLETED,
    Reason.CANCELLED: State.CANCELLED,
    Reason.CANCELLED_EXTERNALLY: State.CANCELLED,
    Reason.UNKILLABLE: State.CANCELLED,
    Reason.NOT_STARTED: State.QUEUED,
}


class Evidence(IntEnum):
    """On what an outcome rests."""

    SOLVER_LOG = 1
    EXIT_CODE = 2
    SCHEDULER = 3
    NONE = 4
    SERVICE = 5


class EventType(IntEnum):
    """Type of the change that an event records."""

    JOB_QUEUED = 1
    JOB_STARTING = 2
    JOB_SCHEDULED = 3
    JOB_STARTED = 4
    JOB_RETRYING = 6
    JOB_CANCEL_REQUESTED = 7
    JOB_COMPLETED = 8
    JOB_FAILED = 9
    JOB_CANCELLED = 10
    JOB_HELD = 11
    JOB_RELEASED = 12
    JOB_PRIORITY_CHANGED = 13
    JOB_DELETED = 14
    JOB_NOTE = 15
    LIMITS_UPDATED = 16
    QUEUE_PAUSED = 17
    QUEUE_RESUMED = 18
    GATE_CLOSED = 19
    GATE_OPENED = 20
    JOB_SUPERSEDED = 21
