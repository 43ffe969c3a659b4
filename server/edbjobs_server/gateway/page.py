"""The page at ``/``: how the service is, without a line of script."""

from __future__ import annotations

from html import escape
from pathlib import Path

from aiohttp import web
from edbjobs.v1 import cluster_service_pb2, job_pb2, jobs_messages_pb2

from edbjobs_server.gateway import shapes
from edbjobs_server.gateway.security import Guard
from edbjobs_server.manager import JobManager

NEWEST = 50
_STYLE = (Path(__file__).parent / "page.css").read_text()
_COLUMNS = ("Job", "Status", "Priority", "User", "Started", "Ended", "What is known")


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
        return web.Response(text=_html(self._manager.control.status(), list(page.jobs)), content_type="text/html")

    async def style(self, request: web.Request) -> web.StreamResponse:
        """Give the page's style sheet; it tells nothing, so whoever asks may have it."""
        return web.Response(text=_STYLE, content_type="text/css")


def _html(status: cluster_service_pb2.GetSystemStatusResponse, jobs: list[job_pb2.Job]) -> str:
    queue = status.queue
    head = "".join(f"<th scope=col>{name}</th>" for name in _COLUMNS)
    warnings = "".join(f"<p role=alert>{escape(text)}</p>" for text in status.warnings)
    paused = ", paused" if queue.paused else ""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><title>edbjobs</title><link rel=stylesheet href=/style.css>"
        f"<h1>edbjobs <small>{escape(status.version)} on {escape(status.host)}</small></h1>{warnings}"
        f"<p class=queue>{queue.running} of {queue.max_concurrent_jobs} running, {queue.queued} waiting{paused}</p>"
        f"<div class=scroll><table><caption>The newest {NEWEST} jobs</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(map(_row, jobs))}</tbody></table></div>"
        "<nav><a href=/jobs>jobs</a><a href=/system/status>status</a><a href=/metrics>metrics</a>"
        "<a href=/openapi.json>the API</a></nav></html>"
    )


def _row(job: job_pb2.Job) -> str:
    times = shapes.job_times(job)
    status = shapes.status_of(job)
    cells = (job.id, job.priority, job.user, _short(times["start_time"]), _short(times["end_time"]), _known(job))
    name, *rest = (f"<td>{escape(str(cell))}</td>" for cell in cells)
    return f"<tr>{name}<td><span class='status {status}'>{status}</span></td>{''.join(rest)}</tr>"


def _short(time: object) -> str:
    """Write a time for people: no fractions of a second."""
    return str(time).replace("T", " ")[:19] if time else ""


def _known(job: job_pb2.Job) -> str:
    """Tell why a job waits, how far it is, or how it ended."""
    if job.waiting_detail or not job.HasField("progress"):
        return job.waiting_detail or job.message
    progress = job.progress
    delta = f", delta S {progress.delta_s:.4g}" if progress.HasField("delta_s") else ""
    return f"{progress.setup}: {progress.phase}, pass {progress.adaptive_pass}{delta}"
