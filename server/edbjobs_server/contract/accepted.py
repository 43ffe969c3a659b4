"""A configuration that was validated when its job was accepted, read again without validating it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edbjobs._config_message import read_config
from edbjobs.config import JobConfig, LayoutOptions, Machine, RetryOptions, SchedulerOptions
from edbjobs.v1 import job_config_pb2


def accepted_config(data: bytes, project_path: str = "") -> JobConfig:
    """Return the configuration of an accepted job.

    Parameters
    ----------
    data : bytes
        Serialized ``JobConfig`` as accepted: no value of it is checked.
    project_path : str, optional
        Path of its project, where `data` has none.
    """
    values = {"project_path": project_path} | read_config(job_config_pb2.JobConfig.FromString(data))
    if "machines" in values:
        values["machines"] = tuple([Machine.model_construct(**machine) for machine in values["machines"]])
    if "layout_options" in values:
        values["layout_options"] = LayoutOptions.model_construct(**values["layout_options"])
    if "scheduler_options" in values:
        values["scheduler_options"] = SchedulerOptions.model_construct(**_tuples(values["scheduler_options"]))
    if "retry" in values:
        values["retry"] = RetryOptions.model_construct(**_tuples(values["retry"]))
    return JobConfig.model_construct(**values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    for name in ("include_nodes", "exclude_nodes", "reasons"):
        if name in found:
            found[name] = tuple(found[name])
    return found
