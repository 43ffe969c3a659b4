"""A job as an immutable value: a change makes a new one."""

from __future__ import annotations

from dataclasses import dataclass, field

from edbjobs_server.core.states import Evidence, Reason, State

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When an ended attempt is followed by another one.

    Attributes
    ----------
    max_attempts : int
        Attempts in all, at least 1.
    reasons : frozenset of Reason
        Reasons that are followed by another attempt.
    initial_backoff, max_backoff : float
        Wait before the second attempt, doubled for each further one, and its bound, in seconds.
    """

    max_attempts: int = 1
    reasons: frozenset[Reason] = frozenset({Reason.LICENSE, Reason.NODE_FAIL, Reason.PREEMPTED})
    initial_backoff: float = 10.0
    max_backoff: float = 600.0

    def backoff(self, attempts: int) -> float:
        """Return the wait, in seconds, after a number of attempts."""
        return min(self.max_backoff, self.initial_backoff * 2.0 ** min(attempts - 1, 32))


@dataclass(frozen=True, slots=True)
class Spec:
    """The part of a job's configuration that scheduling decisions use.

    Attributes
    ----------
    project_path : str
        Real path, as the run uses it.
    project_key : str
        Real path without .aedb, .aedt or .aedtz: one key, one run at a time.
    executor : str
        ``local`` or the name of a cluster's scheduler.
    cores, memory_mib : int
        Reserved on the host. `cores` is at least 1.
    licenses : tuple of (str, int)
        Tokens by feature, sorted.
    wall_clock_limit : float or None
        Longest run in seconds.
    cancel_grace : float
        Seconds between TERM and KILL.
    scheduler_wait_limit : float or None
        Longest wait, in seconds, for a scheduler that does not respond.
    """

    project_path: str
    project_key: str
    executor: str = LOCAL
    cores: int = 1
    memory_mib: int = 0
    licenses: tuple[tuple[str, int], ...] = ()
    wall_clock_limit: float | None = None
    cancel_grace: float = 30.0
    scheduler_wait_limit: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    batch: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job; numbered from 1, a number is never used twice."""

    number: int
    reserve_time: float
    boot_id: str = ""
    start_time: float | None = None
    end_time: float | None = None
    nodes: tuple[str, ...] = ()
    pid: int = 0
    scheduler_job_id: str = ""
    reason: Reason = Reason.NONE
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job.

    Attributes
    ----------
    seq : int
        Order of acceptance.
    requested_by : str
        Name of the caller whose `request_id` it is.
    digest : bytes
        Fingerprint of the request, by which a repetition is recognized.
    superseded_by : str
        uid of the job that retries it.
    config : bytes
        Serialized ``JobConfig``; the core does not parse it.
    attempts : tuple of Attempt
        Oldest first. The last one is open while its ``end_time`` is None: its resources are reserved.
    not_before : float
        Not started before this time.
    backing_off : bool
        `not_before` was set by a retry, not by the user.
    run_directory : str
        Folder of the last attempt.
    """

    uid: str
    seq: int
    id: str
    spec: Spec
    create_time: float
    state: State = State.QUEUED
    config: bytes = b""
    requested_by: str = ""
    request_id: str = ""
    digest: bytes = b""
    priority: int = 0
    user: str = ""
    revision: int = 0
    held: bool = False
    not_before: float = 0.0
    backing_off: bool = False
    attempts: tuple[Attempt, ...] = ()
    start_time: float | None = None
    end_time: float | None = None
    cancel_time: float | None = None
    cancel_grace: float | None = None
    reason: Reason = Reason.NONE
    exit_code: int | None = None
    signal: int | None = None
    evidence: Evidence = Evidence.UNKNOWN
    outcome_unknown: bool = False
    message: str = ""
    unkillable: tuple[int, ...] = ()
    retry_of: str = ""
    superseded_by: str = ""
    warnings: tuple[str, ...] = ()
    solver_version: str = ""
    demo: bool = False
    run_directory: str = ""

    @property
    def attempt(self) -> int:
        """Number of the current or last attempt; 0: none yet."""
        return self.attempts[-1].number if self.attempts else 0

    @property
    def scheduler_job_id(self) -> str:
        """Id of the last attempt with its cluster's scheduler; empty: none."""
        return self.attempts[-1].scheduler_job_id if self.attempts else ""

    @property
    def open_attempt(self) -> Attempt | None:
        """The attempt that holds resources now; None: none does."""
        if self.attempts and self.attempts[-1].end_time is None:
            return self.attempts[-1]
        return None

    @property
    def order(self) -> tuple[int, int]:
        """Sort key of the queue: higher priority first, first come first served within."""
        return (-self.priority, self.seq)
