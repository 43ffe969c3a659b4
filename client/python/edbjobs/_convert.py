"""Conversion of protobuf messages to the client's dataclasses, derived from their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from edbjobs import _models as m
from edbjobs._enums import (
    Authentication,
    Convergence,
    EndReason,
    Evidence,
    JobChangeType,
    JobState,
    JobView,
    QueueChangeType,
    Role,
    SolvePhase,
    SolverSource,
    WaitingReason,
    Word,
    from_number,
    optional_from_number,
)

__all__ = ["read"]

T = TypeVar("T")
Reader = Callable[[Message], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RENAMED = {
    "started": "start_time",
    "config_message": "config",
}
_ENUMS: Mapping[str, tuple[type[Word], bool]] = {
    # Enum of the API: our enum, and whether 0 means "does not apply".
    "JobState": (JobState, False),
    "JobView": (JobView, True),
    "JobChangeType": (JobChangeType, False),
    "QueueChangeType": (QueueChangeType, False),
    "Role": (Role, False),
    "Authentication": (Authentication, False),
    "SolverSource": (SolverSource, False),
    "WaitingReason": (WaitingReason, True),
    "EndReason": (EndReason, True),
    "Evidence": (Evidence, True),
    "Convergence": (Convergence, True),
    "SolvePhase": (SolvePhase, True),
}
_VALUES: Mapping[str, type[Any]] = {
    "Attempt": m.Attempt,
    "AdaptivePass": m.AdaptivePass,
    "JobProgress": m.JobProgress,
    "Job": m.Job,
    "Outcome": m.Outcome,
    "Reservation": m.Reservation,
    "JobChange": m.JobChange,
    "LimitsChange": m.LimitsChange,
    "QueueChange": m.QueueChange,
    "RunUsage": m.RunUsage,
    "StartEstimate": m.StartEstimate,
    "Waiting": m.Waiting,
    "Volume": m.Volume,
    "HostResources": m.HostResources,
    "UserLimits": m.UserLimits,
    "Limits": m.Limits,
    "QueueStatus": m.QueueStatus,
    "Principal": m.Principal,
    "SchedulerStatus": m.SchedulerStatus,
    "Position": m.Position,
    "ServiceDetails": m.ServiceDetails,
}


def read(kind: type[T], message: Message) -> T:
    """Convert a message to the dataclass `kind` with the same fields."""
    plan = _PLANS.get(kind) or _PLANS.setdefault(kind, _plan(kind, message.DESCRIPTOR))
    return kind(**{name: reader(message) for name, reader in plan})


_PLANS: dict[type[Any], list[tuple[str, Reader]]] = {}


def _plan(kind: type[Any], descriptor: Any) -> list[tuple[str, Reader]]:
    by_name = descriptor.fields_by_name
    names = [(f, f.name if f.name in by_name else _RENAMED.get(f.name, f.name)) for f in fields(kind)]
    # What the message does not have, the client fills in itself.
    return [(f.name, _reader(by_name[name], f.default_factory)) for f, name in names if name in by_name]


def _reader(field: FieldDescriptor, default: Any) -> Reader:
    """Return the function that reads a field; a message that is absent is None unless it has a default."""
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        convert = _converter(field.message_type.fields_by_name["value"])
        return lambda message: {key: convert(value) for key, value in getattr(message, name).items()}
    convert = _converter(field)
    if field.is_repeated:
        return lambda message: tuple(convert(value) for value in getattr(message, name))
    if field.has_presence:
        absent = None if default is MISSING else default()
        return lambda message: convert(getattr(message, name)) if message.HasField(name) else absent
    return lambda message: convert(getattr(message, name))


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        kind, optional = _ENUMS[field.enum_type.name]
        if field.name == "old_state":
            optional = True
        return lambda number: (optional_from_number if optional else from_number)(kind, number)
    if field.message_type is None:
        return _same
    name = field.message_type.name
    if name == "Timestamp":
        return _time
    if name == "Duration":
        return _duration
    if name in _VALUES:
        value = _VALUES[name]
        return lambda message: read(value, message)
    return _same


def _same(value: Any) -> Any:
    return value


def _time(message: Any) -> datetime:
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def _duration(message: Any) -> timedelta:
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
