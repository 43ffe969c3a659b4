"""The gRPC service ClusterService; translates requests to calls of the job manager."""

from __future__ import annotations

from typing import Any

import grpc.aio
from edbjobs.v1 import cluster_service_pb2 as pb
from edbjobs.v1 import cluster_service_pb2_grpc

from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.rpc.interceptors import current_principal

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterServicer(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Servicer of edbjobs.v1.ClusterService."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    async def GetSystemStatus(self, request: pb.GetSystemStatusRequest, context: Context) -> pb.GetSystemStatusResponse:
        """Return identity and state of this service."""
        return self._manager.status(current_principal())

    async def ListSolvers(self, request: pb.ListSolversRequest, context: Context) -> pb.ListSolversResponse:
        """List the installed solvers."""
        return self._manager.solvers(request)

    async def ListPartitions(self, request: pb.ListPartitionsRequest, context: Context) -> pb.ListPartitionsResponse:
        """List partitions or queues of a cluster."""
        return await self._manager.partitions(request)

    async def ListClusterJobs(self, request: pb.ListClusterJobsRequest, context: Context) -> pb.ListClusterJobsResponse:
        """List the jobs of a cluster."""
        return await self._manager.cluster_jobs(request)
