"""The fields of the documented configuration; `HFSSSimulationConfig` documents them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from edbjobs import _config_types as t
from edbjobs._config_parts import Model
from edbjobs._enums import ExistingResults
from pydantic import AwareDatetime, Field

from edbjobs_server.gateway.documented.parts import (
    HFSS3DLayoutBatchOptions,
    MachineNode,
    RetryPolicy,
    SchedulerOptions,
)
from edbjobs_server.gateway.documented.types import SchedulerName, SchedulerType


class ConfigFields(Model):
    """Fields that are converted from and to dictionaries and to the contract's configuration."""

    project_path: t.ProjectPath
    jobid: t.JobId = ""
    user: t.Text = ""
    solver: t.Text = "Hfss3DLayout"
    ansys_edt_path: t.PathText = ""
    aedt_version: Annotated[str, Field(pattern=t.VERSION)] = ""
    design_name: t.SelectorText = ""
    design_mode: Literal["", "Nominal", "Optimetrics"] = ""
    setup_name: t.SelectorText = ""
    machine_nodes: Annotated[tuple[MachineNode, ...], Field(max_length=1_000)] = ()
    distributed: bool | None = None
    auto: bool | None = None
    non_graphical: bool = True
    monitor: bool = True
    layout_options: HFSS3DLayoutBatchOptions = Field(default_factory=HFSS3DLayoutBatchOptions)
    scheduler_type: SchedulerName = SchedulerType.NONE
    scheduler_options: SchedulerOptions = Field(default_factory=SchedulerOptions)
    cores: Annotated[t.Number, Field(ge=0, le=t.MAX_COUNT)] = 0
    memory_mib: Annotated[t.Number, Field(ge=0, le=2**40)] = 0
    licenses: t.LicenseMap = Field(default_factory=dict)
    environment: t.EnvironmentMap = Field(default_factory=dict)
    wall_clock_limit: t.LimitDuration | None = None
    cancel_grace: t.Grace = timedelta(seconds=30)
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    wait_for_license: bool = False
    license_wait_limit: t.LimitDuration | None = None
    scheduler_wait_limit: t.LimitDuration | None = None
    existing_results: ExistingResults = ExistingResults.KEEP
    not_before: AwareDatetime | None = None
    labels: t.LabelMap = Field(default_factory=dict)
    batch: t.JobId = ""
    batch_options: t.BatchOptions = Field(default_factory=dict)
