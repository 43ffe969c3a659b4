"""Parts of a job's configuration: hosts, AEDT's options, the scheduler's options, retries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edbjobs import _config_types as t
from edbjobs._enums import EndReason

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["HFSS3DLayoutBatchOptions", "MachineNode", "Model", "RetryPolicy", "SchedulerOptions"]

_DOCUMENTED_MAX_CORES = 20


class Model(BaseModel):
    """Base model: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="float")


class MachineNode(Model):
    """One host of AEDT's ``-machinelist list=``.

    AEDT reads ``host:tasks:cores:RAM%[:gpus]``, where the second number is the total of the host's
    cores, shared by the tasks (from a real log: ``localhost:2:2:90%`` gives "task0:1 cores, task1:1
    cores").

    Parameters
    ----------
    hostname : str
        Host name; default ``"localhost"``.
    cores : int
        Total number of cores used on this host, at least 1; default 1. The documented -1, "all", is
        `max_cores` if that was given, else 1.
    max_cores : int
        Cores the host has; not passed to AEDT. `cores` may not be larger, unless `max_cores` has its
        documented default of 20, which is not a fact about the host.
    utilization : int
        Share of the host's memory that AEDT may use, 1 to 100 percent; default 90.
    tasks : int
        Distributed tasks that share `cores`; default 1; -1 lets AEDT choose.
    gpus : int, optional
        GPUs, 0 for none; if absent, AEDT decides.
    """

    hostname: t.HostName = "localhost"
    cores: Annotated[t.Number, Field(ge=1, le=1_000_000)] = 1
    max_cores: Annotated[t.Number, Field(ge=1, le=1_000_000)] = _DOCUMENTED_MAX_CORES
    utilization: Annotated[t.Number, Field(ge=1, le=100)] = 90
    tasks: Annotated[t.Number, Field(ge=-1, le=1_000_000)] = 1
    gpus: Annotated[t.Number, Field(ge=0, le=1_000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _all_cores(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("cores") == -1:
            max_cores = values.get("max_cores", _DOCUMENTED_MAX_CORES)
            return {**values, "cores": 1 if max_cores == _DOCUMENTED_MAX_CORES else max_cores}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cores > self.max_cores != _DOCUMENTED_MAX_CORES:
            raise ValueError(f"cores ({self.cores}) is more than max_cores ({self.max_cores})")
        if self.tasks == 0:
            raise ValueError("tasks must be at least 1, or -1 to let AEDT choose")
        if self.tasks > self.cores:
            raise ValueError(
                f"tasks ({self.tasks}) is more than cores ({self.cores}); "
                "cores is the total of the host, and each task needs one"
            )
        return self

    def aedt(self) -> str:
        """Return the host as in AEDT's machine list: ``host:tasks:cores:RAM%[:gpus]``."""
        text = f"{self.hostname}:{self.tasks}:{self.cores}:{self.utilization}%"
        return text if self.gpus is None else f"{text}:{self.gpus}"

    def __str__(self) -> str:
        return self.aedt()


class HFSS3DLayoutBatchOptions(Model):
    """Values of AEDT's ``-batchoptions`` for HFSS 3D Layout; an option that is None is not passed.

    Parameters
    ----------
    create_starting_mesh, enable_gpu, solve_adaptive_only, validate_only : bool, optional
        ``'HFSS 3D Layout Design/CreateStartingMesh'``, ``.../EnableGPU`` and so on.
    default_process_priority : str, optional
        ``Normal``, ``Below Normal`` and so on.
    mpi_vendor : str, optional
        ``Intel``, ``Open MPI`` or ``Microsoft``.
    mpi_version : str, optional
        ``Default``, ``2021`` and so on.
    remote_spawn_command : str, optional
        ``SSH`` or ``Scheduler``.
    temp_directory : str, optional
        Folder of AEDT's scratch files on the solving host.
    """

    create_starting_mesh: bool | None = None
    default_process_priority: t.OptionText | None = None
    enable_gpu: bool | None = None
    mpi_vendor: t.OptionText | None = None
    mpi_version: t.OptionText | None = None
    remote_spawn_command: t.OptionText | None = None
    solve_adaptive_only: bool | None = None
    validate_only: bool | None = None
    temp_directory: t.OptionText | None = None


class SchedulerOptions(Model):
    """Resources and options requested from a cluster's scheduler.

    Three documented defaults count as not set, at every endpoint, because using them would do harm: a
    partition named "default" rarely exists and a submit to it is refused; a limit of 24:00:00 would end
    a longer solve and is refused by partitions with a shorter limit; 4GB is too little for nearly every
    model, and the scheduler would kill the solve.

    Parameters
    ----------
    queue, time, memory : str
        Partition or queue; time limit in any form the scheduler has; memory on each node such as ``"64GB"``.
    nodes, tasks_per_node : int
        At least 1 each.
    cores_per_node : int
        0: not set.
    account, reservation, qos, constraints, gpu_type, email_notification : str, optional
        With the scheduler's names; None or empty: not requested.
    exclusive : bool
        No other job on the same nodes.
    gpus : int
        On each node.
    priority : str
        ``Low``, ``Lowest``, ``BelowNormal``, ``Normal``, ``AboveNormal``, ``High`` or ``Highest``.
    run_as_administrator : bool
        Windows HPC: run elevated.
    licenses : sequence of str
        Licenses managed by the scheduler, as ``"name:count"``.
    nodelist, exclude, begin, wckey, comment : str
        Nodes to use, nodes not to use, earliest start in the scheduler's form, SLURM's workload key, and text
        added to the job's comment.
    extra : mapping of str to str
        Further directives; only those that the site's policy allows.
    """

    NOT_SET: ClassVar[Mapping[str, str]] = {"queue": "default", "time": "24:00:00", "memory": "4GB"}

    queue: t.Text = "default"
    time: Annotated[str, Field(pattern=t.TIME)] = "24:00:00"
    nodes: Annotated[t.Number, Field(ge=1, le=1_000_000)] = 1
    tasks_per_node: Annotated[t.Number, Field(ge=1, le=1_000_000)] = 1
    cores_per_node: Annotated[t.Number, Field(ge=0, le=1_000_000)] = 0
    memory: Annotated[str, Field(pattern=t.MEMORY)] = "4GB"
    account: t.Text | None = None
    reservation: t.Text | None = None
    qos: t.Text | None = None
    constraints: t.Text | None = None
    exclusive: bool = False
    gpus: Annotated[t.Number, Field(ge=0, le=1_000_000)] = 0
    gpu_type: t.Text | None = None
    priority: Literal["Low", "Lowest", "BelowNormal", "Normal", "AboveNormal", "High", "Highest"] = "Normal"
    email_notification: Annotated[str, Field(pattern=t.EMAIL, max_length=254)] | None = None
    run_as_administrator: bool = False
    licenses: tuple[Annotated[str, Field(pattern=t.SCHEDULER_LICENSE, max_length=128)], ...] = ()
    nodelist: t.PathText = ""
    exclude: t.PathText = ""
    begin: t.Text = ""
    wckey: t.Text = ""
    comment: t.Text = ""
    extra: Annotated[dict[t.Text, t.PathText], Field(max_length=64)] = Field(default_factory=dict)

    @field_validator("queue", "time", "memory", mode="after")
    @classmethod
    def _one_form_of_not_set(cls, value: str, info: Any) -> str:
        return value or cls.NOT_SET[info.field_name]


class RetryPolicy(Model):
    """When and how often an ended attempt is retried.

    Parameters
    ----------
    max_attempts : int
        Total number of attempts, 1 to 100; default 1: no retry.
    reasons : sequence of EndReason
        Reasons that are retried; empty: license, node_fail, preempted.
    initial_backoff, max_backoff : timedelta or seconds
        Wait before the second attempt (10 s), doubled for each further one up to the second (10 min).
    """

    max_attempts: Annotated[t.Number, Field(ge=1, le=100)] = 1
    reasons: Annotated[tuple[EndReason, ...], Field(max_length=32)] = ()
    initial_backoff: t.Backoff = timedelta(seconds=10)
    max_backoff: t.Backoff = timedelta(minutes=10)

    @field_validator("reasons", mode="after")
    @classmethod
    def _can_be_retried(cls, reasons: tuple[EndReason, ...]) -> tuple[EndReason, ...]:
        for reason in reasons:
            if reason in (EndReason.UNKNOWN, EndReason.NORMAL, EndReason.CANCELLED):
                raise ValueError(f"{reason} is never followed by another attempt")
        return reasons
