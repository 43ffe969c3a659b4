"""The Resources service: translates requests, decides nothing."""

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


class ResourcesServicer(resources_service_pb2_grpc.ResourcesServicer):
    """Resources of edbjobs.v1 on a `JobManager`."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    async def GetResources(self, request: pb.GetResourcesRequest, context: Context) -> pb.GetResourcesResponse:
        """Tell how the host is."""
        return pb.GetResourcesResponse(resources=self._manager.resources())

    async def WatchResources(
        self, request: pb.WatchResourcesRequest, context: Context
    ) -> AsyncIterator[pb.WatchResourcesResponse]:
        """Send the state of host and queue at intervals."""
        interval = seconds(request.interval) if request.HasField("interval") else DEFAULT_INTERVAL_SECONDS
        async for message in self._manager.watch_resources(interval):
            yield message

    async def GetQueue(self, request: pb.GetQueueRequest, context: Context) -> pb.GetQueueResponse:
        """Tell how the queue is."""
        return pb.GetQueueResponse(queue=self._manager.queue())

    async def GetLimits(self, request: pb.GetLimitsRequest, context: Context) -> pb.GetLimitsResponse:
        """Tell the limits."""
        return pb.GetLimitsResponse(limits=self._manager.limits())

    async def UpdateLimits(self, request: pb.UpdateLimitsRequest, context: Context) -> pb.UpdateLimitsResponse:
        """Change limits."""
        new, old = await self._manager.update_limits(request, current_principal().label)
        return pb.UpdateLimitsResponse(limits=new, old_limits=old)

    async def PauseQueue(self, request: pb.PauseQueueRequest, context: Context) -> pb.PauseQueueResponse:
        """Start no more jobs."""
        return pb.PauseQueueResponse(queue=await self._manager.set_paused(True, current_principal().label))

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, context: Context) -> pb.ResumeQueueResponse:
        """Start jobs again."""
        return pb.ResumeQueueResponse(queue=await self._manager.set_paused(False, current_principal().label))
