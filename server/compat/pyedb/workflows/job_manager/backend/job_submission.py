"""Configuration objects: see `edbjobs_pyedb.configuration`."""

from __future__ import annotations

from edbjobs_pyedb.configuration import (
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
