"""Between the core's values and the contract's messages.

A field that has one name in the dataclass and in the message needs nothing here; the tables below have the others.
Times are float seconds in the core and nanoseconds in a ``Timestamp``: every float later than April 1970
comes back bit for bit. What is computed for an answer (``waiting``, ``progress``) is never written here.

A job is serialized in parts, because each part changes at its own time and serialized messages may be put together by
concatenation: the fields of ``JOB_VIEW_BASIC``, at every change; the attempts; and the rest, which never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

from edbjobs.v1 import convergence_pb2, event_pb2, job_config_pb2, job_pb2, principal_pb2, resource_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.mapper import Mapper, set_time
from edbjobs_server.contract.mapper import seconds as seconds
from edbjobs_server.core.job import Attempt, Job, Outcome, RetryOptions, Spec
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.own_wait import own_wait
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import EventType, Evidence, Reason, Waiting
from edbjobs_server.solver.progress import Progress

_CONFIG = job_pb2.Job.CONFIG_FIELD_NUMBER
_ATTEMPTS = job_pb2.Job.ATTEMPTS_FIELD_NUMBER
_RESERVATION = job_pb2.Job.RESERVATION_FIELD_NUMBER
_WAITING = job_pb2.Job.WAITING_FIELD_NUMBER
_BASIC = job_pb2.Job(view=job_pb2.JOB_VIEW_BASIC).SerializeToString()
FULL = job_pb2.Job(view=job_pb2.JOB_VIEW_FULL).SerializeToString()  # appended to a job, it is read as a whole one
_SUMMARY = ("project_path", "design", "setup", "batch", "labels")
_JOB_CHANGE = event_pb2.WatchEvent.JOB_CHANGE_FIELD_NUMBER
_CHANGED_JOB = event_pb2.JobChange.JOB_FIELD_NUMBER
_DEFAULT_RETRY = RetryOptions()
_SHORT = [bytes([value]) for value in range(0x80)]


class Internals(NamedTuple):
    """The part of a job that is not in the contract's message; the store keeps it beside the message.

    Its fields are columns of the store, in this order.

    Attributes
    ----------
    boot_ids : tuple of str
        Boot id of each attempt, oldest first.
    """

    seq: int
    project_key: str
    requested_by: str = ""
    request_id: str = ""
    digest: bytes = b""
    cancel_grace_period: float | None = None
    next_attempt_time: float = 0.0
    backing_off: bool = False
    waiting_message: str = ""
    unkillable: tuple[int, ...] = ()
    boot_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job) -> Internals:
        """Return those of a job."""
        boot_ids = tuple([attempt.boot_id for attempt in job.attempts]) if job.attempts else ()
        return cls._make((*_internals(job), boot_ids))


_OF_SPEC = ("project_key",)
_OF_JOB = tuple(name for name in Internals._fields if name in Job.__dataclass_fields__)
_internals = attrgetter(*(f"spec.{name}" if name in _OF_SPEC else name for name in Internals._fields[:-1]))
_job_values = attrgetter(*_OF_JOB)


def _of_job(internals: Internals) -> dict[str, Any]:
    return dict(zip(_OF_JOB, _job_values(internals), strict=True))


def _sorted_items(mapping: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(mapping.items())) if mapping else ()


def _needed(licenses: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, count) for name, count in licenses.items() if count)) if licenses else ()


def _each(convert: Callable[[Any], Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda items: {name: convert(item) for name, item in items.items()}


_OUTCOME = Mapper(Outcome, job_pb2.Outcome, read={"reason": Reason, "evidence": Evidence})
_ATTEMPT = Mapper(
    Attempt,
    job_pb2.Attempt,
    write={"outcome": _OUTCOME.to_message},
    read={"outcome": _OUTCOME.from_message},
)
_RETRY = Mapper(
    RetryOptions,
    job_config_pb2.RetryOptions,
    read={
        "reasons": lambda numbers: frozenset(map(Reason, numbers)) if numbers else _DEFAULT_RETRY.reasons,
    },
)
_SPEC = Mapper(
    Spec,
    job_config_pb2.JobConfig,
    read={"licenses": _needed, "labels": _sorted_items, "retry": _RETRY.from_message},
    given=("project_path", "scheduler", "cores", "memory_bytes"),
)
_JOB = Mapper(
    Job,
    job_pb2.Job,
    paths={
        "scheduler": "spec.scheduler",
        "project_path": "spec.project_path",
        "attempt_count": "attempt_count",
        "scheduler_job_id": "scheduler_job_id",
    },
    write={"outcome": _OUTCOME.to_message},
    read={"outcome": _OUTCOME.from_message},
    given=("config", "attempts", "warnings"),
)
_PROGRESS = Mapper(
    Progress,
    convergence_pb2.JobProgress,
    write={"phase": lambda word: convergence_pb2.SolvePhase.Value(f"SOLVE_PHASE_{word.upper()}")},
    given=("last_pass",),
)
_USER = Mapper(UserLimits, resource_pb2.UserLimits)
_PRINCIPAL = Mapper(Principal, principal_pb2.Principal)
_LIMITS = Mapper(
    Limits,
    resource_pb2.Limits,
    write={"default_user": _USER.to_message, "users": _each(_USER.to_message)},
    read={"licenses": dict, "default_user": _USER.from_message, "users": _each(_USER.from_message)},
)


def timestamp(seconds: float) -> Timestamp:
    """Make a ``Timestamp`` of seconds since the epoch."""
    value = Timestamp()
    set_time(value, seconds)
    return value


def stored_seconds(seconds_: float) -> float:
    """Return a duration as it comes back from a message: to the nanosecond."""
    value = Duration()
    set_time(value, seconds_)
    return seconds(value)


def embedded(number: int, payload: bytes) -> bytes:
    """Encode a serialized message as field `number` of another one.

    Serialized messages may be put together by concatenation, which saves parsing what is only passed on.
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


def summary_of(config: job_config_pb2.JobConfig) -> bytes:
    """Serialize what ``JOB_VIEW_BASIC`` has of a configuration."""
    summary = job_config_pb2.JobConfig(**{name: getattr(config, name) for name in _SUMMARY})
    return summary.SerializeToString(deterministic=True)


def basic_bytes(job: Job) -> bytes:
    """Serialize a job as ``JOB_VIEW_BASIC``: the configuration's summary comes last, see `without_config`."""
    spec = job.spec
    reserved = _reservation(spec.cores, spec.memory_bytes, spec.licenses)
    return _JOB.to_message(job).SerializeToString() + reserved + _BASIC + embedded(_CONFIG, job.summary)


def without_config(basic: bytes, job: Job) -> bytes:
    """Return what `basic_bytes` made of a job without its configuration."""
    return basic[: -len(embedded(_CONFIG, job.summary))]


@lru_cache(256)
def _reservation(cores: int, memory_bytes: int, licenses: tuple[tuple[str, int], ...]) -> bytes:
    """Serialize a reservation; cached, as most jobs of a sweep have the same."""
    message = job_pb2.Reservation(cores=cores, memory_bytes=memory_bytes, licenses=dict(licenses))
    return embedded(_RESERVATION, message.SerializeToString(deterministic=True))


def attempts_bytes(job: Job) -> bytes:
    """Serialize the attempts of a job, to be appended to it."""
    return b"".join([embedded(_ATTEMPTS, _ATTEMPT.to_message(attempt).SerializeToString()) for attempt in job.attempts])


def rest_bytes(job: Job) -> bytes:
    """Serialize what of a whole job is neither in `basic_bytes` nor in `attempts_bytes`, to be appended to it."""
    config: Any = job_config_pb2.JobConfig.FromString(job.config)
    for name in _SUMMARY:
        config.ClearField(name)
    rest = job_pb2.Job(warnings=job.warnings).SerializeToString()
    return rest + embedded(_CONFIG, config.SerializeToString(deterministic=True))


def job_to_bytes(job: Job) -> bytes:
    """Serialize a job as ``JOB_VIEW_FULL``."""
    return basic_bytes(job) + attempts_bytes(job) + rest_bytes(job) + FULL


def job_to_message(job: Job) -> job_pb2.Job:
    """Return the message of a job, as ``JOB_VIEW_FULL``."""
    return job_pb2.Job.FromString(job_to_bytes(job))


def waiting_to_message(
    reason: Waiting, message: str, before: int | None = None, next_attempt_time: float = 0.0
) -> job_pb2.Waiting:
    """Return the message of why a job waits."""
    waiting = job_pb2.Waiting(message=message, jobs_before=before)
    waiting.reason = reason  # type: ignore[assignment]
    if next_attempt_time:
        set_time(waiting.next_attempt_time, next_attempt_time)
    return waiting


def waiting_bytes(reason: Waiting, message: str, before: int | None = None, next_attempt_time: float = 0.0) -> bytes:
    """Serialize why a job waits, to be appended to it."""
    return embedded(_WAITING, waiting_to_message(reason, message, before, next_attempt_time).SerializeToString())


def own_waiting_bytes(job: Job) -> bytes:
    """Serialize why a job waits as far as its own change says it, to be appended to the job of an event."""
    block = own_wait(job)
    if block is None:
        return b""
    delayed = block.reason in (Waiting.BACK_OFF, Waiting.NOT_BEFORE)
    return waiting_bytes(block.reason, block.detail, None, job.next_attempt_time if delayed else 0.0)


def job_from_message(message: job_pb2.Job, internals: Internals) -> Job:
    """Return the job of a whole message; the reverse of `job_to_message` and `Internals.of`.

    The job's `spec` comes from the configuration, so it is the same again only if `spec_from_config` made it.
    """
    config = message.config
    spec = spec_from_config(
        config,
        project_path=message.project_path,
        project_key=internals.project_key,
        scheduler=message.scheduler,
        cores=message.reservation.cores,
        memory_bytes=message.reservation.memory_bytes,
    )
    return _JOB.from_message(
        message,
        spec=spec,
        config=config.SerializeToString(deterministic=True),
        summary=summary_of(config),
        warnings=tuple(message.warnings),
        attempts=tuple(
            [_ATTEMPT.from_message(item, boot_id=internals.boot_ids[i]) for i, item in enumerate(message.attempts)]
        ),
        **_of_job(internals),
    )


def spec_from_config(
    config: job_config_pb2.JobConfig,
    *,
    project_path: str,
    project_key: str,
    scheduler: str,
    cores: int,
    memory_bytes: int,
) -> Spec:
    """Return the `Spec` of a configuration and of what the service resolved.

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
    scheduler : str
        ``local`` or the scheduler's name.
    cores, memory_bytes : int
        Reserved on the service's host, or asked of the scheduler.
    """
    return _SPEC.from_message(
        config,
        project_path=project_path,
        project_key=project_key,
        scheduler=scheduler,
        cores=cores,
        memory_bytes=memory_bytes,
    )


def limits_to_message(limits: Limits) -> resource_pb2.Limits:
    """Return the message of the limits; their etag is a digest of them."""
    message = _LIMITS.to_message(limits)
    message.etag = blake2b(message.SerializeToString(deterministic=True), digest_size=8).hexdigest()
    return message


def limits_from_message(message: resource_pb2.Limits) -> Limits:
    """Return the limits of a message."""
    return _LIMITS.from_message(message)


def principal_to_message(principal: Principal) -> principal_pb2.Principal:
    """Return the message of a caller."""
    return _PRINCIPAL.to_message(principal)


def progress_to_message(progress: Progress) -> convergence_pb2.JobProgress:
    """Return the message of how far a solve is."""
    message = _PROGRESS.to_message(progress)
    if progress.last_pass is not None:
        message.last_pass.MergeFrom(
            convergence_pb2.AdaptivePass(number=progress.last_pass, delta=progress.delta, elements=progress.elements)
        )
    return message


def event_to_bytes(
    revision: int,
    time: float,
    type: EventType,
    *,
    job: bytes = b"",
    old_state: int = 0,
    limits: Limits | None = None,
    old_limits: Limits | None = None,
    principal: Principal | None = None,
    detail: str = "",
) -> bytes:
    """Serialize a change.

    Parameters
    ----------
    job : bytes
        Serialized ``Job``, for a change of a job.
    old_state : int
        Its state before; 0: it was accepted.
    """
    message = event_pb2.WatchEvent(message=detail, principal=principal_to_message(principal) if principal else None)
    message.revision = revision
    set_time(message.time, time)
    if limits is not None:
        message.limits_change.limits.CopyFrom(limits_to_message(limits))
        if old_limits is not None:
            message.limits_change.old_limits.CopyFrom(limits_to_message(old_limits))
    elif type in _QUEUE_CHANGES:
        message.queue_change.type = _QUEUE_CHANGES[type]
    data = message.SerializeToString()
    return data + embedded(_JOB_CHANGE, _job_change(type, old_state) + embedded(_CHANGED_JOB, job)) if job else data


@cache
def _job_change(type: EventType, old_state: int) -> bytes:
    change = event_pb2.JobChange(type=_JOB_CHANGES[type])
    change.old_state = old_state  # type: ignore[assignment]
    return change.SerializeToString()


_JOB_CHANGES = {
    kind: event_pb2.JobChangeType.Value(kind.name.replace("JOB_", "JOB_CHANGE_TYPE_", 1))
    for kind in EventType
    if kind.name.startswith("JOB_")
}
_QUEUE_CHANGES = {
    EventType.QUEUE_PAUSED: event_pb2.QUEUE_CHANGE_TYPE_PAUSED,
    EventType.QUEUE_RESUMED: event_pb2.QUEUE_CHANGE_TYPE_RESUMED,
    EventType.GATE_CLOSED: event_pb2.QUEUE_CHANGE_TYPE_GATE_CLOSED,
    EventType.GATE_OPENED: event_pb2.QUEUE_CHANGE_TYPE_GATE_OPENED,
}
