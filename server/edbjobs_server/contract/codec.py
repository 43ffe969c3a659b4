"""Between the core's values and the contract's messages.

Times are float seconds in the core and nanoseconds in a ``Timestamp``: every float later than April 1970
comes back bit for bit. What is worked out when answered (``waiting_reason``, ``waiting_detail``,
``jobs_before``, ``progress``) is never written here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edbjobs.v1 import event_pb2, job_config_pb2, job_pb2, resource_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.core.job import Attempt, Job, RetryPolicy, Spec
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.states import EventType, Evidence, Reason, State

V = TypeVar("V", int, str)
_JOB_CONFIG = job_pb2.Job.CONFIG_FIELD_NUMBER
_EVENT_JOB = event_pb2.Event.JOB_FIELD_NUMBER
_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_GRACE = 30.0
_SHORT = [bytes([value]) for value in range(0x80)]
# A look-up takes a tenth of the time of a call of the enumeration; a start makes jobs of all that wait.
_STATES = {state.value: state for state in State}
_REASONS = {reason.value: reason for reason in Reason}
_EVIDENCES = {evidence.value: evidence for evidence in Evidence}


@dataclass(slots=True)  # not frozen: that would take thrice as long to make, and one is made for each row
class Internals:
    """What of a job the contract's message does not tell; the store keeps it beside the message.

    Attributes
    ----------
    boot_ids : tuple of str
        Boot id of each attempt, oldest first.
    """

    seq: int
    project_path: str
    project_key: str
    request_id: str = ""
    digest: bytes = b""
    cancel_grace: float | None = None
    backing_off: bool = False
    unkillable: tuple[int, ...] = ()
    boot_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job) -> Internals:
        """Take them from a job."""
        return cls(
            seq=job.seq,
            project_path=job.spec.project_path,
            project_key=job.spec.project_key,
            request_id=job.request_id,
            digest=job.digest,
            cancel_grace=job.cancel_grace,
            backing_off=job.backing_off,
            unkillable=job.unkillable,
            boot_ids=tuple(attempt.boot_id for attempt in job.attempts),
        )


def timestamp(seconds: float) -> Timestamp:
    """Make a ``Timestamp`` of seconds since the epoch."""
    value = Timestamp()
    _set_time(value, seconds)
    return value


def _set_time(value: Timestamp, seconds: float) -> None:
    whole = math.floor(seconds)
    nanos = round((seconds - whole) * 1e9)
    value.seconds, value.nanos = (whole + 1, 0) if nanos == 1_000_000_000 else (whole, nanos)


def seconds(value: Timestamp | Duration) -> float:
    """Make seconds of a ``Timestamp`` or a ``Duration``."""
    return value.seconds + value.nanos / 1e9


def embedded(number: int, payload: bytes) -> bytes:
    """Encode a serialised message as field `number` of another one.

    Serialised messages may be put together by concatenation, which saves parsing what is only passed on.
    """
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    """Encode a number that is not negative as the wire format has it."""
    if value <= 0x7F:
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def job_to_message(job: Job) -> job_pb2.Job:
    """Make the contract's message of a job."""
    message = _without_config(job)
    if job.config:
        message.config.MergeFromString(job.config)
    return message


def job_to_bytes(job: Job) -> bytes:
    """Serialise a job as the contract's message, without parsing its configuration."""
    data = _without_config(job).SerializeToString()
    return data + embedded(_JOB_CONFIG, job.config) if job.config else data


def _without_config(job: Job) -> job_pb2.Job:
    """Make the message; what has its default is passed over, as most has in a new job and each field takes its time."""
    message = job_pb2.Job(
        uid=job.uid,
        id=job.id,
        user=job.user,
        executor=job.spec.executor,
        solver_version=job.solver_version,
        message=job.message,
        retry_of=job.retry_of,
        run_directory=job.run_directory,
    )
    message.state = job.state  # type: ignore[assignment]
    message.revision = job.revision
    message.cores = job.spec.cores
    _set_time(message.create_time, job.create_time)
    if job.priority:
        message.priority = job.priority
    if job.held:
        message.held = True
    if job.demo:
        message.demo = True
    if job.spec.memory_mib:
        message.memory_mib = job.spec.memory_mib
    if job.not_before:
        _set_time(message.not_before, job.not_before)
    if job.warnings:
        message.warnings.extend(job.warnings)
    if job.attempts:
        last = job.attempts[-1]
        message.attempt = last.number
        message.attempts.extend([_attempt_to_message(attempt) for attempt in job.attempts])
        message.scheduler_job_id = last.scheduler_job_id
    _put_outcome(message, job)
    return message


def _put_outcome(message: job_pb2.Job, job: Job) -> None:
    if job.start_time is not None:
        _set_time(message.start_time, job.start_time)
    if job.end_time is not None:
        _set_time(message.end_time, job.end_time)
    if job.cancel_time is not None:
        _set_time(message.cancel_time, job.cancel_time)
    if job.exit_code is not None:
        message.exit_code = job.exit_code
    if job.signal is not None:
        message.signal = job.signal
    if job.outcome_unknown:
        message.outcome_unknown = True
    if job.reason is not Reason.NONE:
        message.reason = job.reason  # type: ignore[assignment]
    if job.evidence is not Evidence.UNKNOWN:
        message.evidence = job.evidence  # type: ignore[assignment]


def _optional_time(value: float | None) -> Timestamp | None:
    return None if value is None else timestamp(value)


def _attempt_to_message(attempt: Attempt) -> job_pb2.Attempt:
    return job_pb2.Attempt(
        number=attempt.number,
        reserve_time=timestamp(attempt.reserve_time),
        start_time=_optional_time(attempt.start_time),
        end_time=_optional_time(attempt.end_time),
        nodes=attempt.nodes,
        pid=attempt.pid,
        scheduler_job_id=attempt.scheduler_job_id,
        reason=attempt.reason,  # type: ignore[arg-type]
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        cpu_seconds=attempt.cpu_seconds,
        max_rss_bytes=attempt.max_rss_bytes,
        message=attempt.message,
    )


def job_from_message(message: job_pb2.Job, internals: Internals) -> Job:
    """Make the core's job of its message; the reverse of `job_to_message` and `Internals.of`.

    The job's `spec` comes from the configuration, so it is the same again only if `spec_from_config` made it.
    """
    return Job(
        uid=message.uid,
        seq=internals.seq,
        id=message.id,
        spec=spec_from_config(
            message.config,
            project_path=internals.project_path,
            project_key=internals.project_key,
            executor=message.executor,
            cores=message.cores,
            memory_mib=message.memory_mib,
        ),
        create_time=seconds(message.create_time),
        state=_STATES[message.state],
        config=message.config.SerializeToString(deterministic=True),
        request_id=internals.request_id,
        digest=internals.digest,
        priority=message.priority,
        user=message.user,
        revision=message.revision,
        held=message.held,
        not_before=seconds(message.not_before) if message.HasField("not_before") else 0.0,
        backing_off=internals.backing_off,
        attempts=_attempts_from_messages(message.attempts, internals.boot_ids),
        start_time=seconds(message.start_time) if message.HasField("start_time") else None,
        end_time=seconds(message.end_time) if message.HasField("end_time") else None,
        cancel_time=seconds(message.cancel_time) if message.HasField("cancel_time") else None,
        cancel_grace=internals.cancel_grace,
        reason=_REASONS[message.reason],
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        evidence=_EVIDENCES[message.evidence],
        outcome_unknown=message.outcome_unknown,
        message=message.message,
        unkillable=internals.unkillable,
        retry_of=message.retry_of,
        warnings=tuple(message.warnings),
        solver_version=message.solver_version,
        demo=message.demo,
        run_directory=message.run_directory,
    )


def _attempts_from_messages(messages: Iterable[job_pb2.Attempt], boot_ids: tuple[str, ...]) -> tuple[Attempt, ...]:
    return tuple([_attempt_from_message(message, boot_ids[i]) for i, message in enumerate(messages)])


def _attempt_from_message(message: job_pb2.Attempt, boot_id: str) -> Attempt:
    return Attempt(
        number=message.number,
        reserve_time=seconds(message.reserve_time),
        boot_id=boot_id,
        start_time=seconds(message.start_time) if message.HasField("start_time") else None,
        end_time=seconds(message.end_time) if message.HasField("end_time") else None,
        nodes=tuple(message.nodes),
        pid=message.pid,
        scheduler_job_id=message.scheduler_job_id,
        reason=_REASONS[message.reason],
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        cpu_seconds=message.cpu_seconds,
        max_rss_bytes=message.max_rss_bytes,
        message=message.message,
    )


def spec_from_config(
    config: job_config_pb2.JobConfig,
    *,
    project_path: str,
    project_key: str,
    executor: str,
    cores: int,
    memory_mib: int,
) -> Spec:
    """Make what the core decides by out of a configuration and what the service resolved.

    The only way a `Spec` is made: a restart makes the same one again from what is on record, so a site's
    default that is not in the configuration must be put there before.

    Parameters
    ----------
    config : JobConfig
        As accepted.
    project_path : str
        As the run uses it.
    project_key : str
        Real path of the project without its suffix.
    executor : str
        ``local`` or the scheduler's name.
    cores, memory_mib : int
        Reserved on the service's host.
    """
    return Spec(
        project_path=project_path,
        project_key=project_key,
        executor=executor,
        cores=cores,
        memory_mib=memory_mib,
        licenses=_sorted_items(config.licenses),
        wall_clock_limit=seconds(config.wall_clock_limit) if config.HasField("wall_clock_limit") else None,
        cancel_grace=seconds(config.cancel_grace) if config.HasField("cancel_grace") else _DEFAULT_GRACE,
        scheduler_wait_limit=seconds(config.scheduler_wait_limit) if config.HasField("scheduler_wait_limit") else None,
        retry=_retry_from_message(config.retry) if config.HasField("retry") else _DEFAULT_RETRY,
        batch=config.batch,
        labels=_sorted_items(config.labels),
    )


def _sorted_items(mapping: Mapping[str, V]) -> tuple[tuple[str, V], ...]:
    return tuple(sorted(mapping.items())) if mapping else ()


def _retry_from_message(message: job_config_pb2.RetryPolicy) -> RetryPolicy:
    default = _DEFAULT_RETRY
    initial, longest = message.initial_backoff, message.max_backoff
    return RetryPolicy(
        max_attempts=max(1, message.max_attempts),
        reasons=frozenset(map(Reason, message.reasons)) if message.reasons else default.reasons,
        initial_backoff=seconds(initial) if message.HasField("initial_backoff") else default.initial_backoff,
        max_backoff=seconds(longest) if message.HasField("max_backoff") else default.max_backoff,
    )


def limits_to_message(limits: Limits) -> resource_pb2.Limits:
    """Make the contract's message of the limits."""
    return resource_pb2.Limits(
        max_concurrent_jobs=limits.max_concurrent_jobs,
        max_cores=limits.max_cores,
        max_memory_mib=limits.max_memory_mib,
        max_cluster_jobs=limits.max_cluster_jobs,
        licenses=limits.licenses,
        max_cpu_percent=limits.max_cpu_percent,
        min_memory_gb=limits.min_memory_gb,
        min_disk_gb=limits.min_disk_gb,
        default_user=_user_to_message(limits.default_user),
        users={name: _user_to_message(user) for name, user in limits.users.items()},
    )


def _user_to_message(user: UserLimits) -> resource_pb2.UserLimits:
    return resource_pb2.UserLimits(
        max_running_jobs=user.max_running_jobs, max_cores=user.max_cores, max_priority=user.max_priority
    )


def limits_from_message(message: resource_pb2.Limits) -> Limits:
    """Make the core's limits of the contract's message."""
    return Limits(
        max_concurrent_jobs=message.max_concurrent_jobs,
        max_cores=message.max_cores,
        max_memory_mib=message.max_memory_mib,
        max_cluster_jobs=message.max_cluster_jobs,
        licenses=dict(message.licenses),
        max_cpu_percent=message.max_cpu_percent,
        min_memory_gb=message.min_memory_gb,
        min_disk_gb=message.min_disk_gb,
        default_user=_user_from_message(message.default_user),
        users={name: _user_from_message(user) for name, user in message.users.items()},
    )


def _user_from_message(message: resource_pb2.UserLimits) -> UserLimits:
    return UserLimits(
        max_running_jobs=message.max_running_jobs,
        max_cores=message.max_cores,
        max_priority=message.max_priority if message.HasField("max_priority") else None,
    )


def event_to_bytes(
    revision: int,
    time: float,
    type: EventType,
    *,
    job: bytes = b"",
    limits: Limits | None = None,
    old_limits: Limits | None = None,
    principal: str = "",
    detail: str = "",
) -> bytes:
    """Serialise an event; `job` is a serialised ``Job``."""
    message = event_pb2.Event(principal=principal, detail=detail)
    message.revision = revision
    message.type = type  # type: ignore[assignment]
    _set_time(message.time, time)
    if limits is not None:
        message.limits.CopyFrom(limits_to_message(limits))
    if old_limits is not None:
        message.old_limits.CopyFrom(limits_to_message(old_limits))
    data = message.SerializeToString()
    return data + embedded(_EVENT_JOB, job) if job else data
