"""Nothing of a request is ignored: what this release does not know, or does not serve yet, is refused.

That is unknown fields, unknown values of enums, and what `edbjobs_server.contract.unserved` names, in nested messages
too. Otherwise a newer client's filter would cancel more than it selects, and an option would be dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from edbjobs_server.contract import unserved
from edbjobs_server.core.errors import Refused

# Of one request. gRPC itself accepts twice as much, so that a request above the limit is refused with its reason.
MAX_REQUEST_BYTES = 16 * 1024 * 1024
PACKAGE = "edbjobs.v1"


class _Enum(NamedTuple):
    known: frozenset[int]
    served: frozenset[int]


class _Check(NamedTuple):
    """What is checked of one field, if it is set.

    Attributes
    ----------
    name : str
        The field.
    has_presence, is_map : bool
        How it is read.
    is_repeated : bool
        It is a list; a map is not.
    values : _Enum, optional
        Its type, if that is an enum.
    message : Descriptor, optional
        Its type, if that is a message with something to check.
    """

    name: str
    has_presence: bool
    is_repeated: bool
    is_map: bool
    values: _Enum | None
    message: Descriptor | None


def deserializer(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | Refused]:
    """Return a function that reads a request and checks it; what is wrong is returned, not raised.

    gRPC calls it outside of all interceptors, where an exception would end the call without a reason.
    """

    def read(data: bytes) -> Message | Refused:
        if len(data) > MAX_REQUEST_BYTES:
            return too_large(MAX_REQUEST_BYTES)
        try:
            request = deserialize(data)
        except DecodeError as wrong:
            return Refused("INVALID_REQUEST", f"the request is not the message of this call: {wrong}")
        try:
            _check_request(request, data)
        except Refused as refused:
            return refused
        return request

    return read


def too_large(limit: int) -> Refused:
    """Return the error of a request with more bytes than are taken."""
    text = f"expected a request of at most {limit} bytes"
    return Refused("TOO_LARGE", text, metadata={"limit_bytes": str(limit)})


def rpc_not_served(path: str) -> Refused:
    """Return the error of a call of a method that this release does not have, by its path."""
    name = rpc_name(path)
    return Refused("NOT_SERVED", f"this release does not serve {name}; update the service", metadata={"rpc": name})


def rpc_name(path: str) -> str:
    """Return the name of a method as the contract's comments write it: ``JobsService.GetJob``."""
    return path.removeprefix(f"/{PACKAGE}.").strip("/").replace("/", ".")


def _check_request(request: Message, data: bytes) -> None:
    # The size of what was received says nothing: an equal message may have been written in another way.
    size = request.ByteSize()
    request.DiscardUnknownFields()
    if request.ByteSize() != size:
        raise _not_served(_unknown_path(type(request).FromString(data)), "does not know the field")
    _check_message(request, "")


def _check_message(message: Message, prefix: str) -> None:
    for check in _plan(message.DESCRIPTOR):
        if check.has_presence and not message.HasField(check.name):
            continue
        value = getattr(message, check.name)
        if check.values is None and check.message is None:
            if check.has_presence or value:
                raise _not_served(prefix + check.name, "does not serve the field")
        elif check.is_repeated:
            for index, item in enumerate(value):
                _check_value(item, check, f"{prefix}{check.name}[{index}]")
        elif check.is_map:
            for key, item in value.items():
                _check_value(item, check, f"{prefix}{check.name}[{key}]")
        else:
            _check_value(value, check, prefix + check.name)


def _check_value(value: Any, check: _Check, path: str) -> None:
    if check.values is None:
        _check_message(value, f"{path}.")
    elif value not in check.values.known:
        raise _not_served(path, f"does not know the value {value} of")
    elif value not in check.values.served:
        raise _not_served(path, f"does not serve the value {value} of")


def _not_served(path: str, what: str) -> Refused:
    text = f"this release {what} {path}; update the service, or leave it out"
    return Refused("NOT_SERVED", text, metadata={"field": path})


@cache
def _plan(descriptor: Descriptor) -> tuple[_Check, ...]:
    """Return the checks of a type of message, of the fields that can hold something to refuse."""
    return tuple(check for field in descriptor.fields if (check := _check_of(field)) is not None)


def _check_of(field: FieldDescriptor) -> _Check | None:
    entry = _map_entry(field)
    item = entry.fields_by_name["value"] if entry else field
    values, message = None, item.message_type
    if field.full_name.removeprefix(f"{PACKAGE}.") in unserved.FIELDS:
        message = None
    else:
        values = None if item.enum_type is None else _enum(item.enum_type)
        if message is not None and not _is_checked(message):
            message = None
        if values is None and message is None:
            return None
    is_list = field.is_repeated and not entry
    return _Check(field.name, field.has_presence, is_list, entry is not None, values, message)


def _is_checked(descriptor: Descriptor) -> bool:
    # No message of the contract's requests contains itself.
    return descriptor.file.package == PACKAGE and bool(_plan(descriptor))


@cache
def _enum(descriptor: EnumDescriptor) -> _Enum:
    known = {value.number for value in descriptor.values}
    served = {value.number for value in descriptor.values if value.name not in unserved.VALUES}
    return _Enum(frozenset(known), frozenset(served))


def _map_entry(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def _unknown_path(message: Message) -> str:
    """Return the path of the first unknown field; its last part is a number if its name is not known."""
    return next(_unknown_paths(message, ""), "")


def _unknown_paths(message: Message, prefix: str) -> Iterator[str]:
    unknown_fields: Any = UnknownFieldSet(message)  # its iteration is not in the published types
    for unknown in unknown_fields:
        # A known number is one whose type on the wire differs, or a map's entry with more than key and value.
        known = message.DESCRIPTOR.fields_by_number.get(unknown.field_number)
        yield f"{prefix}{known.name if known else unknown.field_number}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for path, item in _messages(field, value):
            yield from _unknown_paths(item, f"{prefix}{path}.")


def _messages(field: FieldDescriptor, value: Any) -> Iterator[tuple[str, Message]]:
    if _map_entry(field):
        values: Mapping[Any, Any] = value
        for key, item in values.items():
            if isinstance(item, Message):
                yield f"{field.name}[{key}]", item
    elif field.is_repeated:
        for index, item in enumerate(value):
            yield f"{field.name}[{index}]", item
    else:
        yield field.name, value
