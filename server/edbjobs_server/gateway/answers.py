"""Answers in JSON, errors included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway import shapes
from edbjobs_server.rpc.errors import entry


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with a value."""
    return web.Response(text=shapes.dumps(value), status=status, content_type="application/json", headers=headers)


def error(refused: Refused, http: int | None = None, **more: Any) -> web.Response:
    """Answer with an error: text, reason, the fields that are wrong, and what programs need besides.

    Parameters
    ----------
    refused : Refused
        The error.
    http : int, optional
        Status, where the documented one is not that of the table.
    **more
        Further keys of the body.
    """
    found = entry(refused)
    body = {
        "success": False,
        "error": refused.message,
        "reason": refused.reason,
        "fields": dict(refused.fields),
        "metadata": dict(refused.metadata),
        **more,
    }
    headers = {}
    if found.retry_seconds:
        headers["Retry-After"] = f"{found.retry_seconds:.0f}"
    if found.http == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="edbjobs"'
    return answer(body, http or found.http, headers)
