"""Why a live job does not run, or has not ended, as reported to clients: it changes without an event."""

from __future__ import annotations

import time
from functools import lru_cache

from edbjobs.v1 import job_pb2, job_state_pb2

from edbjobs_server.contract.codec import varint
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.states import State
from edbjobs_server.manager.clusters import Clusters
from edbjobs_server.manager.progress_tracker import ProgressTracker

_JOBS_BEFORE = varint(job_pb2.Job.JOBS_BEFORE_FIELD_NUMBER << 3)


class WaitingReasons:
    """Adds to messages of live jobs why they wait, and their progress.

    Parameters
    ----------
    core : Planner
        Source of reasons on this host.
    clusters : Clusters
        Source of reasons on clusters.
    progress : ProgressTracker
        Source of progress.
    """

    def __init__(self, core: Planner, clusters: Clusters, progress: ProgressTracker) -> None:
        self._core = core
        self._clusters = clusters
        self._progress = progress

    def explained(self, message: job_pb2.Job) -> job_pb2.Job:
        """Add to a live job why it waits now, and its progress."""
        self._add(message, message.uid, message.state)
        return message

    def addition(self, uid: str, state: int) -> bytes:
        """Return the same, to be appended to a serialized job, which is then merged when it is parsed."""
        job = self._core.jobs.get(uid)
        if job is not None and job.state is State.QUEUED and state == State.QUEUED and not job.attempts:
            # Without a run, the reason is neither a cluster's nor a run's.
            why = self._core.explain(uid, time.time())
            data = _serialized(why.reason.value, why.detail)
            return data + _JOBS_BEFORE + varint(why.before) if why.before else data
        message = job_pb2.Job()
        self._add(message, uid, state)
        return message.SerializeToString()

    def _add(self, message: job_pb2.Job, uid: str, state: int) -> None:
        job = self._core.jobs.get(uid)
        if job is None or state >= State.COMPLETED:  # what is on disk may be ahead of the core
            return
        trouble = self._core.trouble(uid) if not job.unkillable else None
        why = trouble or self._clusters.explain(job) or self._core.explain(uid, time.time())
        message.waiting_reason = job_state_pb2.WaitingReason.ValueType(why.reason)
        message.waiting_detail = why.detail
        message.jobs_before = why.before
        if job.state is not State.RUNNING:
            return
        progress = self._progress.progress_of(uid)
        if progress is not None:
            message.progress.CopyFrom(progress)
        elif not why.reason and self._progress.waits_for_license(uid):
            message.waiting_reason = job_state_pb2.WAITING_REASON_LICENSE_WAIT
            message.waiting_detail = "no setup has started yet; the solver may be waiting for a license"


@lru_cache(256)
def _serialized(reason: int, detail: str) -> bytes:
    """Serialize why a job waits; cached, as many jobs of one call have the same reason."""
    return job_pb2.Job(
        waiting_reason=job_state_pb2.WaitingReason.ValueType(reason), waiting_detail=detail
    ).SerializeToString()
