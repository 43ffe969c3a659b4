"""The error of every refused request: a reason for programs, a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

# Reasons as the contract's enum ErrorReason has them, without its prefix.
ErrorReason = Literal[
    "INVALID_REQUEST",
    "INVALID_JOB",
    "INFEASIBLE",
    "INVALID_PRIORITY",
    "INVALID_LIMITS",
    "INVALID_PAGE_TOKEN",
    "FILTER_REQUIRED",
    "TOO_MANY_ITEMS",
    "TOO_LARGE",
    "PROJECT_NOT_FOUND",
    "PROJECT_NOT_ALLOWED",
    "PROJECT_NOT_SHARED",
    "DESIGN_NOT_FOUND",
    "SETUP_NOT_FOUND",
    "SOLVER_NOT_ALLOWED",
    "ENVIRONMENT_NOT_ALLOWED",
    "DEPENDENCY_NOT_FOUND",
    "JOB_NOT_FOUND",
    "BATCH_NOT_FOUND",
    "ATTEMPT_NOT_FOUND",
    "LOG_NOT_FOUND",
    "FILE_NOT_FOUND",
    "JOB_EXISTS",
    "REQUEST_ID_REUSED",
    "SOLVER_NOT_FOUND",
    "NO_SCHEDULER",
    "NO_SHARED_DIR",
    "LOCAL_NOT_ALLOWED",
    "INVALID_TEMPLATE",
    "JOB_ENDED",
    "JOB_STARTED",
    "JOB_NOT_ENDED",
    "JOB_NOT_UNKILLABLE",
    "JOB_SUPERSEDED",
    "ETAG_MISMATCH",
    "FILE_CHANGED",
    "REVISION_TOO_OLD",
    "REVISION_IN_FUTURE",
    "OTHER_STORE",
    "OFFSET_BEYOND_END",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "HOST_NOT_ALLOWED",
    "ORIGIN_NOT_ALLOWED",
    "OVERLOADED",
    "PATH_UNREACHABLE",
    "STORE_UNAVAILABLE",
    "SCHEDULER_UNREACHABLE",
    "DRAINING",
    "NO_SAMPLE",
    "DEADLINE",
    "NOT_SERVED",
    "INTERNAL",
]
_REASONS = frozenset(get_args(ErrorReason))


class Refused(Exception):
    """A request that cannot be met; nothing of it was done.

    Parameters
    ----------
    reason : ErrorReason
        What ``contract/errors.py`` maps to a gRPC code and an HTTP status.
    message : str
        What was wrong, where, and what to do.
    fields : dict, optional
        Field path to what is wrong with it.
    metadata : dict, optional
        Values for programs, under the keys that the contract names for the reason.

    Raises
    ------
    ValueError
        There is no such reason.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        fields: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if reason not in _REASONS:
            raise ValueError(f"expected a reason of the contract, got {reason!r}")
        super().__init__(message)
        self.reason: ErrorReason = reason
        self.message = message
        self.fields = dict(fields or {})
        self.metadata = dict(metadata or {})


def store_unavailable(detail: str) -> Refused:
    """Return the error of a change that could not be written."""
    return Refused(
        "STORE_UNAVAILABLE",
        f"the state folder cannot be written ({detail}); running solves go on, nothing acknowledged is lost; "
        "free space or fix the volume, then try again",
    )


def path_unreachable(text: str) -> Refused:
    """Return the error of a request whose path does not respond."""
    return Refused("PATH_UNREACHABLE", text)
