"""A configuration that was validated when its job was accepted, read again without validating it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edbjobs._config_message import read_message
from edbjobs.config import (
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    RetryPolicy,
    SchedulerOptions,
)
from edbjobs.v1 import job_config_pb2


def accepted_config(data: bytes) -> HFSSSimulationConfig:
    """Return the configuration of an accepted job.

    Parameters
    ----------
    data : bytes
        Serialized ``JobConfig`` as accepted: no value of it is checked.
    """
    values = read_message(job_config_pb2.JobConfig.FromString(data))
    values["machine_nodes"] = tuple([MachineNode.model_construct(**node) for node in values.get("machine_nodes", ())])
    values["layout_options"] = HFSS3DLayoutBatchOptions.model_construct(**values.get("layout_options", {}))
    values["scheduler_options"] = SchedulerOptions.model_construct(**_tuples(values.get("scheduler_options", {})))
    values["retry"] = RetryPolicy.model_construct(**_tuples(values.get("retry", {})))
    for name in ("licenses", "labels"):
        values[name] = dict(values.get(name, ()))
    return HFSSSimulationConfig.model_construct(**values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    for name in ("licenses", "reasons"):
        if name in found:
            found[name] = tuple(found[name])
    return found
