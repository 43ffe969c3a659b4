"""Responses of the service as frozen dataclasses; those of jobs come from `edbjobs._job_models`.

Attribute names are those of the API. Times are aware datetimes; units are part of the names or as in protos/edbjobs/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from edbjobs._enums import Authentication, JobChangeType, JobState, QueueChangeType, Role, SolverSource
from edbjobs._exceptions import EdbJobsError
from edbjobs._job_models import (
    AdaptivePass,
    Attempt,
    Job,
    JobProgress,
    Outcome,
    Reservation,
    StartEstimate,
    Waiting,
)

__all__ = [
    "AdaptivePass",
    "Attempt",
    "ClusterJob",
    "HostResources",
    "Job",
    "JobChange",
    "JobProgress",
    "JobResult",
    "JobUpdate",
    "Limits",
    "LimitsChange",
    "LogPiece",
    "Outcome",
    "Partition",
    "Position",
    "Preview",
    "Principal",
    "QueueChange",
    "QueueStatus",
    "Reservation",
    "RunUsage",
    "SchedulerStatus",
    "ServiceDetails",
    "Snapshot",
    "Solver",
    "StartEstimate",
    "SubmitResult",
    "SystemStatus",
    "UserLimits",
    "Volume",
    "Waiting",
    "WatchEvent",
]


@dataclass(frozen=True)
class Volume:
    """Space on one volume; `unreachable`: it does not respond, and the sizes are the last known ones."""

    path: str
    total_bytes: int = 0
    free_bytes: int = 0
    unreachable: bool = False


@dataclass(frozen=True)
class HostResources:
    """State of the host at one time."""

    sample_time: datetime | None = None
    cpu_percent: float = 0.0
    foreign_cpu_percent: float = 0.0
    cpu_count: int = 0
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    memory_available_bytes: int = 0
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True)
class UserLimits:
    """Limits of one user; None: no limit."""

    max_running_jobs: int | None = None
    max_cores: int | None = None
    max_priority: int | None = None


@dataclass(frozen=True)
class Limits:
    """Limits of the service. None: no limit; 0 lets nothing start, but of `min_*`, where it requires nothing."""

    max_local_jobs: int | None = None
    max_cores: int | None = None
    max_memory_bytes: int | None = None
    max_cluster_jobs: int | None = None
    licenses: Mapping[str, int] = field(default_factory=dict)
    max_cpu_percent: float | None = None
    min_free_memory_bytes: int | None = None
    min_free_disk_bytes: int | None = None
    default_user: UserLimits | None = None
    users: Mapping[str, UserLimits] = field(default_factory=dict)
    etag: str = ""


@dataclass(frozen=True)
class QueueStatus:
    """State of the queue at one time; `blocked_message`: why nothing starts on the host, empty: jobs start."""

    queued: int = 0
    queued_by_priority: Mapping[int, int] = field(default_factory=dict)
    held: int = 0
    starting: int = 0
    scheduled: int = 0
    running: int = 0
    local_runs: int = 0
    reserved: Reservation | None = None
    paused: bool = False
    blocked_message: str = ""


@dataclass(frozen=True)
class Principal:
    """A caller as the service knows it; `address` is empty for a call through the Unix socket."""

    name: str = ""
    role: Role = Role.UNKNOWN
    authentication: Authentication = Authentication.UNKNOWN
    user: str = ""
    address: str = ""


@dataclass(frozen=True)
class Position:
    """A place in the one sequence of all changes; `watch` continues after it, in another process as well."""

    revision: int = 0
    store_id: str = ""


@dataclass(frozen=True)
class JobChange:
    """A change of one job.

    Attributes
    ----------
    type : JobChangeType
        What happened.
    job : Job
        The job after it, without attempts, warnings and most of its configuration; of a deleted job its last state.
    old_state : JobState, optional
        Its state before; None: it was accepted.
    left : bool
        The job agreed with the filter of the watch before the change, and does not after it.
    """

    type: JobChangeType
    job: Job
    old_state: JobState | None = None
    left: bool = False


@dataclass(frozen=True)
class LimitsChange:
    """A change of the limits."""

    old_limits: Limits | None = None
    limits: Limits | None = None


@dataclass(frozen=True)
class QueueChange:
    """A change of what may start."""

    type: QueueChangeType


@dataclass(frozen=True)
class WatchEvent:
    """One change of a job, of the limits or of the queue; `revision` grows from event to event.

    Attributes
    ----------
    principal : Principal, optional
        Who asked for it; None: the service itself.
    message : str
        A sentence; empty where the change says it all.
    job_change, limits_change, queue_change : JobChange, LimitsChange and QueueChange, optional
        One of them; all None: a change of a newer service.
    position : Position
        Watch from here to continue after this event.
    """

    revision: int
    time: datetime | None
    principal: Principal | None = None
    message: str = ""
    job_change: JobChange | None = None
    limits_change: LimitsChange | None = None
    queue_change: QueueChange | None = None
    position: Position = Position()

    @property
    def job(self) -> Job | None:
        """The job that changed; None: another change."""
        return self.job_change.job if self.job_change is not None else None


@dataclass(frozen=True)
class RunUsage:
    """What the processes of one run use at one moment: processors in percent of one, memory in bytes."""

    sample_time: datetime | None = None
    cpu_percent: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class JobUpdate:
    """What of a job changes without an event.

    Attributes
    ----------
    attempt : int
        Number of the attempt that `progress` is of; 0: none.
    """

    uid: str
    attempt: int = 0
    progress: JobProgress | None = None
    waiting: Waiting | None = None
    usage: RunUsage | None = None


@dataclass(frozen=True)
class SchedulerStatus:
    """A scheduler the service uses, and whether it responds."""

    name: str
    version: str = ""
    responding: bool = False
    since_time: datetime | None = None
    error: str = ""


@dataclass(frozen=True)
class ServiceDetails:
    """What only administrators are told about the service."""

    account: str = ""
    pid: int = 0
    state_directory: str = ""
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SystemStatus:
    """Version and health of the service, and who the caller is to it."""

    version: str
    api_level: int
    position: Position | None = None
    caller: Principal | None = None
    host: str = ""
    start_time: datetime | None = None
    schedulers: tuple[SchedulerStatus, ...] = ()
    limits: Limits | None = None
    queue: QueueStatus | None = None
    resources: HostResources | None = None
    detected_scheduler: str = ""
    draining: bool = False
    store_unavailable: bool = False
    details: ServiceDetails | None = None


@dataclass(frozen=True)
class Partition:
    """A partition or queue of a cluster; None: not known."""

    scheduler: str
    name: str
    is_default: bool = False
    state: str = ""
    nodes_total: int | None = None
    nodes_used: int | None = None
    nodes_free: int | None = None
    cores_total: int | None = None
    cores_used: int | None = None
    cores_free: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    time_limit: timedelta | None = None


@dataclass(frozen=True)
class ClusterJob:
    """A job of a cluster; `job_uid` is empty if it is not from this service."""

    scheduler: str
    scheduler_job_id: str
    name: str = ""
    user: str = ""
    partition: str = ""
    state: str = ""
    reason: str = ""
    nodes: tuple[str, ...] = ()
    node_count: int = 0
    core_count: int = 0
    start_time: datetime | None = None
    job_uid: str = ""


@dataclass(frozen=True)
class Solver:
    """An installed solver; `demo` is True for the demo solver, which solves nothing.

    `source_name` is the environment variable or the setting that names it. `scheduler` is the scheduler whose nodes
    have it; empty: this host, and nodes that have the same paths.
    """

    version: str
    path: str
    source: SolverSource = SolverSource.UNKNOWN
    source_name: str = ""
    demo: bool = False
    student: bool = False
    scheduler: str = ""


@dataclass(frozen=True)
class Preview:
    """Command or script that a submit would run; nothing was run or recorded."""

    argv: tuple[str, ...] = ()
    command_line: str = ""
    script: str = ""
    submit_command: str = ""
    working_directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    scheduler: str = ""
    reservation: Reservation | None = None


@dataclass(frozen=True)
class SubmitResult:
    """Result of one item of `submit_many`: either its job, without its configuration, or its error."""

    job: Job | None = None
    error: EdbJobsError | None = None
    existed: bool = False


@dataclass(frozen=True)
class JobResult:
    """Result for one job of a call on many: the job after it, or the error that it had.

    Attributes
    ----------
    name : str
        The job, as the filter named it or by uid.
    """

    name: str
    job: Job | None = None
    error: EdbJobsError | None = None


@dataclass(frozen=True)
class Snapshot:
    """Jobs, and the position after which `watch` misses no event."""

    jobs: tuple[Job, ...]
    position: Position


class LogPiece(bytes):
    """Bytes of an output, with the `offset` of the first byte, the job's `uid` and the `attempt`."""

    offset: int
    uid: str
    attempt: int

    def __new__(cls, data: bytes, offset: int, uid: str, attempt: int) -> LogPiece:
        """Create a piece."""
        piece = super().__new__(cls, data)
        piece.offset, piece.uid, piece.attempt = offset, uid, attempt
        return piece
