"""Why a live job does not run, or has not ended, as reported to clients: it changes without an event."""

from __future__ import annotations

import time
from functools import lru_cache

from edbjobs.v1 import convergence_pb2, job_pb2

from edbjobs_server.contract.codec import embedded, varint, waiting_bytes
from edbjobs_server.core.job import Job
from edbjobs_server.core.planner import Explanation, Planner
from edbjobs_server.core.states import State, Waiting
from edbjobs_server.manager.clusters import Clusters
from edbjobs_server.manager.progress_tracker import ProgressTracker

_WAITING = job_pb2.Job.WAITING_FIELD_NUMBER
_PROGRESS = job_pb2.Job.PROGRESS_FIELD_NUMBER
_JOBS_BEFORE = varint(job_pb2.Waiting.JOBS_BEFORE_FIELD_NUMBER << 3)
_serialized = lru_cache(256)(waiting_bytes)  # many jobs of one call wait for the same
_LICENSE_WAIT = Explanation(Waiting.LICENSE_WAIT, "no setup has started yet; the solver may be waiting for a license")


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
        message.MergeFromString(self.addition(message.uid, message.state))
        return message

    def addition(self, uid: str, state: int) -> bytes:
        """Return the same, to be appended to a serialized job, which is then merged when it is parsed."""
        job = self._core.jobs.get(uid)
        if job is None or state >= State.COMPLETED:  # what is on disk may be ahead of the core
            return b""
        progress = self.progress_of(job)
        why = self.why(job, progress)
        data = embedded(_PROGRESS, progress.SerializeToString()) if progress is not None else b""
        if why.reason is None:
            return data
        data += _serialized(why.reason, why.detail, None, why.next_attempt_time)
        # A second part of the same field is merged with the first: the number is the only part that all jobs differ in.
        return data if why.before is None else data + embedded(_WAITING, _JOBS_BEFORE + varint(why.before))

    def progress_of(self, job: Job) -> convergence_pb2.JobProgress | None:
        """Return how far a live job is; None: not known."""
        return self._progress.progress_of(job.uid) if job.state is State.RUNNING else None

    def why(self, job: Job, progress: convergence_pb2.JobProgress | None) -> Explanation:
        """Return what keeps a live job from starting, or from ending."""
        if job.state is State.QUEUED and not job.attempts:
            return self._core.explain(job.uid, time.time())  # without a run, no cluster has a reason
        trouble = self._core.trouble(job.uid) if not job.unkillable else None
        found = trouble or self._clusters.explain(job) or self._core.explain(job.uid, time.time())
        silent = found.reason is None and progress is None and job.state is State.RUNNING
        return _LICENSE_WAIT if silent and self._progress.waits_for_license(job.uid) else found
