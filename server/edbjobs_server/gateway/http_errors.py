"""Reasons that only HTTP has: words of JSON bodies, not of the contract."""

from __future__ import annotations

from typing import Literal

from edbjobs_server.contract.errors import entry
from edbjobs_server.core.errors import Refused

HttpReason = Literal["METHOD_NOT_ALLOWED", "NOT_GRPC_WEB", "NOT_JSON", "NO_SUCH_ROUTE"]
STATUS: dict[HttpReason, int] = {
    "METHOD_NOT_ALLOWED": 405,
    "NOT_GRPC_WEB": 415,
    "NOT_JSON": 415,
    "NO_SUCH_ROUTE": 404,
}


class HttpRefused(Refused):
    """A request that no call can be made of; where it is answered as a call, it is INVALID_REQUEST.

    Parameters
    ----------
    word : HttpReason
        The reason in a JSON body.
    message : str
        What was wrong, and what to do.
    """

    def __init__(self, word: HttpReason, message: str) -> None:
        super().__init__("INVALID_REQUEST", message)
        self.word: HttpReason = word


def word_of(refused: Refused) -> str:
    """Return the reason of an error as JSON bodies and metrics have it."""
    return refused.word if isinstance(refused, HttpRefused) else refused.reason


def status_of(refused: Refused) -> int:
    """Return the HTTP status of an error."""
    return STATUS[refused.word] if isinstance(refused, HttpRefused) else entry(refused).http
