"""A job, its attempts and its outcome as frozen dataclasses.

Attribute names are those of the API; what the API leaves out is None. Times are aware datetimes, durations timedeltas;
units are part of the names or as in protos/edbjobs/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edbjobs._enums import Convergence, EndReason, Evidence, JobState, JobView, SolvePhase, WaitingReason
from edbjobs._exceptions import VersionError
from edbjobs._json import to_json

if TYPE_CHECKING:
    from edbjobs.config import JobConfig
    from edbjobs.v1 import job_config_pb2

__all__ = [
    "AdaptivePass",
    "Attempt",
    "Job",
    "JobProgress",
    "Outcome",
    "Reservation",
    "StartEstimate",
    "Waiting",
]


@dataclass(frozen=True)
class Outcome:
    """How a job, or one attempt of it, ended.

    Attributes
    ----------
    reason : EndReason, optional
        Why it ended.
    message : str
        A sentence for people: what happened, with the solver's first fatal line, and what to do.
    exit_code, signal : int, optional
        How the solver's process ended, where that is known; 0 is an exit code.
    evidence : Evidence, optional
        What the verdict rests on.
    convergence : Convergence, optional
        Whether the adaptive passes reached their target.
    """

    reason: EndReason | None = None
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    evidence: Evidence | None = None
    convergence: Convergence | None = None


@dataclass(frozen=True)
class Attempt:
    """One run of a job. Attempts are numbered from 1.

    Attributes
    ----------
    nodes : tuple of str
        Hosts that it ran on, as names or ranges in the scheduler's form.
    pid : int, optional
        Process id of the solver on the first node.
    outcome : Outcome, optional
        How it ended; set if and only if `end_time` is.
    cpu_duration : timedelta, optional
        Processor time of the solver and its children.
    peak_memory_bytes : int, optional
        Largest resident memory of any one of its processes.
    run_directory : str
        Folder with its output, on the service's host or on the file system that the cluster shares.
    """

    number: int
    reserve_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    nodes: tuple[str, ...] = ()
    pid: int | None = None
    scheduler_job_id: str = ""
    outcome: Outcome | None = None
    cpu_duration: timedelta | None = None
    peak_memory_bytes: int | None = None
    run_directory: str = ""


@dataclass(frozen=True)
class AdaptivePass:
    """One adaptive pass as the solver reports it; what it does not report is None."""

    number: int = 0
    frequency_hz: float | None = None
    elements: int | None = None
    matrix_size: int | None = None
    delta_name: str = ""
    delta: float | None = None
    elapsed_duration: timedelta | None = None
    cpu_duration: timedelta | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class JobProgress:
    """Progress of a running solve; what is not known is None.

    Attributes
    ----------
    last_pass : AdaptivePass, optional
        The last finished adaptive pass.
    current_pass : int, optional
        Number of the pass that is going on.
    fraction : float, optional
        Share of the job that is done, 0 to 1.
    min_remaining, max_remaining : timedelta, optional
        Bounds of the remaining time, not guaranteed.
    read_time : datetime, optional
        When this was read from the solver's files.
    """

    phase: SolvePhase | None = None
    design: str = ""
    setup: str = ""
    sweep: str = ""
    last_pass: AdaptivePass | None = None
    current_pass: int | None = None
    max_passes: int | None = None
    target_delta: float | None = None
    frequencies_solved: int | None = None
    frequencies_total: int | None = None
    fraction: float | None = None
    min_remaining: timedelta | None = None
    max_remaining: timedelta | None = None
    read_time: datetime | None = None


@dataclass(frozen=True)
class StartEstimate:
    """When a waiting job is expected to start, and what that rests on; not guaranteed."""

    earliest_time: datetime | None = None
    latest_time: datetime | None = None
    basis: str = ""


@dataclass(frozen=True)
class Waiting:
    """What keeps a job from starting, or from ending.

    Attributes
    ----------
    reason : WaitingReason, optional
        The reason; ``unknown`` for one of a newer service: show `message`.
    message : str
        The same as a sentence, with numbers and names.
    jobs_before : int, optional
        Number of jobs that come before it; None: order does not matter.
    since_time : datetime, optional
        Since when.
    next_attempt_time : datetime, optional
        It is not tried before this time.
    start_estimate : StartEstimate, optional
        When it is expected to start.
    """

    reason: WaitingReason | None = None
    message: str = ""
    jobs_before: int | None = None
    since_time: datetime | None = None
    next_attempt_time: datetime | None = None
    start_estimate: StartEstimate | None = None


@dataclass(frozen=True)
class Reservation:
    """What a job takes from the limits while it runs; `memory_bytes` is 0 if none was declared."""

    cores: int = 0
    memory_bytes: int = 0
    licenses: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job, as it was at the time of the response.

    Attributes
    ----------
    uid : str
        Unique id, generated by the service and never used again.
    id : str
        Name given by the client; in requests it refers to the newest job with this id.
    state : JobState
        What it is doing; ``unknown`` for a state of a newer service.
    end_time : datetime, optional
        When it ended; see `ended`.
    waiting : Waiting, optional
        What keeps it from starting, or from ending; None: nothing does.
    outcome : Outcome, optional
        How it ended; set if and only if `end_time` is.
    attempts, warnings : tuple
        Empty unless `view` is FULL.
    reservation : Reservation
        What it takes from the limits while it runs.
    progress : JobProgress, optional
        How far it is; None before the first report, and in events.
    scheduler : str
        Where it runs: ``local`` or the scheduler's name.
    demo : bool
        Run by the demo solver: nothing was really solved.
    project_path : str
        Path that is solved, links resolved.
    retry_of, superseded_by : str
        uid of the job that this one retries, and of the one that retries it.
    view : JobView, optional
        How much of the job this is. With BASIC, `config_message` is a summary.
    """

    uid: str
    id: str
    state: JobState
    priority: int = 0
    user: str = ""
    revision: int = 0
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    cancel_request_time: datetime | None = None
    held: bool = False
    waiting: Waiting | None = None
    outcome: Outcome | None = None
    attempt_count: int = 0
    attempts: tuple[Attempt, ...] = ()
    reservation: Reservation = field(default_factory=Reservation)
    progress: JobProgress | None = None
    scheduler: str = ""
    scheduler_job_id: str = ""
    aedt_version: str = ""
    demo: bool = False
    project_path: str = ""
    retry_of: str = ""
    superseded_by: str = ""
    warnings: tuple[str, ...] = ()
    view: JobView | None = None
    config_message: job_config_pb2.JobConfig | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """True if it has ended and cannot change any more."""
        return self.end_time is not None

    @property
    def batch(self) -> str:
        """Name of the job's batch; empty: none."""
        return self.config_message.batch if self.config_message is not None else ""

    @cached_property
    def config(self) -> JobConfig | None:
        """Configuration of the job; None if only a summary of it was sent: see `view`.

        Raises
        ------
        VersionError
            If it has values this release does not define; `config_message` still has them.
        """
        # Converted on access: a list of thousands of jobs needs none of them, and a value of a newer service in a
        # configuration must not make the job itself unreadable.
        from pydantic import ValidationError

        from edbjobs.config import JobConfig, field_errors

        if self.config_message is None or self.view is JobView.BASIC:
            return None
        try:
            return JobConfig.from_message(self.config_message)
        except ValidationError as error:
            raise VersionError(
                f"job {self.id}: its configuration has values that this release of the client does not support; "
                "upgrade the client",
                reason="UNKNOWN_CONFIG",
                fields=field_errors(error, "config"),
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the job as JSON values; of a BASIC job, `config` is the summary that was sent."""
        values: dict[str, Any] = to_json(self)
        del values["config_message"]
        if self.view is JobView.BASIC and self.config_message is not None:
            from google.protobuf.json_format import MessageToDict

            values["config"] = MessageToDict(self.config_message, preserving_proto_field_name=True)
        else:
            values["config"] = self.config.to_dict() if self.config is not None else None
        return values
