"""Metrics in the format of Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from edbjobs_server.core.job import Job
from edbjobs_server.core.states import EventType, State
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.manager.status import Measurements
from edbjobs_server.store import Committed

# A job may wait for days, and a solve may take as long.
_BUCKETS = (0.1, 1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400, 7 * 86_400)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10)
_AFTER_THE_END = (EventType.JOB_SUPERSEDED, EventType.JOB_DELETED)
_SAMPLE_SECONDS = 0.2


class Metrics:
    """Counters fed by the commits of a manager, and gauges read at each scrape.

    Parameters
    ----------
    manager : JobManager
        Source of the commits and of the gauges.
    """

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager
        registry = self._registry = CollectorRegistry()
        events = Counter("edbjobs_events", "Changes by kind.", ["event"], registry=registry)
        self._events = {kind: events.labels(kind.name.lower()) for kind in EventType}
        self._submits = Counter("edbjobs_submits", "Jobs accepted.", registry=registry)
        self._errors = Counter("edbjobs_http_errors", "Requests refused, by reason.", ["reason"], registry=registry)
        self._waits = Histogram(
            "edbjobs_queue_wait_seconds", "From submit to first start.", buckets=_BUCKETS, registry=registry
        )
        self._runs = Histogram(
            "edbjobs_run_seconds",
            "From last start to end, by state.",
            ["state"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._commits = Histogram(
            "edbjobs_store_commit_seconds",
            "From the start of a commit until the service acts on it.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self._stall = 0.0
        self._measured: Measurements | None = None
        self._registry.register(self)
        manager.observe(self._observe)

    def count_error(self, reason: str) -> None:
        """Count a request that was refused."""
        self._errors.labels(reason).inc()

    async def watch_loop(self) -> None:
        """Measure the delay of the event loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _SAMPLE_SECONDS
            await asyncio.sleep(_SAMPLE_SECONDS)
            self._stall = max(self._stall, loop.time() - due)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer `GET /metrics`."""
        self._measured = await self._manager.measure()
        body = generate_latest(self._registry)
        self._stall = 0.0
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _observe(self, batch: Sequence[Committed]) -> None:
        self._commits.observe(max(0.0, time.time() - batch[0].time))
        for item in batch:
            self._events[item.type].inc()
            if item.type is EventType.JOB_QUEUED:
                self._submits.inc()
            elif item.job is not None:
                self._observe_job(item.type, item.job)

    def _observe_job(self, kind: EventType, job: Job) -> None:
        if job.start_time is None:
            return
        if kind is EventType.JOB_STARTED and job.attempt_count == 1:
            self._waits.observe(max(0.0, job.start_time - job.create_time))
        elif job.state.terminal and kind not in _AFTER_THE_END and job.end_time is not None:
            self._runs.labels(job.state.name.lower()).observe(max(0.0, job.end_time - job.start_time))

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; called by the registry at each scrape."""
        measured = self._measured
        assert measured is not None, "answer measures first"
        jobs = GaugeMetricFamily("edbjobs_jobs", "Jobs on record, by state.", labels=["state"])
        for state in State:
            jobs.add_metric([state.name.lower()], measured.jobs.get(state, 0))
        yield jobs
        yield from _clusters(measured)
        yield GaugeMetricFamily(
            "edbjobs_loop_stall_seconds", "Longest stall of the event loop since the last scrape.", value=self._stall
        )
        yield GaugeMetricFamily("edbjobs_store_writable", "1: changes can be committed.", value=measured.store_writable)
        yield GaugeMetricFamily("edbjobs_revision", "Newest revision.", value=measured.revision)


def _clusters(measured: Measurements) -> Iterator[Metric]:
    up = GaugeMetricFamily("edbjobs_scheduler_up", "1: the cluster's scheduler is reachable.", labels=["scheduler"])
    submitted = GaugeMetricFamily("edbjobs_cluster_jobs", "Jobs submitted to a cluster.", labels=["scheduler"])
    for status, jobs in measured.schedulers:
        up.add_metric([status.name], status.responding)
        submitted.add_metric([status.name], jobs)
    yield up
    yield submitted
