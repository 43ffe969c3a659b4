"""A configuration that is read again without validation is the one that was validated."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs.config import (
    DesignMode,
    EndReason,
    ExistingResults,
    JobConfig,
    LayoutOptions,
    Machine,
    RetryOptions,
    SchedulerOptions,
    SchedulerPriority,
)
from edbjobs.v1 import job_config_pb2
from edbjobs_server.contract.accepted import accepted_config
from pydantic import BaseModel

# All of it but what only a local or only a cluster job has.
WHOLE: dict[str, Any] = {
    "design": "D",
    "setup": "S",
    "design_mode": DesignMode.OPTIMETRICS,
    "aedt_version": "2025.2",
    "aedt_path": "/opt/ansysedt",
    "product": "Hfss",
    "scheduler_options": SchedulerOptions(
        partition="q",
        nodes=2,
        exclude_nodes=("n[1-3]", "m"),
        licenses={"hfss": 2},
        extra={"a": "b"},
        priority=SchedulerPriority.HIGH,
        exclusive=False,
    ),
    "licenses": {"hfss": 0},
    "time_limit": 7.5,
    "cancel_grace_period": 0,
    "distributed": False,
    "auto_settings": True,
    "non_graphical": False,
    "monitor": False,
    "layout_options": LayoutOptions(enable_gpu=False, mpi_vendor="Intel", temp_directory="/t"),
    "batch_options": {"HFSS/X": "1"},
    "environment": {"A": "ü"},
    "wait_for_license": True,
    "license_wait_limit": 60,
    "scheduler_wait_limit": 61,
    "not_before_time": datetime(2030, 1, 1, 12, 0, 0, 250, tzinfo=timezone.utc),
    "retry": RetryOptions(reasons=(EndReason.LICENSE,), initial_delay=timedelta(seconds=0.25)),
    "existing_results": ExistingResults.CLEAR,
    "batch": "night",
    "labels": {"k": "v"},
}
LOCAL: dict[str, Any] = {
    "scheduler": "local",
    "cores": 4,
    "memory_bytes": 0,
    "machines": [Machine(), Machine(hostname="n2", cores=8, tasks=2, gpus=0)],
}
NEEDS = {"setup": ["design"], "design_mode": ["design"], "license_wait_limit": ["wait_for_license"]}


def test_the_whole_configuration_is_in_the_table() -> None:
    assert {*WHOLE, *LOCAL, "project_path"} == set(JobConfig.model_fields)


@pytest.mark.parametrize("names", [[], *([name, *NEEDS.get(name, ())] for name in WHOLE), [*LOCAL], [*WHOLE, *LOCAL]])
def test_it_is_the_same_again(names: list[str]) -> None:
    config = JobConfig(project_path="/a/p.aedt", **{name: {**WHOLE, **LOCAL}[name] for name in names})
    message = config.to_message()
    validated = JobConfig.from_message(message)
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
