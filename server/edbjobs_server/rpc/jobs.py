"""The gRPC service JobsService; translates requests to calls of the job manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1 import jobs_service_pb2_grpc

from edbjobs_server.auth.roles import hide_environment
from edbjobs_server.contract.codec import embedded, seconds
from edbjobs_server.contract.errors import item_status, reason_number
from edbjobs_server.contract.views import FULL
from edbjobs_server.core.errors import Refused
from edbjobs_server.manager.job_commands import Accepted
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.rpc.interceptors import current_principal

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_WAIT_SECONDS = 30.0
MAX_BYTES = 3 * 1024 * 1024  # of a response; clients of gRPC accept 4 MiB
SLICE = 100


class JobsServicer(jobs_service_pb2_grpc.JobsServiceServicer):
    """Servicer of edbjobs.v1.JobsService."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> Any:
        """Submit a job; the response reuses the bytes that were written."""
        accepted = await self._manager.submit(request, current_principal())
        return _submitted(accepted.message, accepted.existed)

    async def SubmitJobs(self, request: pb.SubmitJobsRequest, context: Context) -> Any:
        """Submit many jobs; the response reuses the bytes that were written."""
        results = await self._manager.submit_many(request.requests, current_principal())
        parts: list[bytes] = []
        for item in results:
            parts.append(embedded(pb.SubmitJobsResponse.RESULTS_FIELD_NUMBER, _result(item, MAX_BYTES // len(results))))
            if len(parts) % SLICE == 0:
                await asyncio.sleep(0)  # a long answer must not block the loop
        return b"".join(parts)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Return a job."""
        job = await self._manager.get(request.job, request.view or FULL)
        return pb.GetJobResponse(job=hide_environment(current_principal(), job))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Return a page of jobs."""
        answer = await self._manager.list_jobs(request)
        for job in answer.jobs:
            hide_environment(current_principal(), job)
        return answer

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        """End a job."""
        job = await self._manager.cancel(request.job, current_principal(), _grace(request), request.abandon)
        return pb.CancelJobResponse(job=job)

    async def CancelJobs(self, request: pb.CancelJobsRequest, context: Context) -> pb.CancelJobsResponse:
        """End many jobs."""
        principal = current_principal()
        return await self._manager.cancel_many(request.filter, request.all, principal, _grace(request))

    async def HoldJob(self, request: pb.HoldJobRequest, context: Context) -> pb.HoldJobResponse:
        """Hold a waiting job."""
        return pb.HoldJobResponse(job=await self._manager.hold(request.job, current_principal()))

    async def ReleaseJob(self, request: pb.ReleaseJobRequest, context: Context) -> pb.ReleaseJobResponse:
        """Release a held job."""
        return pb.ReleaseJobResponse(job=await self._manager.release(request.job, current_principal()))

    async def SetJobPriority(self, request: pb.SetJobPriorityRequest, context: Context) -> pb.SetJobPriorityResponse:
        """Change a priority."""
        job = await self._manager.set_priority(request.job, request.priority, current_principal())
        return pb.SetJobPriorityResponse(job=job)

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        """Submit an ended job again."""
        accepted = await self._manager.retry(request, current_principal())
        return pb.RetryJobResponse(job=accepted.job, existed=accepted.existed)

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        """Remove an ended job's record."""
        await self._manager.delete(request.job, current_principal())
        return pb.DeleteJobResponse()

    async def WaitJob(self, request: pb.WaitJobRequest, context: Context) -> pb.WaitJobResponse:
        """Wait for a job's end."""
        timeout = seconds(request.timeout) if request.HasField("timeout") else DEFAULT_WAIT_SECONDS
        job = await self._manager.wait(request.job, timeout)
        return pb.WaitJobResponse(job=hide_environment(current_principal(), job))

    async def PreviewJob(self, request: pb.PreviewJobRequest, context: Context) -> pb.PreviewJobResponse:
        """Return what a job would run."""
        return await self._manager.preview(request.request, current_principal())

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> None:  # type: ignore[override]
        """Send changes, serialized already; they are written here, as another generator would cost a tenth."""
        messages: Any = self._manager.watch(request)
        async with aclosing(messages):
            async for message in messages:
                await context.write(message.serialized)

    async def ReadLog(self, request: pb.ReadLogRequest, context: Context) -> AsyncIterator[pb.ReadLogResponse]:
        """Send output."""
        async for message in self._manager.read_log(request):
            yield message


def _grace(request: pb.CancelJobRequest | pb.CancelJobsRequest) -> float | None:
    return seconds(request.grace_period) if request.HasField("grace_period") else None


def _submitted(job: bytes, existed: bool) -> bytes:
    answer = embedded(pb.SubmitJobResponse.JOB_FIELD_NUMBER, job)
    return answer + pb.SubmitJobResponse(existed=True).SerializeToString() if existed else answer


def _result(item: Accepted | Refused, room: int) -> bytes:
    if isinstance(item, Refused):
        refusal = pb.SubmitJobsResult(error=item_status(item, room), error_reason=reason_number(item))
        return refusal.SerializeToString()
    return embedded(pb.SubmitJobsResult.RESPONSE_FIELD_NUMBER, _submitted(item.short, item.existed))
