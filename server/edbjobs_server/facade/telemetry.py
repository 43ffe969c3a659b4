"""The host, the queue and the clusters as the documented objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edbjobs.config import SchedulerType

from edbjobs_server.control import resources_message
from edbjobs_server.core.errors import Refused
from edbjobs_server.facade.errors import no_cluster
from edbjobs_server.facade.jobs import Caller
from edbjobs_server.gateway import shapes
from edbjobs_server.manager import JobManager
from edbjobs_server.telemetry.host import HostSampler, Sample


class ResourceMonitor:
    """Watches the host; a job manager has one at work already.

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
        """Tell how the host was at the last sample."""
        return self._last

    async def monitor_resources(self) -> None:
        """Watch until cancelled."""
        await HostSampler(Path.cwd(), self.update_interval, on_sample=self._take).run()

    def _take(self, sample: Sample) -> None:
        self._last = shapes.resources_json(resources_message(sample))


class ServiceMonitor(ResourceMonitor):
    """The monitor of a job manager, which always watches."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    @property
    def current_usage(self) -> dict[str, Any]:
        """Tell how the host was at the last sample."""
        return self._caller.call(_usage)

    async def monitor_resources(self) -> None:
        """Do nothing: the service watches."""


async def _usage(manager: JobManager) -> dict[str, Any]:
    try:
        return shapes.resources_json(manager.control.resources())
    except Refused:  # the host was not looked at yet
        return {}


class JobPoolManager:
    """The queue, to look at; what starts next is for the job manager alone to decide.

    Parameters
    ----------
    caller : Caller
        Reaches the service.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def running_jobs(self) -> set[str]:
        """Ids of the jobs that run."""
        return self._caller.call(_running)

    def get_queue_stats(self) -> dict[str, Any]:
        """Tell the documented numbers of the queue."""
        return self._caller.call(_queue)


async def _running(manager: JobManager) -> set[str]:
    return {job.id for job in manager.core.jobs.values() if job.open_attempt is not None}


async def _queue(manager: JobManager) -> dict[str, Any]:
    return shapes.queue_json(manager.control.queue())


class SchedulerManager:
    """What is known of a cluster: nothing in this release.

    Parameters
    ----------
    scheduler_type : SchedulerType
        Which one.
    """

    def __init__(self, scheduler_type: SchedulerType) -> None:
        self.scheduler_type = SchedulerType(scheduler_type)

    async def get_partitions(self) -> list[dict[str, Any]]:
        """Raise NO_SCHEDULER: clusters come with a later release."""
        raise no_cluster("no partitions are listed")

    async def get_jobs(self) -> list[dict[str, Any]]:
        """Raise NO_SCHEDULER: clusters come with a later release."""
        raise no_cluster("no jobs of a cluster are listed")
