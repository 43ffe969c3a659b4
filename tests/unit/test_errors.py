from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import grpc
import pytest
from edbjobs.v1 import errors_pb2
from edbjobs_server.contract.errors import DETAILS_KEY, TABLE, to_reason, to_status, trailer
from edbjobs_server.core.errors import ErrorReason, Refused
from edbjobs_server.gateway.http_errors import STATUS, HttpReason, HttpRefused, status_of, word_of
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from support.documented_errors import documented

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos" / "edbjobs" / "v1"
SERVER = ROOT / "server" / "edbjobs_server"
CODES = {code.name: code for code in grpc.StatusCode}


def calls_of_refused() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of Refused in the server, and where it is; but for errors that only the REST routes have."""
    for file in SERVER.rglob("*.py"):
        if file.is_relative_to(SERVER / "gateway" / "rest"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
                yield f"{file.relative_to(SERVER)}:{node.lineno}", node


def details(status: Any) -> dict[str, Any]:
    return {item.type_url.rpartition(".")[2]: item for item in status.details}


def test_reasons_in_code_are_those_of_the_contract() -> None:
    names = [value.name.removeprefix("ERROR_REASON_") for value in errors_pb2.ErrorReason.DESCRIPTOR.values]
    assert names == ["UNSPECIFIED", *get_args(ErrorReason)]
    assert list(TABLE) == names[1:] == list(documented())


@pytest.mark.parametrize("reason", get_args(ErrorReason))
def test_code_and_retry_info_are_those_of_the_contract(reason: ErrorReason) -> None:
    promised = documented()[reason]
    assert TABLE[reason].code is promised.code
    assert bool(TABLE[reason].retry_seconds) is promised.has_retry_info


def test_metadata_in_code_has_the_keys_of_the_contract() -> None:
    promised = documented()
    assert promised["JOB_SUPERSEDED"].metadata == {"uid", "superseded_by"}
    assert promised["NOT_SERVED"].metadata == {"field", "rpc"}
    assert promised["INTERNAL"].metadata == {"incident"}
    wrong = []
    for place, call in calls_of_refused():
        if not isinstance(call.args[0], ast.Constant):
            continue
        reason = str(call.args[0].value)
        given = {word.arg: word.value for word in call.keywords}.get("metadata", ast.Dict([], []))
        if not isinstance(given, ast.Dict):
            continue
        keys = {str(key.value) for key in given.keys if isinstance(key, ast.Constant)}
        expected = promised[reason].metadata
        if keys != expected and not (reason in ("NOT_SERVED", "REQUEST_ID_REUSED") and keys <= expected):
            wrong.append(f"{place}: {reason} has {sorted(keys)}, not {sorted(expected)}")
    assert wrong == []


def test_an_unknown_reason_is_a_fault_of_the_code() -> None:
    unknown: Any = "SOMETHING_NEW"
    with pytest.raises(ValueError, match="SOMETHING_NEW"):
        Refused(unknown, "x")


def test_results_carry_the_number_of_the_reason() -> None:
    assert to_reason(Refused("JOB_NOT_FOUND", "no")) == errors_pb2.ERROR_REASON_JOB_NOT_FOUND


@pytest.mark.parametrize("word", get_args(HttpReason))
def test_a_reason_of_http_alone_never_enters_an_error_of_the_contract(word: HttpReason) -> None:
    refused = HttpRefused(word, "x")
    assert (word_of(refused), status_of(refused)) == (word, STATUS[word])
    info = error_details_pb2.ErrorInfo()
    details(to_status(refused))["ErrorInfo"].Unpack(info)
    assert info.reason == "INVALID_REQUEST"
    assert word not in get_args(ErrorReason)


def test_each_code_has_one_http_status_family() -> None:
    for reason, (code, http, _) in TABLE.items():
        family = 5 if code.name in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED") else 4
        assert http // 100 == family, reason


def test_status_carries_all_that_a_program_needs() -> None:
    refused = Refused("STORE_UNAVAILABLE", "full", fields={"a.b": "bad"}, metadata={"uid": "u1"})
    status = to_status(refused)
    assert (status.code, status.message) == (14, "full")
    found = details(status)
    info = error_details_pb2.ErrorInfo()
    assert found["ErrorInfo"].Unpack(info)
    assert (info.reason, info.domain, info.metadata["uid"]) == ("STORE_UNAVAILABLE", "edbjobs", "u1")
    retry = error_details_pb2.RetryInfo()
    assert found["RetryInfo"].Unpack(retry)
    assert retry.retry_delay.seconds == 5
    bad = error_details_pb2.BadRequest()
    assert found["BadRequest"].Unpack(bad)
    assert bad.field_violations[0].field == "a.b"


def test_nothing_is_sent_that_does_not_apply() -> None:
    assert set(details(to_status(Refused("JOB_NOT_FOUND", "no")))) == {"ErrorInfo"}


@given(
    st.text(max_size=5000),
    st.dictionaries(st.text(max_size=300), st.text(max_size=3000), max_size=40),
    st.dictionaries(st.text(max_size=300), st.text(max_size=3000), max_size=40),
)
def test_what_travels_fits_into_the_metadata_of_a_call(
    text: str, fields: dict[str, str], metadata: dict[str, str]
) -> None:
    def clean(value: str) -> str:
        return value.encode("utf-8", "replace").decode()

    fields = {clean(name): clean(value) for name, value in fields.items()}
    metadata = {clean(name): clean(value) for name, value in metadata.items()}
    text = clean(text)
    message, key, packed = trailer(Refused("INVALID_JOB", text, fields=fields, metadata=metadata))
    assert key == DETAILS_KEY
    assert len(packed) <= 4096
    assert 3 * len(message.encode()) <= 3 * 1100
    status = status_pb2.Status.FromString(packed)
    assert status.message == message
    if len(text) < 100:
        assert message == text


@pytest.mark.parametrize("count", [1, 3])
def test_the_first_fields_stay(count: int) -> None:
    fields = {f"field{number}": "x" * 50 for number in range(count * 30)}
    bad = error_details_pb2.BadRequest()
    status = status_pb2.Status.FromString(trailer(Refused("INVALID_JOB", "no", fields=fields))[2])
    assert details(status)["BadRequest"].Unpack(bad)
    names = [item.field for item in bad.field_violations]
    assert names == list(fields)[: len(names)]
    assert len(names) >= 30
