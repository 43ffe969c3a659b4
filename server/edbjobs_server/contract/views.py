"""How much of a job is sent: views of a message."""

from __future__ import annotations

from edbjobs.v1 import job_config_pb2, job_pb2

BASIC, FULL = job_pb2.JOB_VIEW_BASIC, job_pb2.JOB_VIEW_FULL


def in_view(job: job_pb2.Job, view: job_pb2.JobView.ValueType) -> job_pb2.Job:
    """Cut a whole job down to a view."""
    job.view = view
    if view == BASIC:
        whole = job.config
        config = job_config_pb2.JobConfig(
            project_path=whole.project_path,
            design_name=whole.design_name,
            setup_name=whole.setup_name,
            batch=whole.batch,
            labels=whole.labels,
        )
        job.config.CopyFrom(config)
        job.ClearField("attempts")
        job.ClearField("warnings")
    return job
