"""The page at ``/``: how the service is, without a line of script."""

from __future__ import annotations

from html import escape

from aiohttp import web
from edbjobs.v1 import cluster_service_pb2, job_pb2, jobs_messages_pb2

from edbjobs_server.gateway import shapes
from edbjobs_server.gateway.security import Guard
from edbjobs_server.manager import JobManager

NEWEST = 50
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


def _html(status: cluster_service_pb2.GetSystemStatusResponse, jobs: list[job_pb2.Job]) -> str:
    queue = status.queue
    head = "".join(f"<th scope=col>{name}</th>" for name in _COLUMNS)
    warnings = "".join(f"<p role=alert>{escape(text)}</p>" for text in status.warnings)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>edbjobs</title>"
        f"<h1>edbjobs {escape(status.version)} on {escape(status.host)}</h1>{warnings}"
        f"<p>{queue.running} of {queue.max_concurrent_jobs} running, {queue.queued} waiting</p>"
        f"<table border=1><caption>The newest {NEWEST} jobs</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(map(_row, jobs))}</tbody></table>"
        "<p><a href=/jobs>jobs</a> <a href=/system/status>status</a> <a href=/metrics>metrics</a> "
        "<a href=/openapi.json>the API</a></p></html>"
    )


def _row(job: job_pb2.Job) -> str:
    times = shapes.job_times(job)
    known = job.waiting_detail or job.message
    cells = (job.id, shapes.status_of(job), job.priority, job.user, times["start_time"], times["end_time"], known)
    return "<tr>" + "".join(f"<td>{escape(str('' if cell is None else cell))}</td>" for cell in cells) + "</tr>"
