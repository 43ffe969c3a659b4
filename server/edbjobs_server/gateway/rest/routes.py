"""Handlers of the documented routes: they translate requests and answers, and the job manager decides."""

from __future__ import annotations

import asyncio

from aiohttp import web
from edbjobs.v1 import job_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.auth.roles import hide_environment
from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway import words
from edbjobs_server.gateway.documented.translation import documented_refusal
from edbjobs_server.gateway.json_values import Json, status_of
from edbjobs_server.gateway.models import Limits, Partition, Queue, Resources, Status
from edbjobs_server.gateway.rest import bodies, job_list, job_output, requests
from edbjobs_server.gateway.rest.job_text import job_text
from edbjobs_server.gateway.rest.limits import update_limits
from edbjobs_server.gateway.rest.responses import answer, error
from edbjobs_server.gateway.security import CALLER
from edbjobs_server.manager.clusters import NO_CLUSTER
from edbjobs_server.manager.job_commands import Accepted
from edbjobs_server.manager.job_manager import JobManager

FIRST_SAMPLE_SECONDS = 5.0


class Rest:
    """Handlers that `operations.OPERATIONS` names.

    Parameters
    ----------
    manager : JobManager
        Answers every request.
    """

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    # Jobs ------------------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.Response:
        """Queue a job."""
        accepted, warnings = await self._submit(request)
        return answer(_submitted(accepted, warnings))

    async def api_submit(self, request: web.Request) -> web.Response:
        """Queue a job; `status` in the answer is the documented word of this route."""
        accepted, warnings = await self._submit(request)
        return answer(_submitted(accepted, warnings, status="submitted"))

    async def _submit(self, request: web.Request) -> tuple[Accepted, list[str]]:
        body = await requests.body_of(request)
        known = await self._manager.is_solver(requests.program_of(body))
        key = request.headers.get("Idempotency-Key", "")
        message, warnings = requests.submit_request(body, key, await self._detect(), known)
        who = request[CALLER]
        try:
            accepted = await self._manager.submit(message, who)
        except Refused as refused:
            if refused.reason != "JOB_EXISTS":
                raise documented_refusal(refused) from refused
            # As documented, a live job of the same id is returned, whatever the configuration.
            job = await self._manager.get(JobRef(uid=refused.metadata["uid"]))
            if job.HasField("end_time") or job.user != (message.request.user or who.user):
                raise
            accepted = Accepted(job.SerializeToString(), existed=True)
            warnings.append(f"{refused.message}; the configuration of this request was not taken")
        return accepted, [*warnings, *accepted.job.warnings]

    async def jobs(self, request: web.Request) -> web.StreamResponse:
        """List jobs: as documented all live and the newest ended ones, or a page by the query."""
        return await job_list.jobs(self._manager, request)

    async def job(self, request: web.Request) -> web.Response:
        """Return one job."""
        job = await self._manager.get(await requests.job_of(self._manager, request))
        return web.Response(text=job_text(hide_environment(request[CALLER], job)), content_type="application/json")

    async def job_events(self, request: web.Request) -> web.Response:
        """List the events of one job."""
        return await job_output.job_events(self._manager, request)

    async def job_log(self, request: web.Request) -> web.StreamResponse:
        """Send an output of a job, or a range of it."""
        return await job_output.job_log(self._manager, request)

    async def api_log(self, request: web.Request) -> web.StreamResponse:
        """Return the parsed solver log of a job."""
        return await job_output.parsed_log(self._manager, request)

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a job."""
        job = await self._cancel(request)
        text = f"Job {job.id} is cancelled" if job.HasField("end_time") else f"Job {job.id} cancellation initiated"
        return answer(bodies.Changed(message=text, **_state(job)))

    async def api_cancel(self, request: web.Request) -> web.Response:
        """Cancel a job; `status` in the answer is the documented word of this route."""
        try:
            job = await self._cancel(request)
        except Refused as refused:
            return error(refused, status="failed")
        return answer(bodies.Changed(**{**_state(job), "status": "cancelled"}))

    async def _cancel(self, request: web.Request) -> job_pb2.Job:
        await requests.body_of(request)
        job = await requests.job_of(self._manager, request)
        return await self._manager.cancel(job, request[CALLER], None, refuse_cancelled=True)

    async def priority(self, request: web.Request) -> web.Response:
        """Change the priority of a waiting job."""
        job_ref = await requests.job_of(self._manager, request)
        priority = requests.priority_of(await requests.body_of(request))
        job = await self._manager.set_priority(job_ref, priority, request[CALLER])
        return answer(bodies.Changed(message=f"Priority set to {job.priority}", **_state(job)))

    # Host, queue, limits ---------------------------------------------------------------------------------

    async def resources(self, request: web.Request) -> web.Response:
        """Return the use of the host; wait for its first sample."""
        deadline = asyncio.get_running_loop().time() + FIRST_SAMPLE_SECONDS
        while True:
            try:
                return answer(Resources.json_of(self._manager.resources()))
            except Refused:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def queue(self, request: web.Request) -> web.Response:
        """Return the queue."""
        manager = self._manager
        return answer(Queue.of(manager.queue(), manager.limits(), manager.waiting_by_priority(), manager.draining))

    async def limits(self, request: web.Request) -> web.Response:
        """Return the limits."""
        return answer(Limits.json_of(self._manager.limits()))

    async def update_limits(self, request: web.Request) -> web.Response:
        """Change limits: all that are named, or none."""
        body = await requests.body_of(request)
        limits = await update_limits(self._manager, body, request[CALLER])
        named = {name: limits[name] for name in body}
        text = "Concurrent job limits updated successfully"
        return answer({**bodies.Done(message=text).model_dump(), "limits": limits, **named})

    # Clusters and the service itself ---------------------------------------------------------------------

    async def partitions(self, request: web.Request) -> web.Response:
        """List the partitions of the detected cluster, or of the one in the query."""
        try:
            return answer(await self._partitions(request))
        except Refused as refused:
            if refused.reason != "NO_SCHEDULER":
                raise
            return error(refused, http=400)  # as documented

    async def api_partitions(self, request: web.Request) -> web.Response:
        """List the partitions; none if there is no cluster."""
        if not request.query.get("scheduler") and await self._detect() == NO_CLUSTER:
            return answer([])
        return answer(await self._partitions(request))

    async def _detect(self) -> str:
        return await self._manager.detect_cluster()

    async def _partitions(self, request: web.Request) -> list[Json]:
        scheduler = requests.text_of(request.query.get("scheduler", ""), "scheduler") or await self._detect()
        if scheduler == NO_CLUSTER:  # it is not detected before it has responded
            scheduler = next((found.name for found in self._manager.schedulers()), "")
        if not scheduler:
            text = "this service has no cluster; clusters it has: none"
            raise Refused("NO_SCHEDULER", text, fields={"scheduler": "one of none"})
        return [Partition.json_of(partition) async for partition in self._manager.all_partitions(scheduler)]

    async def system_status(self, request: web.Request) -> web.Response:
        """Return scheduler, host, queue and limits."""
        status = self._manager.status(request[CALLER])
        return answer(Status.of(status, self._manager.waiting_by_priority()))

    async def start_monitoring(self, request: web.Request) -> web.Response:
        """Succeed: the host is always monitored."""
        await requests.body_of(request)
        return answer(bodies.Done(message="Resource monitoring already active"))

    async def scheduler_type(self, request: web.Request) -> web.Response:
        """Return the detected scheduler."""
        return answer(bodies.DetectedScheduler(scheduler_type=await self._detect()))

    async def me(self, request: web.Request) -> web.Response:
        """Return the caller's identity."""
        who = request[CALLER]
        word = words.AUTHENTICATION.word(who.authentication)
        return answer(bodies.Me(username=who.name, door=word))  # codespell:ignore door

    async def health(self, request: web.Request) -> web.Response:
        """Report that the process is alive."""
        return answer(bodies.Health())

    async def ready(self, request: web.Request) -> web.Response:
        """Report whether the service accepts jobs."""
        draining, writable = self._manager.draining, self._manager.store_writable
        ready = writable and not draining
        body = bodies.Ready(ready=ready, draining=draining, store_writable=writable)
        return answer(body, 200 if ready else 503)


def _submitted(accepted: Accepted, warnings: list[str], **more: str) -> bodies.Submitted:
    job = accepted.job
    text = f"Job {job.id} exists already" if accepted.existed else f"Job {job.id} submitted successfully"
    return bodies.Submitted(message=text, existed=accepted.existed, warnings=warnings, **{**_state(job), **more})


def _state(job: job_pb2.Job) -> Json:
    return {
        "job_id": job.id,
        "uid": job.uid,
        "status": status_of(job),
        "revision": job.revision,
        "priority": job.priority,
    }
