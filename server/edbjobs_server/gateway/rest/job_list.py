"""`GET /jobs`: pages, and the documented list of all live jobs and the newest ended ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, islice, pairwise
from operator import attrgetter
from urllib.parse import urlencode

from aiohttp import web
from edbjobs.v1 import job_pb2, job_state_pb2, jobs_messages_pb2

from edbjobs_server.auth.roles import hide_environment
from edbjobs_server.contract import codec
from edbjobs_server.core.job import Job
from edbjobs_server.gateway.rest import requests
from edbjobs_server.gateway.rest.job_text import jobs_text
from edbjobs_server.gateway.rest.responses import send_pieces
from edbjobs_server.gateway.security import CALLER
from edbjobs_server.manager.job_manager import JobManager

PAGE = 1000
SLICE = 250  # jobs written at once: their waiting reasons are computed on the event loop, 2 ms for this many
RUN = 5000  # jobs sorted at once: a sort holds the interpreter lock, 20 ms for 100,000
NEWEST_ENDED = 1000
_PARAMETERS = ("limit", "page_token", "status", "user", "batch")
_ENDED_TOKEN = "ended."  # noqa: S105 (prefix of the token of a page of ended jobs)
_ENDED = (job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED)


async def jobs(manager: JobManager, request: web.Request) -> web.StreamResponse:
    """Answer `GET /jobs`.

    Without parameters: a bare array of all live jobs and the newest 1,000 ended ones, oldest first. With any of
    limit, page_token, status, user and batch: a page, newest first. The token of the next page is in the header
    ``X-Next-Page-Token``; revision and store of the list are in ``X-Revision`` and ``X-Store-Id``.
    """
    if not any(name in request.query for name in _PARAMETERS):
        return await _documented_list(manager, request)
    page, token = await _page(manager, request)
    for job in page.jobs:
        hide_environment(request[CALLER], job)
    text = await asyncio.to_thread(jobs_text, page.jobs)
    headers = _headers(request, page.position.revision, page.position.store_id, token)
    return web.Response(text=f"[{text}]", content_type="application/json", headers=headers)


def _headers(request: web.Request, revision: int, store_id: str, token: str) -> dict[str, str]:
    headers = {"X-Revision": str(revision), "X-Store-Id": store_id}
    if token:
        headers["X-Next-Page-Token"] = token
        more = urlencode({"page_token": token, **{k: v for k, v in request.query.items() if k != "page_token"}})
        headers["Link"] = f'<{request.path}?{more}>; rel="next"'
    return headers


async def _page(manager: JobManager, request: web.Request) -> tuple[jobs_messages_pb2.ListJobsResponse, str]:
    job_filter = requests.job_filter(request.query, request.query.getall("status", []))
    token = request.query.get("page_token", "")
    ended_only = token.startswith(_ENDED_TOKEN)
    if ended_only:
        token = token[len(_ENDED_TOKEN) :]
        job_filter.states[:] = _ENDED
    page = await manager.list_jobs(
        jobs_messages_pb2.ListJobsRequest(
            filter=job_filter,
            page_size=requests.number_of(request.query, "limit", PAGE, PAGE),
            page_token=requests.text_of(token, "page_token"),
            order=jobs_messages_pb2.JOB_ORDER_CREATE_TIME_DESCENDING,
            view=job_pb2.JOB_VIEW_FULL,
        )
    )
    next_token = page.next_page_token
    return page, _ENDED_TOKEN + next_token if ended_only and next_token else next_token


async def _documented_list(manager: JobManager, request: web.Request) -> web.StreamResponse:
    """Send the live jobs as they are at one revision, and the newest ended ones, slice by slice.

    There may be 100,000 live jobs, so only their order is held in memory, never the whole list.
    """
    live = manager.live_jobs()
    # Read after the live jobs: a job that ends in between is found twice, and is listed as it ended.
    ended, token = await _newest_ended(manager)
    headers = _headers(request, live.revision, live.store_id, _ENDED_TOKEN + token if token else "")

    def explained(job: job_pb2.Job) -> job_pb2.Job:
        return hide_environment(request[CALLER], manager.explained(job))

    pieces = _pieces(_oldest_first(live.jobs, ended), explained)
    return await send_pieces(request, pieces, "application/json", headers)


async def _newest_ended(manager: JobManager) -> tuple[list[job_pb2.Job], str]:
    """Return the newest ended jobs, and the token of the page after them."""
    found: list[job_pb2.Job] = []
    token = ""
    while True:
        page = await manager.list_jobs(
            jobs_messages_pb2.ListJobsRequest(
                filter=jobs_messages_pb2.JobFilter(states=_ENDED),
                page_size=NEWEST_ENDED - len(found),
                page_token=token,
                order=jobs_messages_pb2.JOB_ORDER_CREATE_TIME_DESCENDING,
                view=job_pb2.JOB_VIEW_FULL,
            )
        )
        found += page.jobs
        token = page.next_page_token
        if not token or len(found) >= NEWEST_ENDED:
            return found, token


def _oldest_first(live: list[Job], ended: Sequence[job_pb2.Job]) -> Iterator[job_pb2.Job]:
    """Yield jobs in order of creation; convert each to its message only then."""
    uids = {job.uid for job in ended}
    others = deque(sorted((codec.seconds(job.create_time), number) for number, job in enumerate(ended)))
    for job in _by_time(live):
        while others and others[0][0] < job.create_time:
            yield ended[others.popleft()[1]]
        if job.uid not in uids:
            yield codec.job_to_message(job)
    yield from (ended[number] for _, number in others)


def _by_time(live: Sequence[Job]) -> Iterable[Job]:
    """Sort jobs by creation time, in runs; these are merged only if a clock was set back."""
    created = attrgetter("create_time")
    runs = [sorted(live[first : first + RUN], key=created) for first in range(0, len(live), RUN)]
    if all(created(one[-1]) <= created(other[0]) for one, other in pairwise(runs)):
        return chain.from_iterable(runs)
    return merge(*runs, key=created)


async def _pieces(
    ordered: Iterator[job_pb2.Job], explained: Callable[[job_pb2.Job], job_pb2.Job]
) -> AsyncIterator[bytes]:
    """Yield an array slice by slice; all but the waiting reasons is computed in a thread."""
    part = await asyncio.to_thread(_take, ordered)
    start = b"["
    while part:
        for job in part:
            explained(job)
        text, part = await asyncio.to_thread(lambda done: (jobs_text(done).encode(), _take(ordered)), part)
        yield start + text
        start = b","
    yield b"]" if start == b"," else b"[]"


def _take(ordered: Iterator[job_pb2.Job]) -> list[job_pb2.Job]:
    return list(islice(ordered, SLICE))
