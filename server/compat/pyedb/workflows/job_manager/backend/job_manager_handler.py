"""``JobManagerHandler``: see `edbjobs_server.facade.handler`; as a program, the job manager itself."""

from __future__ import annotations

from edbjobs_server.facade.configuration import (
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    SchedulerOptions,
    SchedulerType,
    create_hfss_config,
)
from edbjobs_server.facade.errors import JobManagerError
from edbjobs_server.facade.handler import JobManagerHandler
from edbjobs_server.facade.http import get_session
from edbjobs_server.facade.service import JobManager, ResourceLimits, SchedulerManager
from edbjobs_server.facade.start_service import run_handler

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
