"""The page at ``/``: state of the service, the newest jobs and the partitions, as HTML without scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import jinja2
from aiohttp import web
from edbjobs._text import limit_text
from edbjobs.v1 import cluster_pb2, cluster_service_pb2, job_pb2, jobs_messages_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.codec import seconds
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL
from edbjobs_server.gateway.json_values import progress_json, status_of
from edbjobs_server.gateway.models import GIB
from edbjobs_server.gateway.security import Guard
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.util.timeouts import timeout

NEWEST = 50
_NEWEST_JOBS = jobs_messages_pb2.ListJobsRequest(
    page_size=NEWEST, order=jobs_messages_pb2.JOB_ORDER_CREATE_TIME_DESCENDING
)
ASK_SECONDS = 2.0  # limit of the wait for a slow scheduler
_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "page.css").read_text()


class Page:
    """Handler of ``/``.

    Parameters
    ----------
    manager : JobManager
        Source of what is shown.
    guard : Guard
        Authenticates browsers.
    """

    def __init__(self, manager: JobManager, guard: Guard) -> None:
        self._manager = manager
        self._guard = guard

    async def index(self, request: web.Request) -> web.StreamResponse:
        """Show the page; with ``?token=`` give the browser a session, and show it without the token in the URL."""
        token = request.query.get("token", "")
        caller = self._guard.identify(request, token)
        if token:
            response = web.Response(status=303, headers={"Location": "/"})
            self._guard.start_session(response)
            return response
        page = await self._manager.list_jobs(_NEWEST_JOBS)
        html = render(self._manager.status(caller), page.jobs, await self._partitions())
        return web.Response(text=html, content_type="text/html")

    async def _partitions(self) -> Sequence[cluster_pb2.Partition]:
        """Return the partitions; none if there is no cluster, or it does not answer in time."""
        detected = self._manager.detected_cluster
        if not any(found.responding for found in self._manager.schedulers() if found.name == detected):
            return ()
        try:
            async with timeout(ASK_SECONDS):
                return [partition async for partition in self._manager.all_partitions(detected)]
        except (Refused, asyncio.TimeoutError, TimeoutError):
            return ()

    async def style(self, request: web.Request) -> web.StreamResponse:
        """Return the page's style sheet."""
        return web.Response(text=_STYLE, content_type="text/css")


def render(
    status: cluster_service_pb2.GetSystemStatusResponse,
    jobs: Sequence[job_pb2.Job],
    partitions: Sequence[cluster_pb2.Partition],
) -> str:
    """Return the page's HTML."""
    clusters = [found for found in status.schedulers if found.name != LOCAL]
    return _TEMPLATE.render(status=status, clusters=clusters, newest=NEWEST, jobs=jobs, partitions=partitions)


def _local_time(stamp: Timestamp) -> str:
    return datetime.fromtimestamp(int(seconds(stamp))).isoformat(" ")


def _place(job: job_pb2.Job) -> str:
    """Return where a job runs: its executor, the scheduler's id, and the nodes."""
    nodes = job.attempts[-1].nodes if job.scheduler_job_id and job.attempts else ()
    return " ".join(filter(None, (job.scheduler, job.scheduler_job_id, ", ".join(nodes))))


def _details(job: job_pb2.Job) -> str:
    """Return why a job waits, how far its solve is, or how it ended."""
    if job.waiting.message or not job.HasField("progress"):
        return job.waiting.message or job.outcome.message
    progress = progress_json(job.progress)
    delta = f", delta S {progress['delta_s']:.4g}" if progress["delta_s"] is not None else ""
    return f"{progress['setup']}: {progress['phase']}, pass {progress['adaptive_pass']}{delta}"


def _gib(size: int) -> str:
    return f"{size / GIB:.0f}"


def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "details": _details,
        "gib": _gib,
        "limit_text": limit_text,
        "local_time": _local_time,
        "place": _place,
        "status_of": status_of,
    }
    return environment.get_template("page.html")


_TEMPLATE = _load_template()
