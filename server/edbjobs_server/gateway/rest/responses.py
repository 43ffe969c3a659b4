"""JSON answers, errors included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from edbjobs_server.contract.errors import entry
from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.http_errors import status_of, word_of
from edbjobs_server.gateway.json_values import dumps
from edbjobs_server.gateway.rest.bodies import Error
from edbjobs_server.gateway.security import HEADERS
from edbjobs_server.util.timeouts import timeout

_WRITE_SECONDS = 60.0  # limit for a client to read a piece


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with a JSON value, or a model of one."""
    value = value.model_dump() if isinstance(value, BaseModel) else value
    return web.Response(text=dumps(value), status=status, content_type="application/json", headers=headers)


async def send_pieces(
    request: web.Request, pieces: AsyncIterator[bytes], content_type: str, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a long answer piece by piece, no faster than the client reads it.

    Parameters
    ----------
    request : Request
        The request.
    pieces : async iterator of bytes
        Parts of the body, which is UTF-8.
    content_type : str
        Content type of the body.
    headers : mapping of str to str
        Headers besides those of every answer.

    Raises
    ------
    ConnectionError
        The client does not read, or the rest is not available: the status is sent already, so that only closing
        the connection can report it.
    """
    response = web.StreamResponse(headers={**HEADERS, **headers})
    response.content_type = content_type
    response.charset = "utf-8"
    await response.prepare(request)
    try:
        async for piece in pieces:
            async with timeout(_WRITE_SECONDS):
                await response.write(piece)
    except (Refused, asyncio.TimeoutError) as failed:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError(f"{request.path}: {failed}") from failed
    await response.write_eof()
    return response


def error(refused: Refused, http: int | None = None, **more: Any) -> web.Response:
    """Answer with an error: text, reason code, the invalid fields, and metadata for programs.

    Parameters
    ----------
    refused : Refused
        The error.
    http : int, optional
        Status, where the documented one differs from the reason's.
    **more
        Further keys of the body.
    """
    retry_seconds, status = entry(refused).retry_seconds, status_of(refused)
    fields, metadata = dict(refused.fields), dict(refused.metadata)
    body = Error(error=refused.message, reason=word_of(refused), fields=fields, metadata=metadata, **more)
    headers = {}
    if retry_seconds:
        headers["Retry-After"] = f"{retry_seconds:.0f}"
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="edbjobs"'
    return answer(body, http or status, headers)
