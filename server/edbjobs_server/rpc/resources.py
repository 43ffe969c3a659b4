"""The gRPC service ResourcesService; translates requests to calls of the job manager."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from edbjobs.v1 import resources_service_pb2 as pb
from edbjobs.v1 import resources_service_pb2_grpc

from edbjobs_server.contract.codec import seconds
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.rpc.interceptors import current_principal

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_INTERVAL_SECONDS = 5.0


class ResourcesServicer(resources_service_pb2_grpc.ResourcesServiceServicer):
    """Servicer of edbjobs.v1.ResourcesService."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    async def GetResources(self, request: pb.GetResourcesRequest, context: Context) -> pb.GetResourcesResponse:
        """Return the last sample of the host."""
        return pb.GetResourcesResponse(resources=self._manager.resources())

    async def WatchResources(
        self, request: pb.WatchResourcesRequest, context: Context
    ) -> AsyncIterator[pb.WatchResourcesResponse]:
        """Send the state of host and queue at intervals."""
        interval = seconds(request.interval) if request.HasField("interval") else DEFAULT_INTERVAL_SECONDS
        async for message in self._manager.watch_resources(interval):
            yield message

    async def GetQueue(self, request: pb.GetQueueRequest, context: Context) -> pb.GetQueueResponse:
        """Return the state of the queue."""
        return pb.GetQueueResponse(queue=self._manager.queue())

    async def GetLimits(self, request: pb.GetLimitsRequest, context: Context) -> pb.GetLimitsResponse:
        """Return the limits."""
        return pb.GetLimitsResponse(limits=self._manager.limits())

    async def UpdateLimits(self, request: pb.UpdateLimitsRequest, context: Context) -> pb.UpdateLimitsResponse:
        """Change limits."""
        new, old = await self._manager.update_limits(request, current_principal())
        return pb.UpdateLimitsResponse(limits=new, old_limits=old)

    async def PauseQueue(self, request: pb.PauseQueueRequest, context: Context) -> pb.PauseQueueResponse:
        """Pause the queue."""
        return pb.PauseQueueResponse(queue=await self._manager.set_paused(True, current_principal()))

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, context: Context) -> pb.ResumeQueueResponse:
        """Resume the queue."""
        return pb.ResumeQueueResponse(queue=await self._manager.set_paused(False, current_principal()))
