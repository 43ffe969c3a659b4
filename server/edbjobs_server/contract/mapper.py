"""One mapping between a frozen dataclass and a message, made from the fields that both have.

A field of the same name on both sides needs no code: its type in the message's descriptor and its default in the
dataclass decide how it is converted. Only what differs stands in a table. What has its default is not written, and
what is not in the message gets the dataclass's default.

The two functions of a mapping are compiled from a line for each field, as `dataclasses` compiles ``__init__``: a loop
over a table takes half as long again, and a start reads all jobs that wait.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


V = TypeVar("V", bound=_Dataclass)
M = TypeVar("M", bound=Message)
Convert = Callable[[Any], Any]
_TIMES = (Timestamp.DESCRIPTOR, Duration.DESCRIPTOR)


def set_time(value: Timestamp | Duration, seconds: float) -> None:
    """Set a ``Timestamp`` or a ``Duration`` to seconds."""
    whole = math.floor(seconds)
    nanos = round((seconds - whole) * 1e9)
    value.seconds, value.nanos = (whole + 1, 0) if nanos == 1_000_000_000 else (whole, nanos)


def seconds(value: Timestamp | Duration) -> float:
    """Return the seconds of a ``Timestamp`` or a ``Duration``."""
    return value.seconds + value.nanos / 1e9


class Mapper(Generic[V, M]):
    """Maps values of one dataclass to one type of message and back.

    Parameters
    ----------
    value, message : type
        The two sides.
    paths : mapping of str to str, optional
        Attributes that are written under a message's field of another name or place: field to dotted path. They
        are not read back.
    write, read : mapping of str to callable, optional
        How a field is converted where its type does not say.
    given : iterable of str, optional
        Fields that are not read from the message, but given to `from_message`, and not written.

    Attributes
    ----------
    to_message : callable
        Returns the message of a value.
    from_message : callable
        Returns the value of a message; takes the fields that are not read from it as keywords.
    """

    to_message: Callable[[V], M]
    from_message: Callable[..., V]

    def __init__(
        self,
        value: type[V],
        message: type[M],
        *,
        paths: Mapping[str, str] | None = None,
        write: Mapping[str, Convert] | None = None,
        read: Mapping[str, Convert] | None = None,
        given: Iterable[str] = (),
    ) -> None:
        names: dict[str, Any] = {"value_of": value, "message_of": message, "set_time": set_time, "seconds": seconds}
        names.update({f"write_{name}": convert for name, convert in (write or {}).items()})
        names.update({f"read_{name}": convert for name, convert in (read or {}).items()})
        lines = ["def to_message(value):", " message = message_of()"]
        arguments = []
        for field in cast("list[FieldDescriptor]", message.DESCRIPTOR.fields):
            path = (paths or {}).get(field.name)
            if path is not None:
                lines += _written(field, path, None, names)
            elif field.name in value.__dataclass_fields__ and field.name not in given:
                default = names[f"default_{field.name}"] = _default(value, field.name)
                lines += _written(field, field.name, default, names)
                arguments.append(f"{field.name}={_read(field, default, names)}")
        lines += [" return message", "def from_message(message, **given):"]
        lines += [f" return value_of({', '.join(arguments)}, **given)"]
        exec("\n".join(lines), names)  # noqa: S102
        self.to_message, self.from_message = names["to_message"], names["from_message"]


def _written(field: FieldDescriptor, path: str, default: Any, names: Mapping[str, Any]) -> list[str]:
    """Return the lines that write a field unless it has the value that an absent one has."""
    name = field.name
    present = "item is not None" if default is None and field.has_presence else "item"
    item = f"write_{name}(item)" if f"write_{name}" in names else "item"
    if field.message_type in _TIMES:
        statement = f"set_time(message.{name}, item)"
    elif field.is_repeated and not _is_map(field):
        statement = f"message.{name}.extend({item})"
    elif field.message_type is not None:
        statement = f"message.MergeFrom(message_of({name}={item}))"
    else:
        statement = f"message.{name} = {item}"
    return [f" item = value.{path}", f" if {present}: {statement}"]


def _read(field: FieldDescriptor, default: Any, names: dict[str, Any]) -> str:
    """Return the expression that reads a field."""
    name = field.name
    item = f"message.{name}"
    if f"read_{name}" in names:
        item = f"read_{name}({item})"
    elif field.message_type in _TIMES:
        item = f"seconds({item})"
    elif isinstance(default, IntEnum):  # a look-up takes a tenth of the time of a call of the enumeration
        names[f"members_{name}"] = {member.value: member for member in type(default)}
        item = f"members_{name}[{item}]"
    elif isinstance(default, tuple):
        item = f"tuple({item})"
    if not field.has_presence or default is dataclasses.MISSING:
        return item
    return f'{item} if message.HasField("{name}") else default_{name}'


def _default(value: type[_Dataclass], name: str) -> Any:
    field = value.__dataclass_fields__[name]
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
