"""Conversion of configuration models to protobuf messages and back.

The service reads a message on every submit, so reading visits only the fields that are set (``ListFields``) and
leaves the validation to pydantic; ``json_format`` takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs._config_parts import LayoutOptions, Machine, Model, RetryOptions, SchedulerOptions
from edbjobs._enums import DesignMode, EndReason, ExistingResults, SchedulerPriority, Word, from_number, to_number
from edbjobs._times import duration, timestamp
from edbjobs.v1 import job_config_pb2 as pb

__all__ = ["read_config", "write_message"]

M = TypeVar("M", bound=Message)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Served by a later release; until then the service refuses them before it reads a configuration.
_NOT_READ = frozenset({"dependencies", "require_converged", "required_outputs", "exports"})


def read_message(message: Message) -> dict[str, Any]:
    """Convert the fields that are set in a message to arguments of the model with the same fields."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = field.name
        convert = _READ.get(name)
        values[name] = value if convert is None else convert(value)
    return values


def read_config(message: pb.JobConfig) -> dict[str, Any]:
    """Convert a configuration to arguments of its model, without what this release does not know."""
    values = read_message(message)
    for name in _NOT_READ & values.keys():
        del values[name]
    return values


def _read_duration(message: Duration) -> timedelta | str:
    try:
        return timedelta(seconds=message.seconds, microseconds=message.nanos / 1000)
    except OverflowError:
        return f"{message.seconds} s"  # not a duration: the model rejects it with the field's name


def _read_time(message: Timestamp) -> datetime | str:
    try:
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos / 1000)
    except OverflowError:
        return f"{message.seconds} s"


def _read_word(kind: type[Word]) -> Callable[[int], Word | str]:
    """Return the reader of an enum. A number that this release does not define must not become the default."""
    known = range(len(kind) + 1)
    return lambda number: from_number(kind, number) if number in known else f"number {number}"


def _read_reasons(numbers: Any) -> list[EndReason]:
    return [from_number(EndReason, number) for number in numbers]


_READ: Mapping[str, Callable[[Any], Any]] = {
    "machines": lambda machines: [read_message(machine) for machine in machines],
    "layout_options": read_message,
    "scheduler_options": read_message,
    "retry": read_message,
    "design_mode": _read_word(DesignMode),
    "existing_results": _read_word(ExistingResults),
    "priority": _read_word(SchedulerPriority),
    "reasons": _read_reasons,
    "extra": dict,
    "environment": dict,
    "labels": dict,
    "licenses": dict,
    "batch_options": dict,
    "time_limit": _read_duration,
    "cancel_grace_period": _read_duration,
    "license_wait_limit": _read_duration,
    "scheduler_wait_limit": _read_duration,
    "initial_delay": _read_duration,
    "max_delay": _read_duration,
    "not_before_time": _read_time,
}


def write_message(config: Model) -> pb.JobConfig:
    """Convert a configuration: what is None or empty is left out, every other value is written, 0 included."""
    return _write(config, pb.JobConfig)


def _write(model: Model, message_of: type[M]) -> M:
    unset = _unset(type(model))
    values = {}
    for name in model.model_fields_set:  # most fields are not set
        value = getattr(model, name)
        if value is not None and value != unset[name]:
            values[name] = _plain(value)
    return message_of(**values)


@cache
def _unset(kind: type[Model]) -> Mapping[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()}


_MESSAGES: Mapping[type[Model], type[Message]] = {
    Machine: pb.Machine,
    LayoutOptions: pb.LayoutOptions,
    SchedulerOptions: pb.SchedulerOptions,
    RetryOptions: pb.RetryOptions,
}


def _plain(value: Any) -> Any:
    if isinstance(value, Word):
        return to_number(value)
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Model):
        return _write(value, _MESSAGES[type(value)])
    return value
