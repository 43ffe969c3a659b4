"""Configuration objects: see `edbjobs_server.facade.configuration`."""

from __future__ import annotations

from edbjobs_server.facade.configuration import (
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    SchedulerOptions,
    SchedulerType,
    create_hfss_config,
)

__all__ = [
    "HFSS3DLayoutBatchOptions",
    "HFSSSimulationConfig",
    "MachineNode",
    "SchedulerOptions",
    "SchedulerType",
    "create_hfss_config",
]
