"""The parts that every method of the job manager works with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from edbjobs.v1 import job_state_pb2

from edbjobs_server.core.errors import Refused, path_unreachable
from edbjobs_server.core.planner import Planner
from edbjobs_server.events.log import EventLog
from edbjobs_server.executors.base import Executor
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.manager.clusters import Clusters
from edbjobs_server.manager.draft_batcher import DraftBatcher
from edbjobs_server.manager.end_waiters import EndWaiters
from edbjobs_server.manager.job_updates import JobUpdates
from edbjobs_server.manager.runs import Runs
from edbjobs_server.manager.service_info import ServiceInfo
from edbjobs_server.manager.submission import Rules
from edbjobs_server.manager.waiting_reasons import WaitingReasons
from edbjobs_server.store import Committed, Store
from edbjobs_server.telemetry.host import HostSampler
from edbjobs_server.util.path_workers import PathWorkers

TERMINAL = frozenset(
    {job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED}
)


class ManagerBase:
    """The parts of the job manager.

    Parameters
    ----------
    store : Store
        Opened store.
    executors : mapping of str to Executor
        Executors of runs, by name.
    rules : Rules
        Checks and defaults for requests.
    environment : mapping of str to str
        Base of every run's environment.
    boot_id : str
        Identifier of the host's current boot.
    sampler : HostSampler
        Source of samples of the host.
    about : ServiceInfo
        Static facts about the service.
    lock_wait : float, default: 600
        Longest wait, in seconds, for a project that another program has open.
    gate_event_seconds : float, default: 600
        Time after which a closed gate is reported by an event.
    clusters : mapping of str to ClusterExecutor, optional
        Those of `executors` that are clusters.
    cluster_chosen : bool, default: False
        Whether the administrator has configured the cluster's scheduler.
    """

    def __init__(
        self,
        store: Store,
        executors: Mapping[str, Executor],
        rules: Rules,
        environment: Mapping[str, str],
        boot_id: str,
        sampler: HostSampler,
        about: ServiceInfo,
        lock_wait: float = 600.0,
        gate_event_seconds: float = 600.0,
        clusters: Mapping[str, ClusterExecutor] | None = None,
        cluster_chosen: bool = False,
    ) -> None:
        snapshot = store.snapshot()
        self._store = store
        self._rules = rules
        self._core = Planner(rules.host, snapshot.limits)
        self._core.now = time.time()
        self._core.reset(snapshot.jobs, snapshot.limits, snapshot.paused)
        self._events = EventLog(store, snapshot.revision)
        self._paths = PathWorkers(path_unreachable)
        self._drafts = DraftBatcher(self._paths, rules, lambda: self._core.limits, store)
        self._runs = Runs(
            store, self._core, executors, rules, self._paths, environment, boot_id, lock_wait, gate_event_seconds
        )
        self._clusters = Clusters(clusters or {}, self._core, cluster_chosen)
        self._reasons = WaitingReasons(self._core, self._clusters, self._runs.progress)
        self._updates = JobUpdates(self._core, self._reasons, self._events.wake_for_updates)
        self._sampler = sampler
        self._about = about
        self._waiters = EndWaiters()
        self._observers: list[Callable[[Sequence[Committed]], None]] = []


def draining() -> Refused:
    """Build the error for requests to a service that is stopping."""
    return Refused("DRAINING", "the service is stopping; try again when it is back")
