"""Between the core's values and the contract's messages.

A field that has one name in the dataclass and in the message needs nothing here; the tables below have the others.
Times are float seconds in the core and nanoseconds in a ``Timestamp``: every float later than April 1970
comes back bit for bit. What is computed for an answer (``waiting_reason``, ``waiting_detail``, ``jobs_before``,
``progress``) is never written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

from edbjobs.v1 import event_pb2, job_config_pb2, job_pb2, principal_pb2, resource_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.mapper import Mapper, set_time
from edbjobs_server.contract.mapper import seconds as seconds
from edbjobs_server.core.job import Attempt, Job, RetryPolicy, Spec
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import EventType, Reason

_JOB_CONFIG = job_pb2.Job.CONFIG_FIELD_NUMBER
_EVENT_JOB = event_pb2.Event.JOB_FIELD_NUMBER
_DEFAULT_RETRY = RetryPolicy()
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
    project_path: str
    project_key: str
    requested_by: str = ""
    request_id: str = ""
    digest: bytes = b""
    cancel_grace: float | None = None
    backing_off: bool = False
    unkillable: tuple[int, ...] = ()
    boot_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job) -> Internals:
        """Return those of a job."""
        boot_ids = tuple([attempt.boot_id for attempt in job.attempts]) if job.attempts else ()
        return cls._make((*_internals(job), boot_ids))


_OF_SPEC = ("project_path", "project_key")
_OF_JOB = tuple(name for name in Internals._fields if name in Job.__dataclass_fields__)
_internals = attrgetter(*(f"spec.{name}" if name in _OF_SPEC else name for name in Internals._fields[:-1]))
_job_values = attrgetter(*_OF_JOB)


def _of_job(internals: Internals) -> dict[str, Any]:
    return dict(zip(_OF_JOB, _job_values(internals), strict=True))


def _sorted_items(mapping: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(mapping.items())) if mapping else ()


def _each(convert: Callable[[Any], Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda items: {name: convert(item) for name, item in items.items()}


_ATTEMPT = Mapper(Attempt, job_pb2.Attempt)
_RETRY = Mapper(
    RetryPolicy,
    job_config_pb2.RetryPolicy,
    read={
        "max_attempts": lambda count: max(1, count),
        "reasons": lambda numbers: frozenset(map(Reason, numbers)) if numbers else _DEFAULT_RETRY.reasons,
    },
)
_SPEC = Mapper(
    Spec,
    job_config_pb2.JobConfig,
    read={"licenses": _sorted_items, "labels": _sorted_items, "retry": _RETRY.from_message},
    given=("project_path", "cores", "memory_mib"),
)
_JOB = Mapper(
    Job,
    job_pb2.Job,
    paths={name: f"spec.{name}" for name in ("executor", "cores", "memory_mib", "project_path")}
    | {name: name for name in ("attempts", "attempt", "scheduler_job_id")},
    write={"attempts": lambda attempts: [_ATTEMPT.to_message(attempt) for attempt in attempts]},
    given=("config", "attempts"),
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


def job_to_message(job: Job) -> job_pb2.Job:
    """Return the message of a job."""
    message = _JOB.to_message(job)
    if job.config:
        message.config.MergeFromString(job.config)
    return message


def job_to_bytes(job: Job) -> bytes:
    """Serialize a job as the contract's message, without parsing its configuration."""
    data = _JOB.to_message(job).SerializeToString()
    return data + embedded(_JOB_CONFIG, job.config) if job.config else data


def job_from_message(message: job_pb2.Job, internals: Internals) -> Job:
    """Return the job of a message; the reverse of `job_to_message` and `Internals.of`.

    The job's `spec` comes from the configuration, so it is the same again only if `spec_from_config` made it.
    """
    config = message.config
    spec = spec_from_config(
        config,
        project_path=internals.project_path,
        project_key=internals.project_key,
        executor=message.executor,
        cores=message.cores,
        memory_mib=message.memory_mib,
    )
    return _JOB.from_message(
        message,
        spec=spec,
        config=config.SerializeToString(deterministic=True),
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
    executor: str,
    cores: int,
    memory_mib: int,
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
    executor : str
        ``local`` or the scheduler's name.
    cores, memory_mib : int
        Reserved on the service's host.
    """
    return _SPEC.from_message(
        config,
        project_path=project_path,
        project_key=project_key,
        executor=executor,
        cores=cores,
        memory_mib=memory_mib,
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


def event_to_bytes(
    revision: int,
    time: float,
    type: EventType,
    *,
    job: bytes = b"",
    limits: Limits | None = None,
    old_limits: Limits | None = None,
    principal: Principal | None = None,
    detail: str = "",
) -> bytes:
    """Serialize an event; `job` is a serialized ``Job``."""
    message = event_pb2.Event(detail=detail)
    if principal is not None:
        message.principal.CopyFrom(principal_to_message(principal))
    message.revision = revision
    message.type = type  # type: ignore[assignment]
    set_time(message.time, time)
    if limits is not None:
        message.limits.CopyFrom(limits_to_message(limits))
    if old_limits is not None:
        message.old_limits.CopyFrom(limits_to_message(old_limits))
    data = message.SerializeToString()
    return data + embedded(_EVENT_JOB, job) if job else data
