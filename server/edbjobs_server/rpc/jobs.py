"""The gRPC service JobsService; translates requests to calls of the job manager."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1 import jobs_service_pb2_grpc

from edbjobs_server.contract.codec import embedded, seconds
from edbjobs_server.contract.errors import to_status
from edbjobs_server.core.errors import Refused
from edbjobs_server.manager.job_commands import Accepted
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.rpc.interceptors import current_principal

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_WAIT_SECONDS = 30.0


class JobsServicer(jobs_service_pb2_grpc.JobsServiceServicer):
    """Servicer of edbjobs.v1.JobsService."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> Any:
        """Submit a job; the response reuses the bytes that were written."""
        caller = current_principal()
        accepted = await self._manager.submit(request, caller)
        job = embedded(pb.SubmitJobResponse.JOB_FIELD_NUMBER, accepted.message)
        return job + pb.SubmitJobResponse(existed=True).SerializeToString() if accepted.existed else job

    async def SubmitJobs(self, request: pb.SubmitJobsRequest, context: Context) -> Any:
        """Submit many jobs; the response reuses the bytes that were written."""
        caller = current_principal()
        results = await self._manager.submit_many(request.requests, caller)
        return b"".join([embedded(pb.SubmitJobsResponse.RESULTS_FIELD_NUMBER, _result(item)) for item in results])

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Return a job."""
        return pb.GetJobResponse(job=await self._manager.get(request.name))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Return a page of jobs."""
        return await self._manager.list_jobs(request)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        """End a job."""
        grace = seconds(request.grace) if request.HasField("grace") else None
        job = await self._manager.cancel(request.name, current_principal(), grace, request.abandon)
        return pb.CancelJobResponse(job=job)

    async def CancelJobs(self, request: pb.CancelJobsRequest, context: Context) -> pb.CancelJobsResponse:
        """End many jobs."""
        grace = seconds(request.grace) if request.HasField("grace") else None
        principal = current_principal()
        return pb.CancelJobsResponse(
            uids=await self._manager.cancel_many(request.filter, request.all, principal, grace)
        )

    async def HoldJob(self, request: pb.HoldJobRequest, context: Context) -> pb.HoldJobResponse:
        """Hold a waiting job."""
        return pb.HoldJobResponse(job=await self._manager.hold(request.name, current_principal()))

    async def ReleaseJob(self, request: pb.ReleaseJobRequest, context: Context) -> pb.ReleaseJobResponse:
        """Release a held job."""
        return pb.ReleaseJobResponse(job=await self._manager.release(request.name, current_principal()))

    async def SetJobPriority(self, request: pb.SetJobPriorityRequest, context: Context) -> pb.SetJobPriorityResponse:
        """Change a priority."""
        principal = current_principal()
        return pb.SetJobPriorityResponse(
            job=await self._manager.set_priority(request.name, request.priority, principal)
        )

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        """Submit an ended job again."""
        caller = current_principal()
        return pb.RetryJobResponse(job=await self._manager.retry(request.name, request.request_id, caller))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        """Remove an ended job's record."""
        await self._manager.delete(request.name, current_principal())
        return pb.DeleteJobResponse()

    async def WaitJob(self, request: pb.WaitJobRequest, context: Context) -> pb.WaitJobResponse:
        """Wait for a job's end."""
        timeout = seconds(request.timeout) if request.HasField("timeout") else DEFAULT_WAIT_SECONDS
        job, ended = await self._manager.wait(request.name, timeout)
        return pb.WaitJobResponse(job=job, ended=ended)

    async def PreviewJob(self, request: pb.PreviewJobRequest, context: Context) -> pb.PreviewJobResponse:
        """Return what a job would run."""
        return await self._manager.preview(request.request, current_principal())

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> None:  # type: ignore[override]
        """Send changes, serialized already; they are written here, as another generator would cost a tenth."""
        messages: Any = self._manager.watch(request)
        async with aclosing(messages):
            async for message in messages:
                await context.write(message.serialized)

    async def TailLog(self, request: pb.TailLogRequest, context: Context) -> AsyncIterator[pb.TailLogResponse]:
        """Send output."""
        async for message in self._manager.tail(request):
            yield message


def _result(item: Accepted | Refused) -> bytes:
    if isinstance(item, Refused):
        return pb.SubmitJobsResult(error=to_status(item)).SerializeToString()
    job = embedded(pb.SubmitJobsResult.JOB_FIELD_NUMBER, item.message)
    return job + pb.SubmitJobsResult(existed=True).SerializeToString() if item.existed else job
