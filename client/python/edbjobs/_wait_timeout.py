"""The error of a wait that timed out; part of the tree in `edbjobs._exceptions`."""

from __future__ import annotations

from edbjobs._exceptions import EdbJobsError
from edbjobs._models import Job

__all__ = ["WaitTimeoutError"]


class WaitTimeoutError(EdbJobsError, TimeoutError):
    """A job did not end in the given time; `job` is its last known state."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message, reason="WAIT_TIMEOUT", metadata={"uid": job.uid, "state": job.state.value})
        self.job = job
