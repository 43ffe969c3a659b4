"""Conversion of google.rpc.Status, as sent with a gRPC error, to the client's exceptions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.rpc import error_details_pb2, status_pb2

from edbjobs import _exceptions as e

__all__ = ["from_call", "from_status"]

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "edbjobs"

# Numbers of google.rpc.Code, which are those of grpc.StatusCode.
_DEADLINE_EXCEEDED = 4
_UNAVAILABLE = 14
_BY_CODE: dict[int, type[e.EdbJobsError]] = {
    3: e.InvalidRequestError,
    _DEADLINE_EXCEEDED: e.DeadlineError,
    5: e.NotFoundError,
    6: e.ConflictError,
    7: e.ForbiddenError,
    8: e.BusyError,
    9: e.StateError,
    10: e.ConflictError,
    11: e.OutOfRangeError,
    12: e.NotServedError,
    _UNAVAILABLE: e.BusyError,
    16: e.AuthenticationError,
}
# Error texts of grpc when the peer speaks HTTP/1.1 or another protocol.
_NOT_GRPC = ("http1.x server", "parsing HTTP/2", "SETTINGS frame", "wrong version number")


def from_status(status: Any) -> e.EdbJobsError:
    """Build the exception for a ``google.rpc.Status`` of the service."""
    reason, metadata, fields = "", {}, {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            fields = {item.field: item.description for item in bad.field_violations}
    kind = _BY_CODE.get(status.code, e.ServiceError)
    return kind(status.message, reason=reason, fields=fields, metadata=metadata)


def from_call(
    code: int, details: str, trailers: Iterable[tuple[str, str | bytes]] | None, target: str
) -> e.EdbJobsError:
    """Build the exception for a failed call.

    Parameters
    ----------
    code : int
        Number of the gRPC status code.
    details : str
        Its text.
    trailers : iterable of (str, str or bytes), optional
        Trailing metadata; ``grpc-status-details-bin`` shows that the service itself answered.
    target : str
        Address, for the message.
    """
    for key, value in trailers or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    if code == _UNAVAILABLE:
        return _unreachable(details, target)
    if code == _DEADLINE_EXCEEDED:
        return e.DeadlineError(f"the service at {target} did not answer in time", reason="DEADLINE")
    return _BY_CODE.get(code, e.ServiceError)(details or f"the service at {target} returned status {code}")


def _unreachable(details: str, target: str) -> e.EdbJobsError:
    if any(text in details for text in _NOT_GRPC):
        return e.NotEdbJobsError(
            f"the server at {target} does not speak gRPC ({details}); give the service's gRPC address,"
            " not its HTTP one",
            reason="NOT_EDBJOBS",
        )
    # grpc reports "failed to connect to all addresses; last error: UNKNOWN: ipv4:...: Connection refused".
    cause = details.rpartition(": ")[2] if "failed to connect" in details else details
    return e.ConnectError(
        f"no edbjobs service answers at {target}: {cause}; start one with 'edbjobs up' or give its address"
        " with EDBJOBS_TARGET",
        reason="UNREACHABLE",
    )
