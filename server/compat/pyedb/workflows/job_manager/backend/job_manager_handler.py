"""``JobManagerHandler``: see `edbjobs_pyedb.handler`; as a program, the job manager itself."""

from __future__ import annotations

from edbjobs_pyedb.configuration import (
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    SchedulerOptions,
    SchedulerType,
    create_hfss_config,
)
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.handler import JobManagerHandler
from edbjobs_pyedb.http import get_session
from edbjobs_pyedb.service import JobManager, ResourceLimits, SchedulerManager
from edbjobs_pyedb.start_service import run_handler

__all__ = [
    "HFSS3DLayoutBatchOptions",
    "HFSSSimulationConfig",
    "JobManager",
    "JobManagerError",
    "JobManagerHandler",
    "MachineNode",
    "ResourceLimits",
    "SchedulerManager",
    "SchedulerOptions",
    "SchedulerType",
    "create_hfss_config",
    "get_session",
]

if __name__ == "__main__":
    run_handler()
