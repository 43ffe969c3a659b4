"""``JobManager`` and what belongs to it: see `edbjobs_pyedb.service`; as a program, the job manager itself."""

from __future__ import annotations

from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.http import submit_job_to_manager
from edbjobs_pyedb.service import (
    HFSSSimulationConfig,
    JobInfo,
    JobManager,
    JobPoolManager,
    JobStatus,
    ResourceLimits,
    ResourceMonitor,
    SchedulerManager,
    SchedulerType,
)
from edbjobs_pyedb.start_service import run as main
from edbjobs_pyedb.start_service import run_handler

__all__ = [
    "HFSSSimulationConfig",
    "JobInfo",
    "JobManager",
    "JobManagerError",
    "JobPoolManager",
    "JobStatus",
    "ResourceLimits",
    "ResourceMonitor",
    "SchedulerManager",
    "SchedulerType",
    "main",
    "submit_job_to_manager",
]

if __name__ == "__main__":
    run_handler()
