"""Write docs/api.md from the comments of the contract: `python scripts/apidoc.py docs/api.md`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edbjobs_server.contract import unserved
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
HEAD = """# The API

The contract `edbjobs.v1`, from its comments in [protos/edbjobs/v1](../protos/edbjobs/v1); written by `make proto`.
Unary calls and server streaming only. How to call it: [clients.md](clients.md). An `optional` field, and a message,
is absent or set, to its zero too; all other fields are absent if they are empty. The reasons of errors are those of
[ErrorReason](#errorreason), here without the prefix.
"""
LEVELS = """## Levels

`GetSystemStatusResponse.api_level` is the level that a service has.

| level | what it added |
|---|---|
| 1 | all of this page but what follows |

Not served yet, and refused with NOT_SERVED:
"""
_REPEATS = {
    descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS: "yes: it changes nothing",
    descriptor_pb2.MethodOptions.IDEMPOTENT: "yes",
}
_Field = descriptor_pb2.FieldDescriptorProto
# Numbers of fields in descriptor.proto, of which the paths of comments are made.
_MESSAGE, _ENUM, _SERVICE, _SYNTAX, _MEMBER = 4, 5, 6, 12, 2
_REQUESTS = "edbjobs/v1/jobs_messages.proto"


def text() -> str:
    """Make the whole page."""
    files = [file for file in _files() if file.package == "edbjobs.v1"]
    files.sort(key=lambda file: [service.name for service in file.service] != ["JobsService"])
    parts = [HEAD, *_levels()]
    messages = {message.name: message for file in files for message in file.message_type}
    for file in files:
        parts += _services(file, messages)
    # Requests and answers stand beside the RPCs, or in a file of their own.
    for file in sorted(files, key=lambda file: (file.name != _REQUESTS, not file.service)):
        if not file.message_type and not file.enum_type:
            continue
        parts += [f"## {_comment(file, (_SYNTAX,)).rstrip('.')}\n", *_messages(file), *_enums(file)]
    return "\n".join(parts).rstrip() + "\n"


def _files() -> Sequence[descriptor_pb2.FileDescriptorProto]:
    names = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "edbjobs" / "v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "set"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={output}", *names], cwd=PROTOS, check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file


def _levels() -> Iterator[str]:
    yield LEVELS
    yield f"- RPCs: {_listed(unserved.RPCS)}."
    yield f"- Fields of requests: {_listed(unserved.FIELDS)}."
    yield f"- Values in requests: {_listed(unserved.VALUES)}.\n"


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _comment(file: descriptor_pb2.FileDescriptorProto, path: tuple[int, ...]) -> str:
    """Return a comment, each of its paragraphs as one line."""
    for location in file.source_code_info.location:
        if tuple(location.path) == path:
            lines = [line.strip() for line in location.leading_comments.splitlines()]
            paragraphs = "\n".join(lines).strip().split("\n\n")
            return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    raise LookupError(f"{file.name} has no comment at {path}")


def _services(
    file: descriptor_pb2.FileDescriptorProto, messages: Mapping[str, descriptor_pb2.DescriptorProto]
) -> Iterator[str]:
    for number, service in enumerate(file.service):
        yield f"## Service {service.name}\n\n{_comment(file, (_SERVICE, number))}\n"
        yield "| call | request | answer | safe to repeat | |\n|---|---|---|---|---|"
        for position, method in enumerate(service.method):
            answer = _link(method.output_type) + (", a stream" if method.server_streaming else "")
            repeats = _repeats(method, messages)
            told = _cell(_comment(file, (_SERVICE, number, _MEMBER, position)))
            yield f"| `{method.name}` | {_link(method.input_type)} | {answer} | {repeats} | {told} |"
        yield ""


def _repeats(
    method: descriptor_pb2.MethodDescriptorProto, messages: Mapping[str, descriptor_pb2.DescriptorProto]
) -> str:
    level = method.options.idempotency_level
    if level in _REPEATS:
        return _REPEATS[level]
    fields = messages[_name(method.input_type)].field
    if any(field.name == "request_id" for field in fields):
        return "with a `request_id`"
    items = [messages[_name(field.type_name)] for field in fields if _name(field.type_name) in messages]
    has_id = any(field.name == "request_id" for item in items for field in item.field)
    return "with a `request_id` in each item" if has_id else "no"


def _name(full_name: str) -> str:
    return full_name.rpartition(".")[2]


def _messages(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    for number, message in enumerate(file.message_type):
        yield f"### {message.name}\n\n{_comment(file, (_MESSAGE, number))}\n"
        if not message.field:
            yield "No fields.\n"
            continue
        yield "| field | type | |\n|---|---|---|"
        for position, field in enumerate(message.field):
            told = _cell(_comment(file, (_MESSAGE, number, _MEMBER, position)))
            yield f"| `{field.name}` | {_type(message, field)} | {told} |"
        yield ""


def _enums(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    for number, enum in enumerate(file.enum_type):
        yield f"### {enum.name}\n\n{_comment(file, (_ENUM, number))}\n"
        yield "| value | number | |\n|---|---|---|"
        for position, value in enumerate(enum.value):
            yield f"| `{value.name}` | {value.number} | {_cell(_comment(file, (_ENUM, number, _MEMBER, position)))} |"
        yield ""


def _type(message: descriptor_pb2.DescriptorProto, field: Any) -> str:
    if field.label == _Field.LABEL_REPEATED:
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
                return f"map of {_plain(nested.field[0])} to {_plain(nested.field[1])}"
        return f"repeated {_plain(field)}"
    if field.proto3_optional:
        return f"optional {_plain(field)}"
    if field.HasField("oneof_index"):
        return f"{_plain(field)}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return _plain(field)


def _plain(field: Any) -> str:
    if field.type in (_Field.TYPE_MESSAGE, _Field.TYPE_ENUM):
        return _link(field.type_name)
    return _Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(full_name: str) -> str:
    name = full_name.removeprefix(".edbjobs.v1.")
    return f"[{name}](#{name.lower()})" if name != full_name else full_name.removeprefix(".")


def _cell(told: str) -> str:
    return told.replace("\n\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
