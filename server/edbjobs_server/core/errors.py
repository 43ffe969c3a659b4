"""The error of every refused request: a reason for programs, a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """A request that cannot be met; nothing of it was done.

    Parameters
    ----------
    reason : str
        UPPER_SNAKE reason; ``contract/errors.py`` maps it to a gRPC code and an HTTP status.
    message : str
        What was wrong, where, and what to do.
    fields : dict, optional
        Field path to what is wrong with it.
    metadata : dict, optional
        Values for programs, for example the uid of the job that exists.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        fields: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
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
