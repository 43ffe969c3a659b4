"""What the service answers, as frozen values.

Attribute names are those of the contract, except the times and the state of a job: `status`, `created`, `started`,
`ended`. Times are aware datetimes; sizes and units are in the names or as in protos/edbjobs/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edbjobs._enums import EndReason, EventType, Evidence, JobStatus, Role, WaitingReason
from edbjobs._exceptions import EdbJobsError, VersionError
from edbjobs._json import to_json

if TYPE_CHECKING:
    from edbjobs.config import HFSSSimulationConfig
    from edbjobs.v1 import job_config_pb2

__all__ = [
    "Attempt",
    "ClusterJob",
    "DiskUsage",
    "Event",
    "Identity",
    "Job",
    "JobProgress",
    "Limits",
    "LogPiece",
    "Partition",
    "Preview",
    "QueueStatus",
    "ResourceSnapshot",
    "SchedulerStatus",
    "Snapshot",
    "Solver",
    "SubmitResult",
    "SystemStatus",
    "UserLimits",
]


@dataclass(frozen=True)
class Attempt:
    """One run of a job. Attempts are numbered from 1."""

    number: int
    reserved: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    nodes: tuple[str, ...] = ()
    pid: int = 0
    scheduler_job_id: str = ""
    reason: EndReason | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    message: str = ""


@dataclass(frozen=True)
class JobProgress:
    """How far a running solve is; `fraction` is None where that cannot be told."""

    setup: str = ""
    adaptive_pass: int = 0
    max_passes: int = 0
    delta_s: float | None = None
    target_delta_s: float | None = None
    elements: int = 0
    frequencies_solved: int = 0
    frequencies_total: int = 0
    fraction: float | None = None
    phase: str = ""


@dataclass(frozen=True)
class Job:
    """A job as it was when the service answered.

    Attributes
    ----------
    uid : str
        Made by the service, unique for ever.
    id : str
        The client's name for it; addresses the newest job that bears it.
    status : JobStatus
        ``status.ended`` tells whether it can still change. ``unknown`` for a state of a newer service.
    waiting_reason : WaitingReason, optional
        Why it is not running, or not ended, yet; with `waiting_detail` for people.
    reason : EndReason, optional
        Why it ended as it did; None while it has not.
    evidence : Evidence, optional
        On what that rests.
    message : str
        A sentence for people, with the log's first fatal line.
    run_directory : str
        Folder on the service's host with the last attempt's output.
    demo : bool
        Run by the stand-in solver: nothing was really solved.
    """

    uid: str
    id: str
    status: JobStatus
    priority: int = 0
    user: str = ""
    revision: int = 0
    created: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    cancel_requested: datetime | None = None
    held: bool = False
    waiting_reason: WaitingReason | None = None
    waiting_detail: str = ""
    jobs_before: int = 0
    reason: EndReason | None = None
    exit_code: int | None = None
    signal: int | None = None
    evidence: Evidence | None = None
    outcome_unknown: bool = False
    message: str = ""
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    retry_of: str = ""
    warnings: tuple[str, ...] = ()
    executor: str = ""
    scheduler_job_id: str = ""
    solver_version: str = ""
    demo: bool = False
    cores: int = 0
    memory_mib: int = 0
    progress: JobProgress | None = None
    not_before: datetime | None = None
    run_directory: str = ""
    config_message: job_config_pb2.JobConfig | None = field(default=None, repr=False)

    @property
    def project_path(self) -> str:
        """Project that is solved; empty where the job was listed without its configuration."""
        return self.config_message.project_path if self.config_message is not None else ""

    @property
    def batch(self) -> str:
        """Batch it belongs to; empty: none."""
        return self.config_message.batch if self.config_message is not None else ""

    @cached_property
    def config(self) -> HFSSSimulationConfig | None:
        """What was asked for; None where the job was listed without it.

        Raises
        ------
        VersionError
            If it holds something this release does not know; `config_message` has it all the same.
        """
        # Made only when asked for: a list of thousands needs none of it, and what a newer service put into a
        # configuration must not make the job itself unreadable.
        from pydantic import ValidationError

        from edbjobs.config import HFSSSimulationConfig, field_errors

        if self.config_message is None:
            return None
        try:
            return HFSSSimulationConfig.from_message(self.config_message, jobid=self.id, user=self.user)
        except ValidationError as error:
            raise VersionError(
                f"job {self.id}: its configuration has values that this release of the client does not know; "
                "upgrade the client",
                reason="UNKNOWN_CONFIG",
                fields=field_errors(error, "config"),
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Write it with JSON values only; `config` in its documented form."""
        values: dict[str, Any] = to_json(self)
        del values["config_message"]
        values["config"] = self.config.to_dict() if self.config is not None else None
        return values


@dataclass(frozen=True)
class DiskUsage:
    """Space on one volume."""

    path: str
    total_bytes: int = 0
    free_bytes: int = 0
    used_percent: float = 0.0


@dataclass(frozen=True)
class ResourceSnapshot:
    """The host at one moment."""

    time: datetime | None = None
    cpu_percent: float = 0.0
    foreign_cpu_percent: float = 0.0
    cpu_count: int = 0
    memory_percent: float = 0.0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    disks: tuple[DiskUsage, ...] = ()


@dataclass(frozen=True)
class UserLimits:
    """Caps of one user: 0 is no cap, and None no ceiling of priority."""

    max_running_jobs: int = 0
    max_cores: int = 0
    max_priority: int | None = None


@dataclass(frozen=True)
class Limits:
    """What the service may use; the meaning of 0 is as in ``edbjobs.v1.Limits``."""

    max_concurrent_jobs: int = 1
    max_cores: int = 0
    max_memory_mib: int = 0
    max_cluster_jobs: int = 0
    licenses: Mapping[str, int] = field(default_factory=dict)
    max_cpu_percent: float = 0.0
    min_memory_gb: float = 0.0
    min_disk_gb: float = 0.0
    default_user: UserLimits | None = None
    users: Mapping[str, UserLimits] = field(default_factory=dict)


@dataclass(frozen=True)
class QueueStatus:
    """The queue at one moment; `gate` says which gate is shut, empty: none."""

    queued: int = 0
    queued_by_priority: Mapping[int, int] = field(default_factory=dict)
    running: int = 0
    scheduled: int = 0
    held: int = 0
    paused: bool = False
    draining: bool = False
    max_concurrent_jobs: int = 0
    cores_reserved: int = 0
    memory_reserved_mib: int = 0
    licenses_reserved: Mapping[str, int] = field(default_factory=dict)
    gate: str = ""


@dataclass(frozen=True)
class Event:
    """One change: `job` is the whole job after it, `revision` grows strictly over the whole service."""

    revision: int
    time: datetime | None
    type: EventType
    job: Job | None = None
    limits: Limits | None = None
    old_limits: Limits | None = None
    principal: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Identity:
    """Who the caller is to the service."""

    name: str = ""
    role: Role = Role.UNKNOWN
    door: str = ""


@dataclass(frozen=True)
class SchedulerStatus:
    """A scheduler the service can hand jobs to, and whether it answers."""

    name: str
    answering: bool = False
    since: datetime | None = None
    version: str = ""
    error: str = ""


@dataclass(frozen=True)
class SystemStatus:
    """What the service is and whether its parts answer."""

    service: str
    version: str
    api_level: int
    features: tuple[str, ...] = ()
    store_id: str = ""
    revision: int = 0
    schedulers: tuple[SchedulerStatus, ...] = ()
    limits: Limits | None = None
    identity: Identity | None = None
    account: str = ""
    host: str = ""
    started: datetime | None = None
    draining: bool = False
    store_writable: bool = False
    warnings: tuple[str, ...] = ()
    queue: QueueStatus | None = None
    resources: ResourceSnapshot | None = None
    pid: int = 0
    state_directory: str = ""


@dataclass(frozen=True)
class Partition:
    """A partition or queue of a cluster."""

    name: str
    default: bool = False
    state: str = ""
    nodes_total: int = 0
    nodes_used: int = 0
    nodes_free: int = 0
    cores_total: int = 0
    cores_used: int = 0
    cores_free: int = 0
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    time_limit_seconds: int = 0
    scheduler: str = ""


@dataclass(frozen=True)
class ClusterJob:
    """A job of the cluster, this service's or another's; `job_uid` is empty for another's."""

    scheduler_job_id: str
    name: str = ""
    user: str = ""
    partition: str = ""
    state: str = ""
    reason: str = ""
    nodes: int = 0
    cores: int = 0
    nodelist: str = ""
    job_uid: str = ""
    started: datetime | None = None


@dataclass(frozen=True)
class Solver:
    """An installed solver; `demo` marks the stand-in, which solves nothing.

    `scheduler` names the one whose nodes run it; empty: this host, and nodes that see the same paths.
    """

    version: str
    path: str
    source: str = ""
    demo: bool = False
    student: bool = False
    scheduler: str = ""


@dataclass(frozen=True)
class Preview:
    """What would be run; nothing was run or recorded."""

    argv: tuple[str, ...] = ()
    command_line: str = ""
    script: str = ""
    submit_command: str = ""
    working_directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    executor: str = ""


@dataclass(frozen=True)
class SubmitResult:
    """What became of one item of `submit_many`: either its job or its error."""

    job: Job | None = None
    error: EdbJobsError | None = None
    existed: bool = False


@dataclass(frozen=True)
class Snapshot:
    """Jobs, and the revision they stand for: watch from `revision` of store `store_id` to miss nothing."""

    jobs: tuple[Job, ...]
    revision: int
    store_id: str


class LogPiece(bytes):
    """Bytes of an output that know where they stand: `offset` of the first of them, and their `attempt`."""

    offset: int
    attempt: int

    def __new__(cls, data: bytes, offset: int, attempt: int) -> LogPiece:
        """Make a piece."""
        piece = super().__new__(cls, data)
        piece.offset, piece.attempt = offset, attempt
        return piece
