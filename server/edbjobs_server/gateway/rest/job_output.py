"""Answers with the events and the outputs of one job."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from aiohttp import hdrs, web
from edbjobs.v1 import jobs_messages_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.events.frames import FrameEncoder
from edbjobs_server.gateway.rest import requests
from edbjobs_server.gateway.rest.parsed_log import LogParser
from edbjobs_server.gateway.rest.responses import answer, send_pieces
from edbjobs_server.manager.job_manager import JobManager

MAX_EVENTS = 1000
MAX_RANGE = 4 * 1024 * 1024
_STREAMS = {
    "stdout": jobs_messages_pb2.LOG_STREAM_STDOUT,
    "stderr": jobs_messages_pb2.LOG_STREAM_STDERR,
    "solver": jobs_messages_pb2.LOG_STREAM_SOLVER,
    "script": jobs_messages_pb2.LOG_STREAM_SCRIPT,
}


async def job_events(manager: JobManager, request: web.Request) -> web.Response:
    """Answer `GET /jobs/{id}/events`: the events of a job after a revision, oldest first.

    ``next_after_revision`` is null after the last page. Else the next page starts there, also if this one is
    short: the search through other jobs' events is bounded.
    """
    after = requests.number_of(request.query, "after_revision", 0, 2**63 - 1)
    limit = requests.number_of(request.query, "limit", MAX_EVENTS, MAX_EVENTS) or MAX_EVENTS
    page = await manager.job_events(await requests.job_of(manager, request), after, limit)
    encoder = FrameEncoder(manager)
    body = {
        "job_id": page.job.id,
        "uid": page.job.uid,
        "store_id": page.changes.position.store_id,
        "events": [{"event": frame.name, "data": frame.payload} async for frame in encoder.encode(page.changes)],
        "next_after_revision": page.next_after_revision,
    }
    return answer(body)


async def job_log(manager: JobManager, request: web.Request) -> web.StreamResponse:
    """Answer `GET /jobs/{id}/logs/{stream}`: an output, or a range of its bytes."""
    stream = _STREAMS.get(request.match_info["stream"])
    if stream is None:
        raise Refused("LOG_NOT_FOUND", f"expected one of {', '.join(_STREAMS)}, got {request.match_info['stream']!r}")
    attempt = requests.number_of(request.query, "attempt", 0, 2**31 - 1)
    message = jobs_messages_pb2.ReadLogRequest(
        job=await requests.job_of(manager, request), attempt=attempt or None, stream=stream
    )
    if hdrs.RANGE not in request.headers:
        return await _whole(request, manager.read_log(message))
    first, last = _range(request)
    message.offset = first
    message.max_bytes = MAX_RANGE if last is None else min(last - first + 1, MAX_RANGE)
    return await _ranged(manager.read_log(message))


async def parsed_log(manager: JobManager, request: web.Request) -> web.StreamResponse:
    """Answer `GET /api/jobs/{id}/log`: the parsed log of the job's last attempt; 204 if there is none."""
    message = jobs_messages_pb2.ReadLogRequest(job=await requests.job_of(manager, request), stream=_STREAMS["solver"])
    parser = LogParser()
    attempt = 0
    try:
        async for piece in manager.read_log(message):
            attempt = piece.attempt
            await asyncio.to_thread(parser.feed, piece.data)
    except Refused as refused:
        if refused.reason not in ("LOG_NOT_FOUND", "ATTEMPT_NOT_FOUND"):
            raise
        return web.Response(status=204)
    if not attempt:
        return web.Response(status=204)
    return answer(parser.result(attempt))


def _range(request: web.Request) -> tuple[int, int | None]:
    """Return the first offset of a range of bytes (negative: from the end) and the last one."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers[hdrs.RANGE].strip())
    if match is None or not any(match.groups()):
        raise Refused("INVALID_REQUEST", "Range: expected one range of bytes, such as bytes=0-65535 or bytes=-4096")
    first, last = match.groups()
    if not first:
        return -int(last), None
    if last and int(last) < int(first):
        raise Refused("OFFSET_BEYOND_END", "Range: the last byte comes before the first; swap them")
    return int(first), int(last) if last else None


async def _ranged(pieces: AsyncIterator[jobs_messages_pb2.ReadLogResponse]) -> web.Response:
    """Answer with as much of a range as fits into one answer; Content-Range reports which bytes these are."""
    found: list[bytes] = []
    size, first, attempt = 0, 0, 0
    async for piece in pieces:
        first = first if found else piece.offset
        attempt = piece.attempt
        found.append(piece.data)
        size += len(piece.data)
        if not piece.data or size >= MAX_RANGE:
            break
    if not size:
        raise Refused("OFFSET_BEYOND_END", f"there are no bytes at {first} yet", metadata={"size_bytes": str(first)})
    headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{first + size - 1}/*"}
    headers["X-Attempt"] = str(attempt)
    return web.Response(body=b"".join(found), status=206, content_type="text/plain", charset="utf-8", headers=headers)


async def _whole(request: web.Request, pieces: AsyncIterator[jobs_messages_pb2.ReadLogResponse]) -> web.StreamResponse:
    """Send the present content piece by piece."""
    first = await anext(pieces)

    async def contents() -> AsyncIterator[bytes]:
        piece = first
        while piece.data:
            yield piece.data
            piece = await anext(pieces)

    headers = {"Accept-Ranges": "bytes", "X-Attempt": str(first.attempt)}
    return await send_pieces(request, contents(), "text/plain", headers)
