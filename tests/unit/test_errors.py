from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from edbjobs_server.contract.errors import DETAILS_KEY, TABLE, to_status, trailer
from edbjobs_server.core.errors import Refused
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos" / "edbjobs" / "v1"
SERVER = ROOT / "server" / "edbjobs_server"
CODES = {code.name: code for code in grpc.StatusCode}


def reasons_of_the_contract() -> set[tuple[str, str]]:
    """CODE/REASON as the services' comments name them."""
    found = set()
    for file in PROTOS.glob("*_service.proto"):
        text = re.sub(r"\n\s*//\s?", " ", file.read_text())
        found |= set(re.findall(r"\b([A-Z]+(?:_[A-Z]+)*)/([A-Z]+(?:_[A-Z]+)*)\b", text))
    return found


def reasons_of_the_code() -> dict[str, Path]:
    """First arguments of all calls of Refused; each must be written out, so that it can be found."""
    found: dict[str, Path] = {}
    for file in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused"):
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found[str(first.value)] = file
            elif file.name != "errors.py":  # the table itself handles any
                found[f"not written out in line {node.lineno}"] = file
    return found


def details(status: Any) -> dict[str, Any]:
    return {item.type_url.rpartition(".")[2]: item for item in status.details}


def test_the_contract_names_no_reason_that_is_not_in_the_table() -> None:
    named = reasons_of_the_contract()
    assert ("NOT_FOUND", "JOB_NOT_FOUND") in named
    assert [(code, reason) for code, reason in sorted(named) if TABLE[reason].code is not CODES[code]] == []


def test_the_code_uses_no_reason_that_is_not_in_the_table() -> None:
    used = reasons_of_the_code()
    assert "UNAUTHENTICATED" in used
    assert {reason: file.name for reason, file in used.items() if reason not in TABLE} == {}


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


def test_a_reason_outside_the_table_is_internal() -> None:
    status = to_status(Refused("SOMETHING_NEW", "x"))
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert len(details(status)) == 1


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
