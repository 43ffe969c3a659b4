"""The host, the queue and the clusters as the documented objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.documented.config import SchedulerType
from edbjobs_server.gateway.models import Partition, Queue, Resources
from edbjobs_server.manager.clusters import partition_message
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.manager.status import resources_message
from edbjobs_server.telemetry.host import HostSampler, Sample

from edbjobs_pyedb import cluster
from edbjobs_pyedb.jobs import Caller


class ResourceMonitor:
    """Samples the host; a job manager has one that runs already.

    Parameters
    ----------
    update_interval : int
        Seconds between two samples.

    Attributes
    ----------
    current_usage : dict
        The documented values of the last sample; empty before the first.
    """

    def __init__(self, update_interval: int = 5) -> None:
        self.update_interval = update_interval
        self._last: dict[str, Any] = {}

    @property
    def current_usage(self) -> dict[str, Any]:
        """The documented values of the last sample."""
        return self._last

    async def monitor_resources(self) -> None:
        """Sample the host until cancelled."""
        await HostSampler(Path.cwd(), self.update_interval, on_sample=self._take).run()

    def _take(self, sample: Sample) -> None:
        self._last = Resources.json_of(resources_message(sample))


class ServiceMonitor(ResourceMonitor):
    """The monitor of a job manager: the service samples the host."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    @property
    def current_usage(self) -> dict[str, Any]:
        """The documented values of the last sample."""
        return self._caller.call(_usage)

    async def monitor_resources(self) -> None:
        """Return at once: the service samples the host."""


async def _usage(manager: JobManager) -> dict[str, Any]:
    try:
        return Resources.json_of(manager.resources())
    except Refused:  # before the first sample
        return {}


class JobPoolManager:
    """The queue, read only: the job manager alone decides what starts next.

    Parameters
    ----------
    caller : Caller
        Runs coroutines on the service's loop.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def running_jobs(self) -> set[str]:
        """Ids of the jobs that run."""
        return self._caller.call(_running)

    def get_queue_stats(self) -> dict[str, Any]:
        """Return the documented numbers of the queue."""
        return self._caller.call(_queue)


async def _running(manager: JobManager) -> set[str]:
    return {job.id for job in manager.running_jobs()}


async def _queue(manager: JobManager) -> dict[str, Any]:
    queue = Queue.of(manager.queue(), manager.limits(), manager.waiting_by_priority(), manager.draining)
    return queue.model_dump()


class SchedulerManager:
    """Partitions and jobs of a cluster, read from its scheduler by each call.

    Parameters
    ----------
    scheduler_type : SchedulerType
        Scheduler of the cluster.
    """

    def __init__(self, scheduler_type: SchedulerType) -> None:
        self.scheduler_type = SchedulerType(scheduler_type)

    async def get_partitions(self) -> list[dict[str, Any]]:
        """List partitions or queues, with the documented keys and those of ``/scheduler/partitions``.

        Raises
        ------
        JobManagerError
            NO_SCHEDULER or SCHEDULER_UNREACHABLE.
        """
        found = await cluster.partitions(self.scheduler_type)
        return [Partition.json_of(partition_message(self.scheduler_type.value, partition)) for partition in found]

    async def get_jobs(self) -> list[dict[str, Any]]:
        """List the jobs that have not ended, of all users; ``memory_gb`` is None, as not every scheduler reports it.

        Raises
        ------
        JobManagerError
            NO_SCHEDULER or SCHEDULER_UNREACHABLE.
        """
        return [
            {
                "job_id": job.id,
                "partition": job.partition,
                "user": job.user,
                "state": job.state,
                "nodes": job.node_count,
                "cpus": job.core_count,
                "memory_gb": None,
                "name": job.name,
                "reason": job.reason,
                "nodelist": ",".join(job.nodes),
            }
            for job in await cluster.jobs(self.scheduler_type)
        ]
