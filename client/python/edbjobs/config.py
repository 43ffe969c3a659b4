"""Configuration of a job, as the client and the service validate it.

The models are frozen. Their fields are those of ``edbjobs.v1.JobConfig`` (protos/edbjobs/v1/job_config.proto). None
and an empty text, list or mapping mean "not set": the service then uses the default that the contract names. Values
are validated when a model is created; the service checks on its own host that paths, solvers and hosts exist.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, Field, model_validator

from edbjobs import _config_types as t
from edbjobs._config_parts import LayoutOptions, Machine, Model, RetryOptions, SchedulerOptions
from edbjobs._config_types import field_errors
from edbjobs._enums import DesignMode, EndReason, ExistingResults, SchedulerPriority

if TYPE_CHECKING:
    from typing_extensions import Self

    from edbjobs.v1 import job_config_pb2

__all__ = [
    "DesignMode",
    "EndReason",
    "ExistingResults",
    "JobConfig",
    "LayoutOptions",
    "Machine",
    "RetryOptions",
    "SchedulerOptions",
    "SchedulerPriority",
    "absolute_project_path",
    "field_errors",
    "make_job_id",
    "total_cores",
]


_LOCAL = "local"


class JobConfig(Model):
    """Configuration of a job that solves one project.

    Parameters
    ----------
    project_path : str
        An .aedt or .aedtz file or an .aedb folder, as an absolute path on the service's host.
    design, setup : str
        What is solved; default: everything. A setup needs a design.
    design_mode : DesignMode, optional
        ``nominal`` or ``optimetrics``; default: nominal where a setup is named, else left to AEDT.
    aedt_version, aedt_path : str
        A solver of the service, by release (``"2025.2"``, ``"252"``) or by program; default: the newest.
    product : str
        Product of the project.
    scheduler : str
        ``local``, ``slurm``, ``lsf``, ``pbs``, ``windows_hpc`` or the name of a plug-in; default: local.
    scheduler_options : SchedulerOptions
        What is asked of the cluster's scheduler; ignored with a warning where the job runs locally.
    cores, memory_bytes : int, optional
        Of the service's host; a cluster job has `scheduler_options` instead. Default: the sum over `machines`, at
        least 1; no memory.
    licenses : mapping of str to int
        License tokens by feature; an entry of 0 needs none.
    machines : sequence of Machine
        Hosts and tasks of a local run; default: the service's host with `cores` cores in one task.
    time_limit : timedelta or seconds, optional
        Longest run, of a cluster job too; 0: unlimited. Default: none on the service's host, the partition's on a
        cluster.
    cancel_grace_period : timedelta or seconds, optional
        Time between the request to stop and the forced end, at most 1 h; default: 30 s.
    distributed, auto_settings : bool, optional
        Pass ``-distributed``, ``-auto``; default: true where more than one task is asked for; false.
    non_graphical, monitor : bool, optional
        Pass ``-ng``, ``-monitor``; default: true.
    layout_options : LayoutOptions
        Options of HFSS 3D Layout.
    batch_options, environment : mapping of str to str
        Further ``-batchoptions`` with AEDT's names; environment variables of the run.
    wait_for_license : bool, optional
        Queue for the license instead of failing; default: false.
    license_wait_limit : timedelta or seconds, optional
        Longest wait for a license; needs `wait_for_license`. Default: no limit.
    scheduler_wait_limit : timedelta or seconds, optional
        Longest time for which the cluster's scheduler may not respond before it has taken the job; default: no limit.
    not_before_time : datetime, optional
        Earliest start, with a time zone.
    retry : RetryOptions, optional
        Further attempts after a failed one; default: none.
    existing_results : ExistingResults, optional
        ``keep`` (default), ``clear`` or ``refuse``.
    batch, labels : str, mapping of str to str
        Batch name and labels, which filters can use; labels have at most 4 KiB together.

    Raises
    ------
    pydantic.ValidationError
        For an invalid value; `field_errors` returns the errors by field.
    """

    project_path: t.ProjectPath
    design: t.SelectorText = ""
    setup: t.SelectorText = ""
    design_mode: DesignMode | None = None
    aedt_version: Annotated[str, Field(pattern=t.VERSION)] = ""
    aedt_path: t.PathText = ""
    product: t.Text = ""
    scheduler: t.Text = ""
    scheduler_options: SchedulerOptions = Field(default_factory=SchedulerOptions)
    cores: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] | None = None
    memory_bytes: Annotated[t.Number, Field(ge=0, le=t.MAX_BYTES)] | None = None
    licenses: t.LicenseMap = Field(default_factory=dict)
    machines: Annotated[tuple[Machine, ...], Field(max_length=1_000)] = ()
    time_limit: t.RunTime | None = None
    cancel_grace_period: t.Grace | None = None
    distributed: bool | None = None
    auto_settings: bool | None = None
    non_graphical: bool | None = None
    monitor: bool | None = None
    layout_options: LayoutOptions = Field(default_factory=LayoutOptions)
    batch_options: t.BatchOptions = Field(default_factory=dict)
    environment: t.EnvironmentMap = Field(default_factory=dict)
    wait_for_license: bool | None = None
    license_wait_limit: t.LimitDuration | None = None
    scheduler_wait_limit: t.LimitDuration | None = None
    not_before_time: AwareDatetime | None = None
    retry: RetryOptions | None = None
    existing_results: ExistingResults | None = None
    batch: t.JobId = ""
    labels: t.LabelMap = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = _inconsistent(self)
        if wrong:
            raise t.FieldsError(wrong)
        return self

    @property
    def on_cluster(self) -> bool:
        """Whether a cluster's scheduler runs the job."""
        return self.scheduler not in ("", _LOCAL)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobConfig:
        """Build a configuration from JSON values, as `to_dict` returns them; null means "not set".

        Raises
        ------
        pydantic.ValidationError
            For an invalid value or an unknown key.
        """
        return cls.model_validate(_without_none(data))

    def to_dict(self) -> dict[str, Any]:
        """Return the values that are set as JSON values; durations are seconds."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_message(cls, message: job_config_pb2.JobConfig) -> JobConfig:
        """Build a configuration from its message.

        Raises
        ------
        pydantic.ValidationError
            For an invalid value.
        """
        from edbjobs._config_message import read_config

        return cls.model_validate(read_config(message))

    def to_message(self) -> job_config_pb2.JobConfig:
        """Return the configuration as a message, without fields that are not set."""
        from edbjobs._config_message import write_message

        return write_message(self)


_ONLY_LOCAL = {
    "cores": "is of the service's host; a cluster job has scheduler_options.cores_per_node",
    "memory_bytes": "is of the service's host; a cluster job has scheduler_options.memory_bytes_per_node",
    "machines": "is of a local run; a cluster job has scheduler_options.nodes and tasks_per_node",
}


def _inconsistent(config: JobConfig) -> dict[str, str]:
    """Return what is wrong with values that are valid by themselves, by field."""
    wrong: dict[str, str] = {}
    if config.setup and not config.design:
        wrong["design"] = "name the design too: AEDT selects a setup only within a design"
    if config.design_mode is DesignMode.OPTIMETRICS and not config.design:
        wrong["design"] = "name the design too: AEDT solves the Optimetrics setups of one design"
    if config.license_wait_limit is not None and not config.wait_for_license:
        wrong["license_wait_limit"] = "needs wait_for_license"
    if config.on_cluster:
        wrong.update({name: why for name, why in _ONLY_LOCAL.items() if getattr(config, name) not in (None, ())})
    if config.batch_options:
        set_by_layout = {name.lower() for name in config.layout_options.batch_options()}
        for name in config.batch_options:
            if name.lower() in set_by_layout:
                wrong[f"batch_options.{name}"] = "is set by layout_options as well; leave one of them out"
    return wrong


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in data.items()
        if value is not None
    }


def total_cores(config: JobConfig) -> int:
    """Return the number of cores of a local run: `cores`, else the sum over `machines`, at least 1."""
    return config.cores or sum(machine.total_cores for machine in config.machines) or 1


def make_job_id(prefix: str = "job") -> str:
    """Return a new job id from the prefix, the local time and 48 random bits.

    Raises
    ------
    ValueError
        If `prefix` is longer than 32 characters.
    """
    if len(prefix) > 32:
        raise ValueError(f"prefix {prefix!r} is longer than 32 characters")
    return f"{prefix}-{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(6)}"


def absolute_project_path(path: str | PathLike[str]) -> str:
    """Return a path as absolute on this machine; one that is absolute on POSIX or Windows is not changed."""
    text = os.fspath(path)
    return text if t.is_absolute(text) else os.path.abspath(os.path.expanduser(text))
