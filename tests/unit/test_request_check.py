"""Nothing of a request is ignored: requests for every message of the contract, built from the descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from edbjobs.v1 import cluster_service_pb2, job_config_pb2, jobs_service_pb2, resources_service_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs_server.contract import request_check, unserved
from edbjobs_server.core.errors import Refused
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

FILES = (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
RPCS: dict[str, MethodDescriptor] = {
    f"{service.name}.{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
REQUESTS: dict[str, Descriptor] = {
    method.input_type.name: method.input_type for name, method in RPCS.items() if name not in unserved.RPCS
}
UNKNOWN = 5000
_SAMPLES: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_STRING: "1",
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_DOUBLE: 1.5,
    FieldDescriptor.CPPTYPE_INT32: 1,
    FieldDescriptor.CPPTYPE_INT64: 1,
    FieldDescriptor.CPPTYPE_ENUM: 1,
}


class Place(NamedTuple):
    """A message in a request: its path, and the fields that lead to it."""

    path: str
    steps: tuple[FieldDescriptor, ...]
    type: Descriptor


def entry_of(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def is_unserved(field: FieldDescriptor) -> bool:
    return field.full_name.removeprefix(f"{request_check.PACKAGE}.") in unserved.FIELDS


def places(request: Descriptor) -> Iterator[Place]:
    """Every message that a request can hold, the types of Google too, and not below what is not served."""
    pending = [Place("", (), request)]
    while pending:
        place = pending.pop()
        yield place
        for field in place.type.fields:
            entry = entry_of(field)
            inner = entry.fields_by_name["value"].message_type if entry else field.message_type
            if inner is None or is_unserved(field):
                continue
            index = "[1]" if entry else "[2]" if field.is_repeated else ""
            pending.append(Place(f"{place.path}{field.name}{index}.", (*place.steps, field), inner))


def at(request: Message, steps: tuple[FieldDescriptor, ...]) -> Message:
    """Make the message at a place; in a list as the third one, in a map with the key 1."""
    for field in steps:
        part: Any = getattr(request, field.name)
        entry = entry_of(field)
        if entry:
            part = part["1" if entry.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING else 1]
        elif field.is_repeated:
            part = [part.add() for _ in range(3)][2]
        part.SetInParent()
        request = part
    return request


def make(descriptor: Descriptor, steps: tuple[FieldDescriptor, ...]) -> tuple[Message, Any]:
    request = message_factory.GetMessageClass(descriptor)()
    return request, at(request, steps)


def check(request: Message) -> Refused | None:
    """Check a request as it comes from the network."""
    found = request_check.deserializer(type(request).FromString)(request.SerializeToString())
    if isinstance(found, Refused):
        return found
    assert found == request
    return None


def path_of(refused: Refused | None) -> str:
    assert refused is not None
    assert refused.reason == "NOT_SERVED"
    assert set(refused.metadata) == {"field"}
    assert refused.metadata["field"] in refused.message
    return refused.metadata["field"]


def put(message: Message, field: FieldDescriptor, value: Any) -> str:
    """Set a field, or one item of it; return its path in the message."""
    entry = entry_of(field)
    if entry:
        put_entry(getattr(message, field.name), entry)
        return field.name
    if field.is_repeated:
        items = getattr(message, field.name)
        _ = items.add() if field.message_type else items.append(value)
        return f"{field.name}[0]"
    if field.message_type:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value)
    return field.name


def put_entry(entries: Any, entry: Descriptor) -> None:
    key = _SAMPLES[entry.fields_by_name["key"].cpp_type]
    value = entry.fields_by_name["value"]
    if value.message_type:
        entries[key].SetInParent()
    else:
        entries[key] = _SAMPLES[value.cpp_type]


def fields(name: str) -> Iterator[tuple[Place, FieldDescriptor]]:
    """Every field of the contract's messages in a request."""
    for place in places(REQUESTS[name]):
        if place.type.file.package == request_check.PACKAGE:
            yield from ((place, field) for field in place.type.fields)


@pytest.mark.parametrize("name", REQUESTS)
def test_an_unknown_field_is_refused_in_every_message(name: str) -> None:
    for place in places(REQUESTS[name]):
        request, message = make(REQUESTS[name], place.steps)
        assert check(request) is None, place.path
        message.MergeFromString(b"\xc0\xb8\x02\x00")  # field 5000, a varint
        assert path_of(check(request)) == f"{place.path}{UNKNOWN}"


@pytest.mark.parametrize("name", REQUESTS)
def test_an_unknown_value_is_refused_in_every_enum(name: str) -> None:
    for place, field in fields(name):
        if field.enum_type is not None and not is_unserved(field):
            for number in (max(field.enum_type.values_by_number) + 1, -1):
                request, message = make(REQUESTS[name], place.steps)
                path = put(message, field, number)
                assert path_of(check(request)) == place.path + path


@pytest.mark.parametrize("name", REQUESTS)
def test_each_known_value_is_taken_or_refused_as_not_served(name: str) -> None:
    for place, field in fields(name):
        if field.enum_type is None or is_unserved(field):
            continue
        for value in field.enum_type.values:
            request, message = make(REQUESTS[name], place.steps)
            path = put(message, field, value.number)
            if value.name in unserved.VALUES:
                assert path_of(check(request)) == place.path + path
            else:
                assert check(request) is None


@pytest.mark.parametrize("name", REQUESTS)
def test_a_field_that_is_not_served_is_refused_once_it_is_set(name: str) -> None:
    for place, field in fields(name):
        request, message = make(REQUESTS[name], place.steps)
        put(message, field, _SAMPLES.get(field.cpp_type))
        if is_unserved(field):
            assert path_of(check(request)) == place.path + field.name
        elif field.enum_type is None:
            assert check(request) is None


def test_an_empty_value_that_is_set_is_set() -> None:
    for name in REQUESTS:
        for place, field in fields(name):
            if is_unserved(field) and field.has_presence and field.message_type is None:
                request, message = make(REQUESTS[name], place.steps)
                put(message, field, type(_SAMPLES[field.cpp_type])())
                assert path_of(check(request)) == place.path + field.name


def test_the_table_of_what_is_not_served_has_only_names_of_the_contract() -> None:
    assert RPCS.keys() >= unserved.RPCS
    reachable = [field for name in REQUESTS for _, field in fields(name)]
    assert {field.full_name.removeprefix(f"{request_check.PACKAGE}.") for field in reachable} >= unserved.FIELDS
    enums = [field.enum_type for field in reachable if field.enum_type is not None]
    assert {value.name for enum in enums for value in enum.values} >= unserved.VALUES


def test_paths_name_the_item() -> None:
    request = pb.SubmitJobsRequest(requests=[pb.SubmitJobRequest() for _ in range(4)])
    reasons: Any = request.requests[3].config.retry.reasons
    reasons.extend([1, 9999])
    assert path_of(check(request)) == "requests[3].config.retry.reasons[1]"


def test_a_known_field_in_another_type_is_unknown() -> None:
    data = b"\x18\x05"  # field 3, config, as a number
    refused = request_check.deserializer(pb.SubmitJobRequest.FromString)(data)
    assert isinstance(refused, Refused)
    assert path_of(refused) == "config"


def test_an_entry_of_a_map_with_more_than_key_and_value_is_refused() -> None:
    entry = b"\x0a\x01a\x12\x01b\x1a\x01c"
    number = job_config_pb2.JobConfig.DESCRIPTOR.fields_by_name["labels"].number
    data = bytes([number << 3 & 0x7F | 0x82, number >> 4, len(entry)]) + entry
    assert path_of(_read(b"\x1a" + bytes([len(data)]) + data)) == "config.labels"


def test_an_equal_message_in_another_encoding_is_taken() -> None:
    request = pb.SubmitJobRequest(job_id="a", priority=5)
    data = b"\x20\x85\x80\x00" + pb.SubmitJobRequest(job_id="b").SerializeToString() + request.SerializeToString()
    assert request_check.deserializer(pb.SubmitJobRequest.FromString)(data) == request


def test_a_request_has_a_limit_and_is_a_message() -> None:
    too_large = _read(bytes(request_check.MAX_REQUEST_BYTES + 1))
    assert (too_large.reason, too_large.metadata) == ("TOO_LARGE", {"limit_bytes": "16777216"})
    assert _read(b"\xff").reason == "INVALID_REQUEST"


def test_methods_are_named_as_in_the_comments_of_the_contract() -> None:
    refused = request_check.rpc_not_served("/edbjobs.v1.JobsService/ReadFile")
    assert (refused.reason, refused.metadata) == ("NOT_SERVED", {"rpc": "JobsService.ReadFile"})


def _read(data: bytes) -> Refused:
    found = request_check.deserializer(pb.SubmitJobRequest.FromString)(data)
    assert isinstance(found, Refused)
    return found
