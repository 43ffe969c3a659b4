"""A job as an immutable value: a change makes a new one."""

from __future__ import annotations

from dataclasses import dataclass

from edbjobs_server.core.states import Evidence, Reason, State

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """When a failed attempt is followed by another one.

    Attributes
    ----------
    max_attempts : int
        Attempts in all, at least 1.
    reasons : frozenset of Reason
        Reasons that are followed by another attempt.
    initial_delay, max_delay : float
        Delay before the second attempt, doubled for each further one, and its bound, in seconds.
    """

    max_attempts: int = 3
    reasons: frozenset[Reason] = frozenset({Reason.LICENSE, Reason.NODE_FAIL, Reason.PREEMPTED})
    initial_delay: float = 10.0
    max_delay: float = 600.0

    def delay(self, attempts: int) -> float:
        """Return the delay, in seconds, after a number of attempts."""
        return min(self.max_delay, self.initial_delay * 2.0 ** min(attempts - 1, 32))


NO_RETRY = RetryOptions(max_attempts=1)


@dataclass(frozen=True, slots=True)
class Spec:
    """The part of a job's configuration that scheduling decisions use.

    Attributes
    ----------
    project_path : str
        Real path, as the run uses it.
    project_key : str
        Real path without .aedb, .aedt or .aedtz: one key, one run at a time.
    scheduler : str
        ``local`` or the name of a cluster's scheduler.
    cores, memory_bytes : int
        Reserved on the host, or asked of the scheduler for all nodes together, as far as that is known. `cores` is at
        least 1.
    licenses : tuple of (str, int)
        Tokens by feature, sorted; at least 1 each.
    time_limit : float or None
        Longest run in seconds; 0: unlimited. None: unlimited on the host, the partition's limit on a cluster.
    cancel_grace_period : float
        Seconds between TERM and KILL.
    scheduler_wait_limit : float or None
        Longest wait, in seconds, for a scheduler that does not respond.
    """

    project_path: str
    project_key: str
    scheduler: str = LOCAL
    cores: int = 1
    memory_bytes: int = 0
    licenses: tuple[tuple[str, int], ...] = ()
    time_limit: float | None = None
    cancel_grace_period: float = 30.0
    scheduler_wait_limit: float | None = None
    retry: RetryOptions = NO_RETRY
    batch: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job, or one attempt of it, ended.

    Attributes
    ----------
    message : str
        A sentence: what happened, and what to do.
    exit_code, signal : int or None
        How the solver's process ended, where that is known.
    """

    reason: Reason
    evidence: Evidence
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job; numbered from 1, a number is never used twice.

    Attributes
    ----------
    pid : int or None
        Of the solver on the first node; None: not known.
    outcome : Outcome or None
        Set with `end_time`.
    cpu_duration : float or None
        Processor time in seconds; None: not known.
    peak_memory_bytes : int or None
        Largest resident memory of any one of its processes; None: not known.
    run_directory : str
        Folder with its output.
    """

    number: int
    reserve_time: float
    boot_id: str = ""
    start_time: float | None = None
    end_time: float | None = None
    nodes: tuple[str, ...] = ()
    pid: int | None = None
    scheduler_job_id: str = ""
    outcome: Outcome | None = None
    cpu_duration: float | None = None
    peak_memory_bytes: int | None = None
    run_directory: str = ""

    @property
    def has_run(self) -> bool:
        """Whether it is one that counts: it has ended, and not because its start came to nothing."""
        return self.outcome is not None and self.outcome.reason is not Reason.NOT_STARTED


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
    config : bytes
        Serialized ``JobConfig``; the core does not parse it.
    summary : bytes
        The part of `config` that every answer has, serialized likewise.
    attempts : tuple of Attempt
        Oldest first. The last one is open while its ``end_time`` is None: its resources are reserved.
    next_attempt_time : float
        Not started before this time.
    backing_off : bool
        `next_attempt_time` was set by a retry, not by the user.
    waiting_message : str
        Why it waits for another attempt.
    outcome : Outcome or None
        Set with `end_time`.
    superseded_by : str
        uid of the job that retries it; empty: none does.
    """

    uid: str
    seq: int
    id: str
    spec: Spec
    create_time: float
    state: State = State.QUEUED
    config: bytes = b""
    summary: bytes = b""
    requested_by: str = ""
    request_id: str = ""
    digest: bytes = b""
    priority: int = 0
    user: str = ""
    revision: int = 0
    held: bool = False
    next_attempt_time: float = 0.0
    backing_off: bool = False
    waiting_message: str = ""
    attempts: tuple[Attempt, ...] = ()
    start_time: float | None = None
    end_time: float | None = None
    cancel_request_time: float | None = None
    cancel_grace_period: float | None = None
    outcome: Outcome | None = None
    unkillable: tuple[int, ...] = ()
    retry_of: str = ""
    superseded_by: str = ""
    warnings: tuple[str, ...] = ()
    aedt_version: str = ""
    demo: bool = False

    @property
    def attempt_count(self) -> int:
        """Number of the current or last attempt; 0: none yet."""
        return self.attempts[-1].number if self.attempts else 0

    @property
    def scheduler_job_id(self) -> str:
        """Id of the last attempt with its cluster's scheduler; empty: none."""
        return self.attempts[-1].scheduler_job_id if self.attempts else ""

    @property
    def run_directory(self) -> str:
        """Folder of the last attempt; empty: there was none."""
        return self.attempts[-1].run_directory if self.attempts else ""

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
