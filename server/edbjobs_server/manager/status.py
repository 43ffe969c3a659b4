"""The host, the queue, the limits, and what the service tells of itself."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edbjobs._version import __version__
from edbjobs.v1 import cluster_pb2, cluster_service_pb2, resource_pb2, resources_service_pb2

from edbjobs_server.contract import codec
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.planner import Planner
from edbjobs_server.events.log import EventLog
from edbjobs_server.manager.clusters import Clusters
from edbjobs_server.manager.limits import changed
from edbjobs_server.store import Store, Transaction
from edbjobs_server.telemetry.host import HostSampler, Sample

API_LEVEL = 1
FEATURES = ("jobs", "resources", "logs", "watch", "local", "clusters")


@dataclass(frozen=True)
class ServiceInfo:
    """What the service tells of itself and what does not change while it runs.

    Attributes
    ----------
    state_dir : Path
        Folder with store, logs and runs.
    account : str
        Account the service and its solves run as.
    warnings : sequence of str
        Things an administrator should know.
    """

    state_dir: Path
    account: str
    warnings: Sequence[str] = ()
    start_time: float = field(default_factory=time.time)


class ServiceStatus:
    """Answers about host, queue and limits, and changes of limits.

    Parameters
    ----------
    store : Store
        Where changes are committed.
    events : EventLog
        Knows the newest revision.
    core : Planner
        Knows the queue and what is reserved.
    sampler : HostSampler
        Tells how the host is.
    about : ServiceInfo
        What the service tells of itself.
    clusters : Clusters
        Tell whether their schedulers answer.
    """

    def __init__(
        self,
        store: Store,
        events: EventLog,
        core: Planner,
        sampler: HostSampler,
        about: ServiceInfo,
        clusters: Clusters,
    ) -> None:
        self._store = store
        self._events = events
        self._core = core
        self._sampler = sampler
        self._about = about
        self._clusters = clusters

    def resources(self) -> resource_pb2.ResourceSnapshot:
        """Tell how the host is.

        Raises
        ------
        Refused
            NO_SAMPLE before the first sample.
        """
        sample = self._sampler.latest
        if sample is None:
            raise Refused("NO_SAMPLE", "the host was not looked at yet; ask again in a second")
        return resources_message(sample)

    def queue(self) -> resource_pb2.QueueStatus:
        """Tell how the queue is."""
        core = self._core
        gate = core.gate_block(time.time())
        counts = core.counts()
        return resource_pb2.QueueStatus(
            queued=counts["queued"],
            running=counts["running"],
            scheduled=counts["scheduled"],
            held=counts["held"],
            queued_by_priority=core.queued_by_priority(),
            paused=core.paused,
            draining=core.draining,
            max_concurrent_jobs=core.limits.max_concurrent_jobs,
            cores_reserved=core.usage.cores,
            memory_reserved_mib=core.usage.memory_mib,
            licenses_reserved={name: count for name, count in core.usage.licenses.items() if count},
            gate=gate.detail if gate is not None else "",
        )

    def limits(self) -> resource_pb2.Limits:
        """Tell the limits in force."""
        return codec.limits_to_message(self._core.limits)

    async def update_limits(
        self, request: resources_service_pb2.UpdateLimitsRequest, principal: str
    ) -> tuple[resource_pb2.Limits, resource_pb2.Limits]:
        """Change limits, all that are asked for or none; gives those after and those before."""

        def command(tx: Transaction) -> tuple[Limits, Limits]:
            old = tx.limits
            new = changed(old, request)
            if new != old:
                tx.set_limits(new, principal=principal)
            return new, old

        new, old = await self._store.write(command)
        return codec.limits_to_message(new), codec.limits_to_message(old)

    async def set_limits(self, values: Mapping[str, Any]) -> None:
        """Put limits in force that were given at the start of the service."""

        def command(tx: Transaction) -> None:
            new = replace(tx.limits, **values)
            if new != tx.limits:
                tx.set_limits(new, principal="settings")

        await self._store.write(command)

    async def set_paused(self, paused: bool, principal: str) -> resource_pb2.QueueStatus:
        """Start no more jobs, or start them again."""

        def command(tx: Transaction) -> None:
            if tx.paused != paused:
                tx.set_paused(paused, principal=principal)

        await self._store.write(command)
        return self.queue()

    def status(self) -> cluster_service_pb2.GetSystemStatusResponse:
        """Tell what this service is and how it is."""
        about = self._about
        warnings = list(about.warnings)
        if not self._store.writable:
            warnings.append(f"the state folder cannot be written: {self._store.last_error}")
        local = cluster_pb2.SchedulerStatus(
            name="local", answering=True, since=codec.timestamp(about.start_time), version=__version__
        )
        sample = self._sampler.latest
        return cluster_service_pb2.GetSystemStatusResponse(
            service="edbjobs",
            version=__version__,
            api_level=API_LEVEL,
            features=FEATURES,
            store_id=self._store.store_id,
            revision=self._events.revision,
            schedulers=[local, *self._clusters.statuses()],
            limits=self.limits(),
            account=about.account,
            host=socket.gethostname(),
            start_time=codec.timestamp(about.start_time),
            draining=self._core.draining,
            store_writable=self._store.writable,
            warnings=warnings,
            queue=self.queue(),
            resources=self.resources() if sample is not None else None,
            pid=os.getpid(),
            state_directory=str(about.state_dir),
        )


def resources_message(sample: Sample) -> resource_pb2.ResourceSnapshot:
    """Make the contract's message of a sample of the host."""
    message = resource_pb2.ResourceSnapshot(
        time=codec.timestamp(sample.time),
        cpu_percent=sample.cpu_percent,
        foreign_cpu_percent=sample.foreign_cpu_percent,
        cpu_count=sample.cpu_count,
        memory_percent=sample.memory_percent,
        memory_used_bytes=sample.memory_used,
        memory_total_bytes=sample.memory_total,
        memory_available_bytes=sample.memory_available,
    )
    for disk in sample.disks:
        used = 100.0 * (1 - disk.free / disk.total) if disk.total else 0.0
        message.disks.add(path=disk.path, total_bytes=disk.total, free_bytes=disk.free, used_percent=used)
    return message
