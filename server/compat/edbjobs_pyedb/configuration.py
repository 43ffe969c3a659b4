"""The documented configuration objects: they may be changed until they are submitted, and are copied then.

Names and defaults are the documented ones. A documented default that nobody has set says nothing about the user's
wish: it is not passed on. A value that was set, or assigned, counts even where it equals the default. What a solve
is, and whether a value can be right, is for `edbjobs.config`, whose further fields are taken here as well.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, TypeVar

from edbjobs import config as frozen
from edbjobs._config_dict import read_dict
from edbjobs.config import SchedulerType, absolute_project_path, field_errors, make_job_id
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edbjobs_pyedb import cluster, local
from edbjobs_pyedb.errors import told

__all__ = [
    "HFSS3DLayoutBatchOptions",
    "HFSSSimulationConfig",
    "MachineNode",
    "SchedulerOptions",
    "SchedulerType",
    "create_hfss_config",
]

_OWN_DEFAULTS = frozenset({"auto", "distributed"})
T = TypeVar("T")
_Model = TypeVar("_Model", bound=BaseModel)
_ABSENT = {"user": "unknown", "jobid": None, "ansys_edt_path": None}


class _Changeable(BaseModel):
    """A part that may be changed until it is submitted."""

    def native(self) -> Any:
        """Make the checked, frozen copy that is submitted."""
        raise NotImplementedError

    def validate_fields(self) -> None:
        """Check the values.

        Raises
        ------
        ValueError
            Names each field that cannot be right.
        """
        self.native()


class MachineNode(_Changeable):
    """One host of a run; see `edbjobs.MachineNode`, which it becomes.

    Parameters
    ----------
    hostname : str
        Host name; default ``"localhost"``.
    cores : int
        Cores used on this host in all; -1, the documented default, is `max_cores` where that was given, else 1.
    max_cores, utilization : int
        Cores the host has, and the share of its memory in percent.
    tasks, gpus : int
        Tasks that share `cores`; GPUs, None leaves it to AEDT.
    """

    hostname: str = "localhost"
    cores: int = -1
    max_cores: int = 20
    utilization: int = 90
    tasks: int = 1
    gpus: int | None = None

    def native(self) -> frozen.MachineNode:
        """Make the checked, frozen form."""
        return _checked(frozen.MachineNode, self.model_dump(exclude_none=True))

    def __str__(self) -> str:
        return self.native().aedt()


class HFSS3DLayoutBatchOptions(_Changeable):
    """AEDT's ``-batchoptions`` for HFSS 3D Layout; only those that were set are passed."""

    create_starting_mesh: bool = False
    default_process_priority: str = "Normal"
    enable_gpu: bool = False
    mpi_vendor: str = "Intel"
    mpi_version: str = "Default"
    remote_spawn_command: str = "Scheduler"
    solve_adaptive_only: bool = False
    validate_only: bool = False
    temp_directory: str = Field(default_factory=tempfile.gettempdir)

    def native(self) -> frozen.HFSS3DLayoutBatchOptions:
        """Make the checked, frozen form."""
        return _checked(frozen.HFSS3DLayoutBatchOptions, self.model_dump(include=self.model_fields_set))

    def to_batch_options_dict(self) -> dict[str, str]:
        """Give the options that are passed, by AEDT's names."""
        with told():
            return local.batch_options(
                frozen.HFSSSimulationConfig(project_path="/any.aedt", layout_options=self.native())
            )

    def to_batch_options_string(self) -> str:
        """Give the options that are passed, as one text."""
        return " ".join(f"'{name}'='{value}'" for name, value in self.to_batch_options_dict().items())


class SchedulerOptions(_Changeable):
    """What is asked of a cluster's scheduler; see `edbjobs.SchedulerOptions`, which it becomes."""

    model_config = ConfigDict(extra="allow")  # the fields that edbjobs has beside the documented ones

    queue: str = "default"
    time: str = "24:00:00"
    nodes: int = 1
    tasks_per_node: int = 1
    cores_per_node: int = 0
    memory: str = "4GB"
    account: str | None = None
    reservation: str | None = None
    qos: str | None = None
    constraints: str | None = None
    exclusive: bool = False
    gpus: int = 0
    gpu_type: str | None = None
    priority: str = "Normal"
    email_notification: str | None = None
    run_as_administrator: bool = False

    def native(self) -> frozen.SchedulerOptions:
        """Make the checked, frozen form."""
        return _checked(frozen.SchedulerOptions, self.model_dump(exclude_none=True))


class HFSSSimulationConfig(_Changeable):
    """A solve; see `edbjobs.HFSSSimulationConfig`, which it becomes when it is submitted.

    Parameters
    ----------
    project_path : str
        A .aedt or .aedtz file or a .aedb folder; a relative path is taken from the current folder.
    ansys_edt_path : str, optional
        A solver the service knows; None: the newest, or the one of `aedt_version`.
    jobid, user : str, optional
        Made by the service, and the service's account, where absent.
    scheduler_type : SchedulerType or str
        In any case; ``none`` leaves it to the service.
    **more
        The documented fields, and any other field of `edbjobs.HFSSSimulationConfig`.
    """

    model_config = ConfigDict(extra="allow")

    ansys_edt_path: str | None = None
    solver: str = "Hfss3DLayout"
    jobid: str | None = None
    user: str = "unknown"
    distributed: bool = True
    machine_nodes: list[MachineNode] = Field(default_factory=lambda: [MachineNode()])
    auto: bool = True
    non_graphical: bool = True
    monitor: bool = True
    layout_options: HFSS3DLayoutBatchOptions = Field(default_factory=HFSS3DLayoutBatchOptions)
    project_path: str = ""
    design_name: str = ""
    design_mode: str = ""
    setup_name: str = ""
    scheduler_type: SchedulerType = SchedulerType.NONE
    scheduler_options: SchedulerOptions = Field(default_factory=SchedulerOptions)

    def native(self) -> frozen.HFSSSimulationConfig:
        """Make the checked, frozen copy that is submitted."""
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        values |= self.model_extra or {}
        for name in _OWN_DEFAULTS - self.model_fields_set:
            del values[name]
        for name, absent in _ABSENT.items():
            if values[name] == absent:
                del values[name]
        values["machine_nodes"] = tuple(node.native() for node in self.machine_nodes)
        values["layout_options"] = self.layout_options.native()
        values["scheduler_options"] = self.scheduler_options.native()
        values["project_path"] = absolute_project_path(self.project_path) if self.project_path else ""
        return _checked(frozen.HFSSSimulationConfig, values)

    @classmethod
    def of(cls, config: frozen.HFSSSimulationConfig) -> HFSSSimulationConfig:
        """Make a changeable copy of a frozen configuration."""
        return cls.from_dict(config.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HFSSSimulationConfig:
        """Read the documented form; in it a value that equals its documented default counts as not set.

        Raises
        ------
        ValueError
            Names each field that cannot be right.
        """
        try:
            config = cls.model_validate(read_dict(data))
        except ValidationError as error:
            raise _wrong(error) from error
        config.validate_fields()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Write the documented form: JSON values only."""
        return self.native().to_dict()

    # What is run -----------------------------------------------------------------------------------------

    def generate_command_list(self) -> list[str]:
        """Give program and arguments of a local run.

        Raises
        ------
        JobManagerError
            SOLVER_NOT_FOUND, where no AEDT is installed and none is named.
        """
        config = self.native()
        with told():
            return local.command(config, local.release_of(config))

    def generate_command_string(self) -> str:
        """Give the command line of a local run as text for this system's shell."""
        return local.shell_line(self.generate_command_list())

    def generate_machinelist_string(self) -> str:
        """Give the argument of ``-machinelist``."""
        command = self._any_command()
        return command[command.index("-machinelist") + 1]

    def generate_batch_options_string(self) -> str:
        """Give the argument of ``-batchoptions``; empty: none is passed."""
        with told():
            return " ".join(f"'{name}'='{value}'" for name, value in local.batch_options(self.native()).items())

    def generate_design_string(self) -> str:
        """Give what is solved as ``design:mode:setup``; empty: everything."""
        command = self._any_command()
        return ":".join(command[command.index("-batchsolve") + 1 : -1])

    def _any_command(self) -> list[str]:
        with told():
            return local.command(self.native(), local.ANY)

    def run_simulation(self, **subprocess_kwargs: Any) -> subprocess.CompletedProcess[Any]:
        """Solve here and now, in this process' account and without a service; waits for the end.

        With a cluster as `scheduler_type` it is handed to that, as `submit_to_scheduler` does, and not waited for.

        Parameters
        ----------
        **subprocess_kwargs
            For `subprocess.run`, of a solve on this host; by default it runs in the project's folder without standard
            input.

        Returns
        -------
        subprocess.CompletedProcess
            Its return code alone proves no success: a job of the service is judged by the solver's log as well.

        Raises
        ------
        JobManagerError
            SOLVER_NOT_FOUND or PROJECT_NOT_FOUND, and what `submit_to_scheduler` raises.
        """
        if self.scheduler_type not in (SchedulerType.NONE, SchedulerType.LOCAL):
            return self.submit_to_scheduler()
        config = self.native()
        with told():
            return local.run(config, **subprocess_kwargs)

    # What a cluster would run ----------------------------------------------------------------------------

    def submit_to_scheduler(self, script_path: str | None = None) -> subprocess.CompletedProcess[str]:
        """Write the batch script and hand it to the cluster; no service follows it, and none knows of it.

        The run keeps its output and its record in a folder beside the project, ``<jobid>_<scheduler>``.

        Parameters
        ----------
        script_path : str, optional
            Where the script is written; a relative path is taken from the project's folder; default:
            ``<jobid>_<scheduler>.sh`` there.

        Returns
        -------
        subprocess.CompletedProcess
            With the scheduler's id in the words of its command, for example ``Submitted batch job 4711``. A refusal
            is return code 1 with the scheduler's words in `stderr`.

        Raises
        ------
        JobManagerError
            NO_SCHEDULER; SCHEDULER_UNREACHABLE: nobody knows whether the job was taken; FOLDER_EXISTS: this id was
            handed over before; or what the job asks for is not allowed.
        """
        return self._with_cluster(lambda config: cluster.submit(config, self._cluster(), script_path))

    def generate_scheduler_script(self) -> str:
        """Give the batch script for the scheduler that is named, as `submit_to_scheduler` writes it.

        It is made from the template that the service uses, with this host's settings and site policy. It names
        `ansys_edt_path`, else the AEDT that is installed here, and the folder that `submit_to_scheduler` makes beside
        the project; a program that hands it over itself makes that folder before.

        Raises
        ------
        JobManagerError
            NO_SCHEDULER where none is named, SOLVER_NOT_FOUND, or what is asked for is not allowed.
        """
        return self._with_cluster(lambda config: cluster.script(config, self._cluster()))

    def generate_slurm_script(self) -> str:
        """Give the batch script for SLURM, whatever scheduler is named; see `generate_scheduler_script`."""
        return self._with_cluster(lambda config: cluster.script(config, SchedulerType.SLURM))

    def generate_lsf_script(self) -> str:
        """Give the batch script for LSF, whatever scheduler is named; see `generate_scheduler_script`."""
        return self._with_cluster(lambda config: cluster.script(config, SchedulerType.LSF))

    def _cluster(self) -> SchedulerType:
        return SchedulerType(self.scheduler_type)

    def _with_cluster(self, do: Callable[[frozen.HFSSSimulationConfig], T]) -> T:
        # Script and folder bear the id: it must be the same one at the next call.
        self.jobid = self.jobid or make_job_id()
        with told():
            return do(self.native())


def create_hfss_config(
    project_path: str | PathLike[str],
    jobid: str | None = "",
    ansys_edt_path: str | None = "",
    design_name: str | None = "",
    setup_name: str | None = "",
    machine_nodes: list[MachineNode] | None = None,
    scheduler_type: SchedulerType | str = SchedulerType.NONE,
    scheduler_options: SchedulerOptions | None = None,
    **kwargs: Any,
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
    **kwargs
        Any other field of `HFSSSimulationConfig`.

    Raises
    ------
    ValueError
        Names each field that cannot be right.
    """
    values: dict[str, Any] = {
        "project_path": absolute_project_path(project_path),
        "jobid": jobid or make_job_id(),
        "ansys_edt_path": ansys_edt_path or None,
        "design_name": design_name or "",
        "setup_name": setup_name or "",
        "scheduler_type": SchedulerType(scheduler_type),
        **kwargs,
    }
    if machine_nodes:
        values["machine_nodes"] = machine_nodes
    if scheduler_options is not None:
        values["scheduler_options"] = scheduler_options
    config = _checked(HFSSSimulationConfig, values)
    config.validate_fields()
    return config


def _checked(kind: type[_Model], values: Mapping[str, Any]) -> _Model:
    try:
        return kind(**values)
    except ValidationError as error:
        raise _wrong(error) from error


def _wrong(error: ValidationError) -> ValueError:
    text = "; ".join(f"{field}: {what}" for field, what in field_errors(error).items())
    return ValueError(f"the configuration is not valid: {text}")
