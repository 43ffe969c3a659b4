"""Pages of lists that are made anew for each call, such as the jobs of a cluster."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeVar

from google.protobuf.message import Message

from edbjobs_server.core.errors import Refused

M = TypeVar("M", bound=Message)

DEFAULT_SIZE = 50
MAX_SIZE = 1000
MAX_BYTES = 3 * 1024 * 1024  # clients of gRPC accept 4 MiB by default


def page_size(requested: int) -> int:
    """Return the number of items on a page.

    Raises
    ------
    Refused
        INVALID_REQUEST for a negative number.
    """
    if requested < 0:
        what = f"expected a number from 0 to {MAX_SIZE}"
        raise Refused("INVALID_REQUEST", f"page_size: {what}", fields={"page_size": what})
    return min(requested or DEFAULT_SIZE, MAX_SIZE)


def page_of(
    items: Sequence[M], requested: Message, size: int, token: str, key_of: Callable[[M], str]
) -> tuple[Sequence[M], str]:
    """Return one page of a list, and the token of the next page; empty: this was the last one.

    The list may have changed since the page before: it goes on behind the last item of that page, or, if that item
    is gone, at its former place.

    Parameters
    ----------
    items : sequence of Message
        The whole list.
    requested : Message
        The request without page_size and page_token, which must be equal for all pages.
    size : int
        `page_size` of the request.
    token : str
        `page_token` of the request.
    key_of : callable
        Returns what identifies an item.

    Raises
    ------
    Refused
        INVALID_PAGE_TOKEN, or INVALID_REQUEST for a negative size.
    """
    scope = _scope(requested)
    start = _start(items, scope, token, key_of) if token else 0
    page: list[M] = []
    room = MAX_BYTES
    for item in items[start : start + page_size(size)]:
        room -= item.ByteSize()
        if page and room < 0:
            break
        page.append(item)
    end = start + len(page)
    return page, _token(scope, end, key_of(page[-1])) if end < len(items) and page else ""


def _scope(requested: Message) -> str:
    data = requested.DESCRIPTOR.full_name.encode() + requested.SerializeToString(deterministic=True)
    return blake2b(data, digest_size=8).hexdigest()


def _token(scope: str, end: int, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([scope, end, key]).encode()).decode()


def _start(items: Sequence[M], scope: str, token: str, key_of: Callable[[M], str]) -> int:
    try:
        found, end, key = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError):
        found = end = key = None
    if found != scope or type(end) is not int or end < 1:
        raise Refused(
            "INVALID_PAGE_TOKEN",
            "the page token was not made by this service for this request: start again without a token",
            fields={"page_token": "not from a page of the same request"},
        )
    if end <= len(items) and key_of(items[end - 1]) == key:
        return end
    return next((index + 1 for index, item in enumerate(items) if key_of(item) == key), min(end - 1, len(items)))
