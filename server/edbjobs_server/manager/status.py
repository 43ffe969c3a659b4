"""State of the host, the queue, the limits, the clusters and the service."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from edbjobs._version import __version__
from edbjobs.v1 import (
    cluster_pb2,
    cluster_service_pb2,
    event_pb2,
    job_pb2,
    resource_pb2,
    resources_service_pb2,
)

from edbjobs_server.auth import roles
from edbjobs_server.contract import codec
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.manager.clusters import NO_CLUSTER
from edbjobs_server.manager.limits import changed
from edbjobs_server.manager.manager_base import ManagerBase
from edbjobs_server.manager.pages import MAX_SIZE, page_of
from edbjobs_server.solver.releases import DEMO, Release, is_known
from edbjobs_server.store import Transaction
from edbjobs_server.telemetry.host import Sample

API_LEVEL = 1
_OLDEST_JOBS = 200  # live jobs whose projects' volumes are sampled beside those of running jobs
_PROJECT_FOLDERS = 20


@dataclass(frozen=True)
class Measurements:
    """Numbers for the metrics, as of one moment.

    Attributes
    ----------
    jobs : mapping of int to int
        Jobs on record, by state.
    schedulers : sequence of (SchedulerStatus, int)
        Each cluster's scheduler, and how many of the jobs that are with it are ours.
    """

    jobs: Mapping[int, int]
    revision: int
    store_writable: bool
    schedulers: Sequence[tuple[cluster_pb2.SchedulerStatus, int]]


class ServiceStatus(ManagerBase):
    """The methods of `JobManager` for host, queue, limits, clusters and the service itself."""

    def resources(self) -> resource_pb2.HostResources:
        """Return the last sample of the host.

        Raises
        ------
        Refused
            NO_SAMPLE before the first sample.
        """
        sample = self._sampler.latest
        if sample is None:
            raise Refused("NO_SAMPLE", "the host has not been sampled yet; ask again in a second")
        return resources_message(sample)

    async def watch_resources(self, interval: float) -> AsyncIterator[resources_service_pb2.WatchResourcesResponse]:
        """Yield the state of host and queue at intervals, of at least a second, until the service stops."""
        while not self._core.draining:
            yield resources_service_pb2.WatchResourcesResponse(resources=self.resources(), queue=self.queue())
            await asyncio.sleep(max(interval, 1.0))

    def queue(self) -> resource_pb2.QueueStatus:
        """Return the state of the queue."""
        core = self._core
        usage, counts = core.usage, core.counts()
        return resource_pb2.QueueStatus(
            **counts,
            queued_by_priority=core.queued_by_priority(),
            local_runs=usage.jobs,
            reserved=job_pb2.Reservation(
                cores=usage.cores,
                memory_bytes=usage.memory_bytes,
                licenses={name: count for name, count in usage.licenses.items() if count},
            ),
            paused=core.paused,
            blocked_message=core.blocked_text(time.time()),
        )

    def waiting_by_priority(self) -> dict[int, int]:
        """Count the waiting jobs of each priority, without those that are being started."""
        return self._core.waiting_by_priority()

    @property
    def store_writable(self) -> bool:
        """Whether changes can be written."""
        return self._store.writable

    @property
    def draining(self) -> bool:
        """Whether the service is stopping and starts no more jobs."""
        return self._core.draining

    def limits(self) -> resource_pb2.Limits:
        """Return the limits in force."""
        return codec.limits_to_message(self._core.limits)

    async def update_limits(
        self, request: resources_service_pb2.UpdateLimitsRequest, principal: Principal
    ) -> tuple[resource_pb2.Limits, resource_pb2.Limits]:
        """Change all requested limits or none; return the new and the old limits."""
        roles.require(principal, Role.ADMIN, "change limits")

        def command(tx: Transaction) -> tuple[Limits, Limits]:
            old = tx.limits
            new = changed(old, request)
            if new != old:
                tx.set_limits(new, principal=principal)
            return new, old

        new, old = await self._store.write(command)
        return codec.limits_to_message(new), codec.limits_to_message(old)

    async def set_limits(self, values: Mapping[str, Any]) -> None:
        """Apply the limits that were given at the start of the service."""

        def command(tx: Transaction) -> None:
            new = replace(tx.limits, **values)
            if new != tx.limits:
                tx.set_limits(new)

        await self._store.write(command)

    async def set_paused(self, paused: bool, principal: Principal) -> resource_pb2.QueueStatus:
        """Pause or resume the queue."""
        roles.require(principal, Role.ADMIN, "pause or resume the queue")

        def command(tx: Transaction) -> None:
            if tx.paused != paused:
                tx.set_paused(paused, principal=principal)

        await self._store.write(command)
        return self.queue()

    # Clusters and solvers --------------------------------------------------------------------------------

    @property
    def detected_cluster(self) -> str:
        """The cluster that jobs go to which name no scheduler; ``none``: they run on this host."""
        return self._clusters.detected

    async def detect_cluster(self) -> str:
        """Return the same once every scheduler has been asked."""
        return await self._clusters.detect()

    def schedulers(self) -> list[cluster_pb2.SchedulerStatus]:
        """Return for each cluster whether its scheduler answers, and since when."""
        return self._clusters.statuses()

    async def partitions(
        self, request: cluster_service_pb2.ListPartitionsRequest
    ) -> cluster_service_pb2.ListPartitionsResponse:
        """Return a page of the partitions or queues of one cluster, or of all."""
        return await self._clusters.partitions(request)

    async def all_partitions(self, scheduler: str) -> AsyncIterator[cluster_pb2.Partition]:
        """Yield all partitions or queues of one cluster."""
        request = cluster_service_pb2.ListPartitionsRequest(scheduler=scheduler, page_size=MAX_SIZE)
        while True:
            page = await self._clusters.partitions(request)
            for partition in page.partitions:
                yield partition
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def cluster_jobs(
        self, request: cluster_service_pb2.ListClusterJobsRequest
    ) -> cluster_service_pb2.ListClusterJobsResponse:
        """Return a page of the jobs of one cluster, or of all, that have not ended."""
        return await self._clusters.jobs(request)

    def solvers(self, request: cluster_service_pb2.ListSolversRequest) -> cluster_service_pb2.ListSolversResponse:
        """Return a page of the installed solvers, of this host and of clusters."""
        items = [_solver_message(scheduler, release) for scheduler, release in self._rules.solvers()]
        asked = cluster_service_pb2.ListSolversRequest()
        page, token = page_of(items, asked, request.page_size, request.page_token, _solver_key)
        return cluster_service_pb2.ListSolversResponse(solvers=page, next_page_token=token)

    def default_solver(self) -> str | None:
        """Return the path of the solver that runs jobs on this host which name none; None: there is none."""
        releases = self._rules.releases
        return str(releases[0].path) if releases else None

    async def is_solver(self, program: str) -> bool:
        """Return whether a program is one of the solvers of this host; no program is the default one."""
        releases = self._rules.releases
        if not program or any(str(release.path) == program for release in releases):
            return True
        return await self._paths.run(partial(is_known, releases, program), program)

    # The service -----------------------------------------------------------------------------------------

    async def measure(self) -> Measurements:
        """Return the numbers for the metrics."""
        jobs = await self._store.read(lambda reader: reader.counts())
        running = Counter(job.spec.scheduler for job in self._core.running() if job.open_attempt is not None)
        schedulers = [(status, running[status.name]) for status in self._clusters.statuses()]
        return Measurements(jobs, self._events.revision, self._store.writable, schedulers)

    def run_pids(self) -> list[int]:
        """Return the processes of the runs on this host."""
        attempts = [job.open_attempt for job in self._core.running() if job.spec.scheduler == LOCAL]
        return [attempt.pid for attempt in attempts if attempt is not None and attempt.pid]

    def project_folders(self) -> list[str]:
        """Return folders of projects whose volumes matter: those of running jobs, then of the oldest live ones."""
        jobs = [*self._core.running(), *islice(self._core.jobs.values(), _OLDEST_JOBS)]
        return list(dict.fromkeys(os.path.dirname(job.spec.project_path) for job in jobs))[:_PROJECT_FOLDERS]

    def status(self, principal: Principal) -> cluster_service_pb2.GetSystemStatusResponse:
        """Return what this service is and whether its parts work; its details only to administrators."""
        about = self._about
        local = cluster_pb2.SchedulerStatus(
            name=LOCAL, responding=True, since_time=codec.timestamp(about.start_time), version=__version__
        )
        detected = self._clusters.detected
        return cluster_service_pb2.GetSystemStatusResponse(
            version=__version__,
            api_level=API_LEVEL,
            position=event_pb2.Position(revision=self._events.revision, store_id=self._store.store_id),
            caller=codec.principal_to_message(principal),
            host=socket.gethostname(),
            start_time=codec.timestamp(about.start_time),
            schedulers=[local, *self._clusters.statuses()],
            limits=self.limits(),
            queue=self.queue(),
            resources=self.resources() if self._sampler.latest is not None else None,
            detected_scheduler=detected if detected != NO_CLUSTER else "",
            draining=self._core.draining,
            store_unavailable=not self._store.writable,
            details=self._details() if roles.may_see_details(principal) else None,
        )

    def _details(self) -> cluster_service_pb2.ServiceDetails:
        about = self._about
        warnings = list(about.warnings)
        if not self._store.writable:
            warnings.append(f"the state folder cannot be written: {self._store.last_error}")
        return cluster_service_pb2.ServiceDetails(
            account=about.account, pid=os.getpid(), state_directory=str(about.state_dir), warnings=warnings
        )


def resources_message(sample: Sample) -> resource_pb2.HostResources:
    """Build the message of a sample of the host."""
    return resource_pb2.HostResources(
        sample_time=codec.timestamp(sample.time),
        cpu_percent=sample.cpu_percent,
        foreign_cpu_percent=sample.foreign_cpu_percent,
        cpu_count=sample.cpu_count,
        memory_total_bytes=sample.memory_total,
        memory_used_bytes=sample.memory_used,
        memory_available_bytes=sample.memory_available,
        volumes=[
            resource_pb2.Volume(
                path=volume.path, total_bytes=volume.total, free_bytes=volume.free, unreachable=volume.unreachable
            )
            for volume in sample.volumes
        ],
    )


_SOURCES = {  # of `Release.source`; each other one is an environment variable
    "settings": (cluster_pb2.SOLVER_SOURCE_SETTINGS, "solvers"),
    "nodes": (cluster_pb2.SOLVER_SOURCE_SETTINGS, "hpc_solvers"),
    "registry": (cluster_pb2.SOLVER_SOURCE_REGISTRY, ""),
    "folder": (cluster_pb2.SOLVER_SOURCE_FOLDER, ""),
    DEMO: (cluster_pb2.SOLVER_SOURCE_BUILT_IN, ""),
}


def _solver_message(scheduler: str, release: Release) -> cluster_pb2.Solver:
    source, name = _SOURCES.get(release.source, (cluster_pb2.SOLVER_SOURCE_ENVIRONMENT, release.source))
    return cluster_pb2.Solver(
        version=release.version,
        path=str(release.path),
        source=source,
        source_name=name,
        demo=release.demo,
        student=release.student,
        scheduler=scheduler,
    )


def _solver_key(item: cluster_pb2.Solver) -> str:
    return f"{item.scheduler} {item.path}"
