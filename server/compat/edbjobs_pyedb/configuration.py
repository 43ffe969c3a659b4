"""The documented configuration objects: mutable until they are submitted, which copies them.

Each class has the fields of the model of the same name in `edbjobs_server.gateway.documented.config`, with the
documented defaults where these differ. Values are checked when they are used, not when they are set: `native` makes the
checked, frozen object. A documented default that was not set is not passed on; a value that was set is, even if it
equals the default.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, ClassVar, TypeVar

from edbjobs.config import JobConfig, absolute_project_path, make_job_id
from edbjobs.v1 import job_config_pb2
from edbjobs_server.gateway.documented import config as frozen
from edbjobs_server.gateway.documented.config import SchedulerType, field_errors
from edbjobs_server.gateway.documented.dictionary import read_dict
from edbjobs_server.gateway.documented.translation import to_job_config
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edbjobs_pyedb import cluster, local
from edbjobs_pyedb.errors import refusals_raised

__all__ = [
    "HFSS3DLayoutBatchOptions",
    "HFSSSimulationConfig",
    "MachineNode",
    "SchedulerOptions",
    "SchedulerType",
    "create_hfss_config",
]

T = TypeVar("T")
_Part = TypeVar("_Part", bound="_Mutable")
_SLOTS = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


class _Mutable(BaseModel):
    """Makes a frozen model mutable; the last base class, so that its `model_config` is the one in force."""

    model_config = ConfigDict(frozen=False, extra="allow")  # unknown names are refused with the values
    FROZEN: ClassVar[type[BaseModel]]
    ALWAYS: ClassVar[tuple[str, ...]] = ()  # passed on even if they were not set

    def __init__(self, **values: Any) -> None:
        made = self.model_construct(**values)
        for slot in _SLOTS:
            object.__setattr__(self, slot, getattr(made, slot))

    def given(self) -> dict[str, Any]:
        """Return the values that were set, those of the parts included; None counts as not set."""
        values = {name: getattr(self, name) for name in (*self.ALWAYS, *self.model_fields_set)}
        values |= self.model_extra or {}
        return {name: _plain(value) for name, value in values.items() if value is not None}

    def native(self) -> Any:
        """Return the checked, frozen copy that is submitted."""
        try:
            return self.FROZEN.model_validate(self.given())
        except ValidationError as error:
            text = "; ".join(f"{field}: {what}" for field, what in field_errors(error).items())
            raise ValueError(f"the configuration is not valid: {text}") from error

    def validate_fields(self) -> None:
        """Check the values.

        Raises
        ------
        ValueError
            Names each field that is not valid.
        """
        self.native()


def _plain(value: Any) -> Any:
    if isinstance(value, _Mutable):
        return value.given()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _part(kind: type[_Part], value: Any) -> Any:
    """Make the mutable form of a part that is given as a mapping or as the frozen model."""
    if isinstance(value, kind.FROZEN) and not isinstance(value, kind):
        value = value.model_dump(exclude_unset=True)
    return kind(**value) if isinstance(value, Mapping) else value


class MachineNode(frozen.MachineNode, _Mutable):
    """One host of a run.

    `cores` is by default -1, which is `max_cores` where that was given, else 1.
    """

    FROZEN = frozen.MachineNode
    ALWAYS = ("cores",)

    cores: int = -1

    def __str__(self) -> str:
        return str(self.native())


class HFSS3DLayoutBatchOptions(frozen.HFSS3DLayoutBatchOptions, _Mutable):
    """AEDT's ``-batchoptions`` for HFSS 3D Layout; only those that were set are passed."""

    FROZEN = frozen.HFSS3DLayoutBatchOptions

    create_starting_mesh: bool | None = False
    default_process_priority: str | None = "Normal"
    enable_gpu: bool | None = False
    mpi_vendor: str | None = "Intel"
    mpi_version: str | None = "Default"
    remote_spawn_command: str | None = "Scheduler"
    solve_adaptive_only: bool | None = False
    validate_only: bool | None = False
    temp_directory: str | None = Field(default_factory=tempfile.gettempdir)

    def to_batch_options_dict(self) -> dict[str, str]:
        """Return the options that are passed, by AEDT's names."""
        with refusals_raised():
            return local.batch_options(job_config(HFSSSimulationConfig(project_path="/any.aedt", layout_options=self)))

    def to_batch_options_string(self) -> str:
        """Return the options that are passed, as one text."""
        return " ".join(f"'{name}'='{value}'" for name, value in self.to_batch_options_dict().items())


class SchedulerOptions(frozen.SchedulerOptions, _Mutable):
    """What a job requests from a cluster's scheduler."""

    FROZEN = frozen.SchedulerOptions


class HFSSSimulationConfig(frozen.HFSSSimulationConfig, _Mutable):
    """A solve; see `edbjobs_server.gateway.documented.config.HFSSSimulationConfig`, which has all fields.

    Parameters
    ----------
    project_path : str
        A .aedt or .aedtz file or a .aedb folder; a relative path is taken from the current folder.
    ansys_edt_path : str, optional
        A solver that the service has; None: the newest, or the one of `aedt_version`.
    jobid, user : str, optional
        Made by the service, and the service's account, where absent.
    scheduler_type : SchedulerType or str
        In any case; ``none`` leaves it to the service.
    **more
        The documented fields, and any other field of that class.
    """

    FROZEN = frozen.HFSSSimulationConfig
    ALWAYS = ("machine_nodes", "layout_options", "scheduler_options")  # may be changed in place

    project_path: str = ""
    ansys_edt_path: str | None = None  # type: ignore[assignment]
    jobid: str | None = None  # type: ignore[assignment]
    user: str = "unknown"
    distributed: bool | None = True
    auto: bool | None = True
    machine_nodes: list[MachineNode] = Field(default_factory=lambda: [MachineNode()])  # type: ignore[assignment]
    layout_options: HFSS3DLayoutBatchOptions = Field(default_factory=HFSS3DLayoutBatchOptions)
    scheduler_options: SchedulerOptions = Field(default_factory=SchedulerOptions)

    def __init__(self, **values: Any) -> None:
        if isinstance(nodes := values.get("machine_nodes"), list | tuple):
            values["machine_nodes"] = [_part(MachineNode, node) for node in nodes]
        for name, kind in (("layout_options", HFSS3DLayoutBatchOptions), ("scheduler_options", SchedulerOptions)):
            if name in values:
                values[name] = _part(kind, values[name])
        with contextlib.suppress(ValueError):  # any other word is refused with the values
            values["scheduler_type"] = SchedulerType(values.get("scheduler_type", SchedulerType.NONE))
        super().__init__(**values)

    def given(self) -> dict[str, Any]:
        """Return the values that were set, with an absolute project path; the user "unknown" counts as not set."""
        values = super().given()
        if values.get("user") == "unknown":
            del values["user"]
        return {**values, "project_path": absolute_project_path(self.project_path) if self.project_path else ""}

    @classmethod
    def of(cls, config: frozen.HFSSSimulationConfig) -> HFSSSimulationConfig:
        """Make a mutable copy of a frozen configuration."""
        return cls(**read_dict(config.to_dict()))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HFSSSimulationConfig:
        """Read the documented form; in it a value that equals its documented default counts as not set.

        Raises
        ------
        ValueError
            Names each field that is not valid.
        """
        config = cls(**read_dict(data))
        config.validate_fields()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Write the documented form: JSON values only."""
        return dict(self.native().to_dict())

    def to_message(self) -> job_config_pb2.JobConfig:
        """Write the message of the contract, without what is not set."""
        with refusals_raised():
            return job_config(self).to_message()

    # Local run -------------------------------------------------------------------------------------------

    def generate_command_list(self) -> list[str]:
        """Return program and arguments of a local run.

        Raises
        ------
        JobManagerError
            SOLVER_NOT_FOUND, where no AEDT is installed and none is named.
        """
        with refusals_raised():
            config = job_config(self)
            return local.command(config, local.release_of(config), self.jobid)

    def generate_command_string(self) -> str:
        """Return the command line of a local run as text for this system's shell."""
        return local.shell_line(self.generate_command_list())

    def generate_machinelist_string(self) -> str:
        """Return the argument of ``-machinelist``."""
        command = self._any_command()
        return command[command.index("-machinelist") + 1]

    def generate_batch_options_string(self) -> str:
        """Return the argument of ``-batchoptions``; empty: none is passed."""
        with refusals_raised():
            return " ".join(f"'{name}'='{value}'" for name, value in local.batch_options(job_config(self)).items())

    def generate_design_string(self) -> str:
        """Return what is solved as ``design:mode:setup``; empty: everything."""
        command = self._any_command()
        return ":".join(command[command.index("-batchsolve") + 1 : -1])

    def _any_command(self) -> list[str]:
        with refusals_raised():
            return local.command(job_config(self), local.ANY, self.jobid)

    def run_simulation(self, **subprocess_kwargs: Any) -> subprocess.CompletedProcess[Any]:
        """Solve with this process' account and without a service, and wait for the end.

        With a cluster as `scheduler_type` it is submitted as by `submit_to_scheduler`, without a wait for its end.

        Parameters
        ----------
        **subprocess_kwargs
            For `subprocess.run`, of a solve on this host; by default it runs in the project's folder without standard
            input.

        Returns
        -------
        subprocess.CompletedProcess
            Its return code alone does not prove success; the service also reads the solver's log.

        Raises
        ------
        JobManagerError
            SOLVER_NOT_FOUND or PROJECT_NOT_FOUND, and what `submit_to_scheduler` raises.
        """
        if self.scheduler_type not in (SchedulerType.NONE, SchedulerType.LOCAL):
            return self.submit_to_scheduler()
        with refusals_raised():
            return local.run(job_config(self), self.jobid, **subprocess_kwargs)

    # Run on a cluster ------------------------------------------------------------------------------------

    def submit_to_scheduler(self, script_path: str | None = None) -> subprocess.CompletedProcess[str]:
        """Write the batch script and submit it to the cluster; no service follows this run or lists it.

        The run keeps its output and its record in a folder beside the project, ``<jobid>_<scheduler>``.

        Parameters
        ----------
        script_path : str, optional
            Where the script is written; a relative path is taken from the project's folder; default:
            ``<jobid>_<scheduler>.sh`` there.

        Returns
        -------
        subprocess.CompletedProcess
            With the scheduler's id in the output of its command, for example ``Submitted batch job 4711``. A refusal
            is return code 1 with the scheduler's message in `stderr`.

        Raises
        ------
        JobManagerError
            NO_SCHEDULER; SCHEDULER_UNREACHABLE: it is unknown whether the job was accepted; FOLDER_EXISTS: this id was
            submitted before; or the job's request is not allowed.
        """
        return self._with_cluster(lambda config: cluster.submit(config, self._cluster(), script_path))

    def generate_scheduler_script(self) -> str:
        """Return the batch script for the scheduler that is named, as `submit_to_scheduler` writes it.

        It is rendered from the service's template, with this host's settings and site policy. It names
        `ansys_edt_path`, else the AEDT that is installed here, and the folder that `submit_to_scheduler` creates beside
        the project; a program that submits the script itself must create that folder first.

        Raises
        ------
        JobManagerError
            NO_SCHEDULER where none is named, SOLVER_NOT_FOUND, or the job's request is not allowed.
        """
        return self._with_cluster(lambda config: cluster.script(config, self._cluster()))

    def generate_slurm_script(self) -> str:
        """Return the batch script for SLURM, also if another scheduler is named; see `generate_scheduler_script`."""
        return self._with_cluster(lambda config: cluster.script(config, SchedulerType.SLURM))

    def generate_lsf_script(self) -> str:
        """Return the batch script for LSF, also if another scheduler is named; see `generate_scheduler_script`."""
        return self._with_cluster(lambda config: cluster.script(config, SchedulerType.LSF))

    def _cluster(self) -> SchedulerType:
        return SchedulerType(self.scheduler_type)

    def _with_cluster(self, do: Callable[[frozen.HFSSSimulationConfig], T]) -> T:
        # Script and folder are named by the id: it must be the same in the next call.
        self.jobid = self.jobid or make_job_id()
        with refusals_raised():
            return do(self.native())


def job_config(config: HFSSSimulationConfig) -> JobConfig:
    """Return the contract's configuration of a run on this host, whatever scheduler is named.

    Raises
    ------
    ValueError
        The configuration is not valid.
    Refused
        INVALID_JOB: the contract has no such configuration.
    """
    return to_job_config(config.native(), SchedulerType.LOCAL)


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
    """Return a configuration with an id of its own; the documented factory.

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
        Names each field that is not valid.
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
    config = HFSSSimulationConfig(**values)
    config.validate_fields()
    return config
