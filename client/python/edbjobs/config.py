"""What a solve is: the documented configuration models, and what this service adds to them.

The models are frozen. Field names are those of ``edbjobs.v1.JobConfig``
(protos/edbjobs/v1/job_config.proto), which are the documented ones where there is a documented one. Values
are checked when a model is made; existence of paths, solvers and hosts is for the service to check, on its
own host.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

from edbjobs import _config_types as t
from edbjobs._config_dict import read_dict, write_dict
from edbjobs._config_fields import ConfigFields
from edbjobs._config_parts import HFSS3DLayoutBatchOptions, MachineNode, RetryPolicy, SchedulerOptions
from edbjobs._config_types import field_errors
from edbjobs._enums import EndReason, ExistingResults, SchedulerType

if TYPE_CHECKING:
    from edbjobs.v1 import job_config_pb2

__all__ = [
    "EndReason",
    "ExistingResults",
    "HFSS3DLayoutBatchOptions",
    "HFSSSimulationConfig",
    "MachineNode",
    "RetryPolicy",
    "SchedulerOptions",
    "SchedulerType",
    "absolute_project_path",
    "create_hfss_config",
    "field_errors",
    "make_job_id",
    "total_cores",
]


class HFSSSimulationConfig(ConfigFields):
    """A solve.

    Parameters
    ----------
    project_path : str
        A .aedt or .aedtz file or a .aedb folder, as an absolute path on the service's host.
    jobid : str
        Name of the job, ``[A-Za-z0-9][A-Za-z0-9._-]{0,62}``; empty: made by the service.
    user : str
        On whose behalf; empty: the caller's account.
    ansys_edt_path, aedt_version : str
        A solver the service knows, by program or by release (``"2025.2"``, ``"252"``); empty: the newest.
    design_name, design_mode, setup_name : str
        What to solve; all empty: everything. `design_mode` is ``Nominal`` or ``Optimetrics``.
    machine_nodes : sequence of MachineNode
        Hosts of a local run; empty: the service's host with `cores` cores in one task.
    distributed, auto : bool, optional
        Pass ``-distributed``, ``-auto``; None: as the service decides.
    non_graphical, monitor : bool
        Pass ``-ng``, ``-monitor``; default True.
    cores : int
        Cores reserved on the service's host; 0: the sum over `machine_nodes`, at least 1.
    memory_mib : int
        Memory reserved, MiB; 0: none declared.
    licenses : mapping of str to int
        Licence tokens reserved of those the limits name, by feature.
    environment, batch_options : mapping of str to str
        Variables of the run; further ``-batchoptions`` by AEDT's names.
    wall_clock_limit, license_wait_limit : timedelta or seconds, optional
        Longest run, and longest wait for a licence with `wait_for_license`; None: no limit.
    scheduler_wait_limit : timedelta or seconds, optional
        Longest wait for a cluster's scheduler that does not answer; None: no limit.
    cancel_grace : timedelta or seconds
        Time between TERM and KILL, at most 1 h; default 30 s.
    retry, layout_options, scheduler_options : model
        See there.
    existing_results : ExistingResults
        ``keep`` (default), ``clear`` or ``refuse``.
    not_before : datetime, optional
        Earliest start, with a time zone.
    labels, batch : mapping of str to str, str
        To find jobs by.

    Raises
    ------
    pydantic.ValidationError
        For a value that cannot be right; `field_errors` gives it by field.
    """

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HFSSSimulationConfig:
        """Read the documented form, as `to_dict` writes it; see `edbjobs._config_dict`.

        Raises
        ------
        pydantic.ValidationError
            For a value that cannot be right or a key that is not known.
        """
        return cls.model_validate(read_dict(data))

    def to_dict(self) -> dict[str, Any]:
        """Write the documented form: JSON values only, all documented keys, others where they are set."""
        return write_dict(self)

    @classmethod
    def from_message(
        cls, message: job_config_pb2.JobConfig, *, jobid: str = "", user: str = ""
    ) -> HFSSSimulationConfig:
        """Read the message of the contract; `jobid` and `user` belong to the request around it.

        Raises
        ------
        pydantic.ValidationError
            For a value that cannot be right.
        """
        from edbjobs._config_message import read_message

        return cls.model_validate({"jobid": jobid, "user": user, **read_message(message)})

    def to_message(self) -> job_config_pb2.JobConfig:
        """Write the message of the contract, without what is not set."""
        from edbjobs._config_message import write_message

        return write_message(self)


def total_cores(config: HFSSSimulationConfig) -> int:
    """Cores a local run takes: `cores`, else the sum over `machine_nodes`, at least 1."""
    return config.cores or sum(node.cores for node in config.machine_nodes) or 1


def make_job_id(prefix: str = "job") -> str:
    """Make an id for a job: time to read, and 48 random bits so that two are never the same.

    Raises
    ------
    ValueError
        If `prefix` is longer than 32 characters.
    """
    if len(prefix) > 32:
        raise ValueError(f"prefix {prefix!r} is longer than 32 characters")
    return f"{prefix}-{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(6)}"


def absolute_project_path(path: str | PathLike[str]) -> str:
    """Make a path absolute by this machine's rules; one that is absolute anywhere is left alone."""
    text = os.fspath(path)
    return text if t.is_absolute(text) else os.path.abspath(os.path.expanduser(text))


def create_hfss_config(
    project_path: str | PathLike[str],
    jobid: str | None = "",
    ansys_edt_path: str | None = "",
    design_name: str | None = "",
    setup_name: str | None = "",
    machine_nodes: Iterable[MachineNode] | None = None,
    scheduler_type: SchedulerType | str = SchedulerType.NONE,
    scheduler_options: SchedulerOptions | None = None,
    **fields: Any,
) -> HFSSSimulationConfig:
    """Make a configuration with an id of its own; the documented factory.

    Parameters
    ----------
    project_path : str or path
        Project; a relative path is taken from the current folder.
    jobid : str, optional
        Made here if absent or empty.
    ansys_edt_path, design_name, setup_name, machine_nodes, scheduler_type, scheduler_options : optional
        As in `HFSSSimulationConfig`.
    **fields
        Any other field of `HFSSSimulationConfig`.

    Returns
    -------
    HFSSSimulationConfig
        Checked configuration.
    """
    return HFSSSimulationConfig(
        project_path=absolute_project_path(project_path),
        jobid=jobid or make_job_id(),
        ansys_edt_path=ansys_edt_path or "",
        design_name=design_name or "",
        setup_name=setup_name or "",
        machine_nodes=tuple(machine_nodes or ()),
        scheduler_type=SchedulerType(scheduler_type),
        scheduler_options=scheduler_options or SchedulerOptions(),
        **fields,
    )
