"""The page at ``/``: how the service is, without a line of script."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from aiohttp import web
from edbjobs._text import limit_text
from edbjobs.v1 import cluster_pb2, cluster_service_pb2, job_pb2, jobs_messages_pb2

from edbjobs_server.contract.codec import seconds
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL
from edbjobs_server.gateway.rest import shapes
from edbjobs_server.gateway.security import Guard
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.util.timeouts import within

NEWEST = 50
ASK_SECONDS = 2.0  # a page is not kept waiting for a slow scheduler
_STYLE = (Path(__file__).parent / "page.css").read_text()
_COLUMNS = ("Job", "Status", "Priority", "User", "Started", "Ended", "Runs on", "What is known")
_PARTITION_COLUMNS = ("Partition", "State", "Nodes free", "Cores free", "Memory free", "Time limit")


class Page:
    """Handler of ``/``.

    Parameters
    ----------
    manager : JobManager
        Tells what is shown.
    guard : Guard
        Lets browsers in.
    """

    def __init__(self, manager: JobManager, guard: Guard) -> None:
        self._manager = manager
        self._guard = guard

    async def index(self, request: web.Request) -> web.StreamResponse:
        """Show the page; with ``?token=`` give the browser a session, and show it without the token in the URL."""
        token = request.query.get("token", "")
        self._guard.identify(request, token)
        if token:
            response = web.Response(status=303, headers={"Location": "/"})
            self._guard.start_session(response)
            return response
        page = await self._manager.list_jobs(jobs_messages_pb2.ListJobsRequest(page_size=NEWEST, newest_first=True))
        html = _html(self._manager.control.status(), list(page.jobs), await self._partitions())
        return web.Response(text=html, content_type="text/html")

    async def _partitions(self) -> Sequence[cluster_pb2.Partition]:
        """Ask for the partitions; none where there is no cluster, or it does not answer at once."""
        clusters = self._manager.clusters
        if not any(found.answering for found in clusters.statuses() if found.name == clusters.detected):
            return ()
        try:
            return (await within(clusters.partitions(""), ASK_SECONDS)).partitions
        except (Refused, asyncio.TimeoutError, TimeoutError):
            return ()

    async def style(self, request: web.Request) -> web.StreamResponse:
        """Give the page's style sheet; it tells nothing, so whoever asks may have it."""
        return web.Response(text=_STYLE, content_type="text/css")


def _html(
    status: cluster_service_pb2.GetSystemStatusResponse,
    jobs: Sequence[job_pb2.Job],
    partitions: Sequence[cluster_pb2.Partition],
) -> str:
    queue = status.queue
    warnings = "".join(f"<p role=alert>{escape(text)}</p>" for text in status.warnings)
    paused = ", paused" if queue.paused else ""
    clusters = [found for found in status.schedulers if found.name != LOCAL]
    scheduled = f", {queue.scheduled} waiting in the cluster" if clusters else ""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><title>edbjobs</title><link rel=stylesheet href=/style.css>"
        f"<h1>edbjobs <small>{escape(status.version)} on {escape(status.host)}</small></h1>{warnings}"
        f"<p class=queue>{queue.running} of {queue.max_concurrent_jobs} running, {queue.queued} waiting{scheduled}"
        f"{paused}</p>{''.join(map(_scheduler, clusters))}"
        f"{_table(f'The newest {NEWEST} jobs', _COLUMNS, map(_row, jobs))}"
        f"{_table('Partitions', _PARTITION_COLUMNS, map(_partition, partitions)) if partitions else ''}"
        "<nav><a href=/jobs>jobs</a><a href=/system/status>status</a><a href=/metrics>metrics</a>"
        "<a href=/openapi.json>the API</a></nav></html>"
    )


def _table(caption: str, columns: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th scope=col>{name}</th>" for name in columns)
    return (
        f"<div class=scroll><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _scheduler(status: cluster_pb2.SchedulerStatus) -> str:
    """Tell whether a cluster answers; what once answered and does not any more is what people must see."""
    since = datetime.fromtimestamp(seconds(status.since)).isoformat(" ", "seconds")
    if status.answering:
        return f"<p>{escape(f'{status.name} {status.version} answers since {since}')}</p>"
    role = " role=alert" if status.version else ""
    return f"<p{role}>{escape(f'{status.name} does not answer since {since}: {status.error}')}</p>"


def _partition(partition: cluster_pb2.Partition) -> str:
    values = shapes.partition_json(partition)
    memory = f"{values['memory_total_gb'] - values['memory_used_gb']:.0f} of {values['memory_total_gb']:.0f} GiB"
    cells = (
        partition.name + (" (default)" if partition.default else ""),
        partition.state,
        f"{partition.nodes_free} of {partition.nodes_total}",
        f"{partition.cores_free} of {partition.cores_total}",
        memory,
        limit_text(partition.time_limit_seconds),
    )
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _row(job: job_pb2.Job) -> str:
    times = shapes.job_times(job, "start_time", "end_time")
    status = shapes.status_of(job)
    cells = (
        job.id,
        job.priority,
        job.user,
        _short(times["start_time"]),
        _short(times["end_time"]),
        _place(job),
        _known(job),
    )
    name, *rest = (f"<td>{escape(str(cell))}</td>" for cell in cells)
    return f"<tr>{name}<td><span class='status {status}'>{status}</span></td>{''.join(rest)}</tr>"


def _short(time: object) -> str:
    """Write a time for people: no fractions of a second."""
    return str(time).replace("T", " ")[:19] if time else ""


def _place(job: job_pb2.Job) -> str:
    """Tell where a job runs: its executor, the scheduler's id, and the nodes."""
    nodes = job.attempts[-1].nodes if job.scheduler_job_id and job.attempts else ()
    return " ".join(filter(None, (job.executor, job.scheduler_job_id, ", ".join(nodes))))


def _known(job: job_pb2.Job) -> str:
    """Tell why a job waits, how far it is, or how it ended."""
    if job.waiting_detail or not job.HasField("progress"):
        return job.waiting_detail or job.message
    progress = job.progress
    delta = f", delta S {progress.delta_s:.4g}" if progress.HasField("delta_s") else ""
    return f"{progress.setup}: {progress.phase}, pass {progress.adaptive_pass}{delta}"
