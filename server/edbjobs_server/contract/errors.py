"""The one table of errors: each reason's gRPC code and HTTP status, and the details a client gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import grpc
from edbjobs.v1 import errors_pb2
from google.rpc import error_details_pb2, status_pb2

from edbjobs_server.core.errors import ErrorReason, Refused

DOMAIN = "edbjobs"
DETAILS_KEY = "grpc-status-details-bin"
# A peer may drop a call whose metadata exceeds 8 KiB (grpc.max_metadata_size). Text and details, which
# base64 makes a third longer, share them.
_MAX_TEXT = 1024
_MAX_DETAILS = 4096

_Code = grpc.StatusCode


class Entry(NamedTuple):
    """How a reason is reported: gRPC code, HTTP status, seconds after which a retry may help (0: never)."""

    code: grpc.StatusCode
    http: int
    retry_seconds: float = 0.0


TABLE: dict[ErrorReason, Entry] = {
    "INVALID_REQUEST": Entry(_Code.INVALID_ARGUMENT, 400),
    "INVALID_JOB": Entry(_Code.INVALID_ARGUMENT, 400),
    "INFEASIBLE": Entry(_Code.INVALID_ARGUMENT, 400),
    "INVALID_PRIORITY": Entry(_Code.INVALID_ARGUMENT, 400),
    "INVALID_LIMITS": Entry(_Code.INVALID_ARGUMENT, 400),
    "INVALID_PAGE_TOKEN": Entry(_Code.INVALID_ARGUMENT, 400),
    "FILTER_REQUIRED": Entry(_Code.INVALID_ARGUMENT, 400),
    "TOO_MANY_ITEMS": Entry(_Code.INVALID_ARGUMENT, 400),
    "TOO_LARGE": Entry(_Code.INVALID_ARGUMENT, 413),
    "PROJECT_NOT_FOUND": Entry(_Code.INVALID_ARGUMENT, 400),
    "PROJECT_NOT_ALLOWED": Entry(_Code.INVALID_ARGUMENT, 400),
    "PROJECT_NOT_SHARED": Entry(_Code.INVALID_ARGUMENT, 400),
    "DESIGN_NOT_FOUND": Entry(_Code.INVALID_ARGUMENT, 400),
    "SETUP_NOT_FOUND": Entry(_Code.INVALID_ARGUMENT, 400),
    "SOLVER_NOT_ALLOWED": Entry(_Code.INVALID_ARGUMENT, 400),
    "ENVIRONMENT_NOT_ALLOWED": Entry(_Code.INVALID_ARGUMENT, 400),
    "DEPENDENCY_NOT_FOUND": Entry(_Code.INVALID_ARGUMENT, 400),
    "JOB_NOT_FOUND": Entry(_Code.NOT_FOUND, 404),
    "BATCH_NOT_FOUND": Entry(_Code.NOT_FOUND, 404),
    "ATTEMPT_NOT_FOUND": Entry(_Code.NOT_FOUND, 404),
    "LOG_NOT_FOUND": Entry(_Code.NOT_FOUND, 404),
    "FILE_NOT_FOUND": Entry(_Code.NOT_FOUND, 404),
    "JOB_EXISTS": Entry(_Code.ALREADY_EXISTS, 409),
    "REQUEST_ID_REUSED": Entry(_Code.ALREADY_EXISTS, 409),
    "SOLVER_NOT_FOUND": Entry(_Code.FAILED_PRECONDITION, 409),
    "NO_SCHEDULER": Entry(_Code.FAILED_PRECONDITION, 409),
    "NO_SHARED_DIR": Entry(_Code.FAILED_PRECONDITION, 409),
    "LOCAL_NOT_ALLOWED": Entry(_Code.FAILED_PRECONDITION, 409),
    "INVALID_TEMPLATE": Entry(_Code.FAILED_PRECONDITION, 409),
    "JOB_ENDED": Entry(_Code.FAILED_PRECONDITION, 409),
    "JOB_STARTED": Entry(_Code.FAILED_PRECONDITION, 409),
    "JOB_NOT_ENDED": Entry(_Code.FAILED_PRECONDITION, 409),
    "JOB_NOT_UNKILLABLE": Entry(_Code.FAILED_PRECONDITION, 409),
    "JOB_SUPERSEDED": Entry(_Code.FAILED_PRECONDITION, 409),
    "ETAG_MISMATCH": Entry(_Code.ABORTED, 409),
    "FILE_CHANGED": Entry(_Code.ABORTED, 409),
    "REVISION_TOO_OLD": Entry(_Code.OUT_OF_RANGE, 410),
    "REVISION_IN_FUTURE": Entry(_Code.OUT_OF_RANGE, 400),
    "OTHER_STORE": Entry(_Code.OUT_OF_RANGE, 409),
    "OFFSET_BEYOND_END": Entry(_Code.OUT_OF_RANGE, 416),
    "UNAUTHENTICATED": Entry(_Code.UNAUTHENTICATED, 401),
    "PERMISSION_DENIED": Entry(_Code.PERMISSION_DENIED, 403),
    "HOST_NOT_ALLOWED": Entry(_Code.PERMISSION_DENIED, 403),
    "ORIGIN_NOT_ALLOWED": Entry(_Code.PERMISSION_DENIED, 403),
    "OVERLOADED": Entry(_Code.RESOURCE_EXHAUSTED, 429, 1.0),
    "PATH_UNREACHABLE": Entry(_Code.UNAVAILABLE, 503, 10.0),
    "STORE_UNAVAILABLE": Entry(_Code.UNAVAILABLE, 503, 5.0),
    "SCHEDULER_UNREACHABLE": Entry(_Code.UNAVAILABLE, 503, 30.0),
    "DRAINING": Entry(_Code.UNAVAILABLE, 503, 2.0),
    "NO_SAMPLE": Entry(_Code.UNAVAILABLE, 503, 1.0),
    "DEADLINE": Entry(_Code.DEADLINE_EXCEEDED, 504),
    "NOT_SERVED": Entry(_Code.UNIMPLEMENTED, 501),
    "INTERNAL": Entry(_Code.INTERNAL, 500),
}


def entry(refused: Refused) -> Entry:
    """Return the entry of an error."""
    return TABLE[refused.reason]


def to_reason(refused: Refused) -> errors_pb2.ErrorReason.ValueType:
    """Return the reason of an error, for results of calls on many jobs."""
    return errors_pb2.ErrorReason.Value(f"ERROR_REASON_{refused.reason}")


def to_status(refused: Refused) -> Any:
    """Return the ``google.rpc.Status`` of an error.

    Returns
    -------
    google.rpc.status_pb2.Status
        With ErrorInfo (reason, domain, metadata), BadRequest when fields are named, and RetryInfo when trying
        again may help.
    """
    found = entry(refused)
    status = status_pb2.Status(code=found.code.value[0], message=refused.message)
    info = error_details_pb2.ErrorInfo(reason=refused.reason, domain=DOMAIN, metadata=refused.metadata)
    status.details.add().Pack(info)
    if found.retry_seconds:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(found.retry_seconds * 1e9))
        status.details.add().Pack(retry)
    if refused.fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        fields = [violation(field=name, description=text) for name, text in refused.fields.items()]
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=fields))
    return status


def trailer(refused: Refused) -> tuple[str, str, bytes]:
    """Return what an RPC ends with: text, and key and value of the metadata that holds the details.

    All is cut to what the metadata of a call can hold; the first fields that are wrong stay.
    """
    text = _cut(refused.message)
    metadata, room = _first(refused.metadata, _MAX_DETAILS - 3 * _MAX_TEXT // 2)
    fields, _ = _first(refused.fields, room)
    kept = Refused(refused.reason, text, fields=fields, metadata=metadata)
    return text, DETAILS_KEY, to_status(kept).SerializeToString()


def item_status(refused: Refused, room: int) -> Any:
    """Return the ``google.rpc.Status`` of an item of a call on many, cut so that it takes about so many bytes."""
    status = to_status(refused)
    if status.ByteSize() <= room:
        return status
    metadata, left = _first(refused.metadata, room // 2)
    fields, _ = _first(refused.fields, left)
    return to_status(Refused(refused.reason, _cut(refused.message, room // 4), fields=fields, metadata=metadata))


def reason_number(refused: Refused) -> errors_pb2.ErrorReason.ValueType:
    """Return the number of a reason, beside a status that has its name packed."""
    name = refused.reason if refused.reason in TABLE else "INTERNAL"
    return errors_pb2.ErrorReason.Value(f"ERROR_REASON_{name}")


def _first(mapping: Mapping[str, str], room: int) -> tuple[dict[str, str], int]:
    kept = {}
    for name, text in mapping.items():
        size = len(name.encode("utf-8", "replace")) + len(text.encode("utf-8", "replace")) + 16
        if size > room:
            break
        kept[name] = text
        room -= size
    return kept, room


def _cut(text: str, most: int = _MAX_TEXT) -> str:
    # The text travels percent-encoded, which makes three bytes of each that is not printable ASCII.
    cost = 0
    for index, char in enumerate(text):
        cost += 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode("utf-8", "replace"))
        if cost > most:
            return text[:index] + "..."
    return text


async def abort(context: grpc.aio.ServicerContext[Any, Any], refused: Refused) -> NoReturn:
    """End an RPC with an error and its details."""
    text, key, details = trailer(refused)
    await context.abort(entry(refused).code, text, trailing_metadata=((key, details),))
    raise AssertionError("context.abort raises")
