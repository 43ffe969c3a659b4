"""A configuration that is read again without validation is the one that was validated."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs.config import (
    EndReason,
    ExistingResults,
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    RetryPolicy,
    SchedulerOptions,
    SchedulerType,
)
from edbjobs.v1 import job_config_pb2
from edbjobs_server.contract.accepted import accepted_config
from pydantic import BaseModel

WHOLE: dict[str, Any] = {
    "solver": "Hfss",
    "ansys_edt_path": "/opt/ansysedt",
    "aedt_version": "2025.2",
    "design_name": "D",
    "design_mode": "Optimetrics",
    "setup_name": "S",
    "machine_nodes": [MachineNode(), MachineNode(hostname="n2", cores=8, tasks=2, gpus=0)],
    "distributed": False,
    "auto": True,
    "non_graphical": False,
    "monitor": False,
    "layout_options": HFSS3DLayoutBatchOptions(enable_gpu=False, mpi_vendor="Intel", temp_directory="/t"),
    "scheduler_type": SchedulerType.SLURM,
    "scheduler_options": SchedulerOptions(
        queue="q", nodes=2, licenses=("hfss:2", "x"), extra={"a": "b"}, priority="High"
    ),
    "cores": 4,
    "memory_mib": 100,
    "licenses": {"hfss": 2},
    "environment": {"A": "ü"},
    "wall_clock_limit": 7.5,
    "cancel_grace": 0,
    "retry": RetryPolicy(max_attempts=3, reasons=(EndReason.LICENSE,), initial_backoff=timedelta(seconds=0.25)),
    "wait_for_license": True,
    "license_wait_limit": 60,
    "scheduler_wait_limit": 61,
    "existing_results": ExistingResults.CLEAR,
    "not_before": datetime(2030, 1, 1, 12, 0, 0, 250, tzinfo=timezone.utc),
    "labels": {"k": "v"},
    "batch": "night",
    "batch_options": {"HFSS/X": "1"},
}


def test_the_whole_configuration_is_in_the_table() -> None:
    assert {*WHOLE, "project_path", "jobid", "user"} == set(HFSSSimulationConfig.model_fields)


@pytest.mark.parametrize("names", [[], *([name] for name in WHOLE), [*WHOLE]])
def test_it_is_the_same_again(names: list[str]) -> None:
    config = HFSSSimulationConfig(project_path="/a/p.aedt", **{name: WHOLE[name] for name in names})
    message = config.to_message()
    validated = HFSSSimulationConfig.from_message(message)
    accepted = accepted_config(message.SerializeToString(deterministic=True))
    assert accepted == validated
    assert types(accepted) == types(validated)


def test_nothing_is_validated() -> None:
    message = job_config_pb2.JobConfig(project_path="relative", cores=-1)
    assert accepted_config(message.SerializeToString()).cores == -1


def types(value: Any) -> Any:
    """Return the types of all values: a list would equal no tuple, but an integer equals its enumeration."""
    if isinstance(value, BaseModel):
        return {name: types(item) for name, item in value}
    return [type(value), *map(types, value)] if isinstance(value, tuple) else type(value)
