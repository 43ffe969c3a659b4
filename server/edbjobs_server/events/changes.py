"""A job before a change: filters look at it, and at the job after the change."""

from __future__ import annotations

from edbjobs.v1 import event_pb2, job_pb2, job_state_pb2

_FLIPS_HELD = (event_pb2.JOB_CHANGE_TYPE_HELD, event_pb2.JOB_CHANGE_TYPE_RELEASED)
_ENDED = (job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED)


def job_before(change: event_pb2.JobChange) -> job_pb2.Job:
    """Return a job with what filters look at as it was before a change that did not accept it.

    Of that a job changes its state and with it reason and time of its end, `held`, and `superseded_by`; an ended job
    keeps `held` as it was before its end.
    """
    same = change.old_state == change.job.state
    superseded = change.type == event_pb2.JOB_CHANGE_TYPE_SUPERSEDED
    if same and not superseded and change.type not in _FLIPS_HELD:
        return change.job
    job = job_pb2.Job()
    job.CopyFrom(change.job)
    job.state = change.old_state
    if change.old_state not in _ENDED:
        job.ClearField("end_time")
        job.ClearField("outcome")
    if change.type in _FLIPS_HELD:
        job.held = not job.held
    if superseded:
        job.ClearField("superseded_by")
    return job
