"""Conversion of configuration models to protobuf messages and back.

The service reads a message on every submit, so reading visits only the fields that are set (``ListFields``) and
leaves the validation to pydantic; ``json_format`` takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs._config_fields import ConfigFields
from edbjobs._config_parts import HFSS3DLayoutBatchOptions, MachineNode, Model, RetryPolicy, SchedulerOptions
from edbjobs._enums import EndReason, ExistingResults, SchedulerType, Word, from_number, to_number
from edbjobs._times import duration, timestamp
from edbjobs.v1 import job_config_pb2 as pb

__all__ = ["read_message", "write_message"]

_NO_LAYOUT, _NO_SCHEDULER, _NO_RETRY = HFSS3DLayoutBatchOptions(), SchedulerOptions(), RetryPolicy()
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_message(message: Message) -> dict[str, Any]:
    """Convert the fields that are set in a message to arguments of the model with the same fields."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = field.name
        convert = _READ.get(name)
        values[name] = value if convert is None else convert(value)
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


def _read_scheduler(number: int) -> SchedulerType | str:
    kind = from_number(SchedulerType, number)
    # A scheduler this release does not define must not become NONE, which lets the service decide.
    return kind if kind is not SchedulerType.NONE or number == 0 else f"number {number}"


def _read_existing(number: int) -> ExistingResults | str:
    # Likewise, an undefined value must not become KEEP.
    return from_number(ExistingResults, number) if 0 <= number <= 3 else f"number {number}"


def _read_reasons(numbers: Any) -> list[EndReason]:
    return [from_number(EndReason, number) for number in numbers]


_READ: Mapping[str, Callable[[Any], Any]] = {
    "machine_nodes": lambda nodes: [read_message(node) for node in nodes],
    "layout_options": read_message,
    "scheduler_options": read_message,
    "retry": read_message,
    "scheduler_type": _read_scheduler,
    "existing_results": _read_existing,
    "reasons": _read_reasons,
    "extra": dict,
    "environment": dict,
    "labels": dict,
    "batch_options": dict,
    "wall_clock_limit": _read_duration,
    "cancel_grace": _read_duration,
    "license_wait_limit": _read_duration,
    "scheduler_wait_limit": _read_duration,
    "initial_backoff": _read_duration,
    "max_backoff": _read_duration,
    "not_before": _read_time,
}


def write_message(config: ConfigFields) -> pb.JobConfig:
    """Convert the fields that differ from their defaults: in the API an absent field has its default."""
    values = _changed(config, skip=("jobid", "user", "machine_nodes", "layout_options", "scheduler_options", "retry"))
    if "licenses" in values:
        values["licenses"] = dict(config.licenses)
    message = pb.JobConfig(**values)
    message.machine_nodes.extend(_node(node) for node in config.machine_nodes)
    fields_set = config.model_fields_set
    if "layout_options" in fields_set and config.layout_options != _NO_LAYOUT:
        message.layout_options.CopyFrom(pb.LayoutOptions(**_changed(config.layout_options)))
    if "scheduler_options" in fields_set and config.scheduler_options != _NO_SCHEDULER:
        message.scheduler_options.CopyFrom(pb.SchedulerOptions(**_changed(config.scheduler_options)))
    if "retry" in fields_set and config.retry != _NO_RETRY:
        message.retry.CopyFrom(pb.RetryPolicy(**_changed(config.retry)))
    return message


def _node(node: MachineNode) -> pb.MachineNode:
    # All fields are written: AEDT receives the defaults too, and an empty message would not show that a node is set.
    return pb.MachineNode(
        hostname=node.hostname,
        cores=node.cores,
        max_cores=node.max_cores,
        utilization=node.utilization,
        tasks=node.tasks,
        gpus=node.gpus,
    )


def _changed(model: Model, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {}
    defaults = _defaults(type(model))
    for name in model.model_fields_set:  # most fields are not set and have their defaults
        value = getattr(model, name)
        if name not in skip and value != defaults[name]:
            values[name] = _plain(value)
    return values


@cache
def _defaults(kind: type[Model]) -> Mapping[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Word):
        return to_number(value)
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
