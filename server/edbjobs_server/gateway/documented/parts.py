"""Parts of the documented configuration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from edbjobs import _config_types as t
from edbjobs._config_parts import Model
from edbjobs._enums import EndReason
from pydantic import Field, field_validator, model_validator

from edbjobs_server.gateway.documented.types import LicenseText, MemoryText, OptionalText, TimeText

if TYPE_CHECKING:
    from typing_extensions import Self

DOCUMENTED_MAX_CORES = 20


class MachineNode(Model):
    """One host of AEDT's ``-machinelist list=``.

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
    cores: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] = 1
    max_cores: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] = DOCUMENTED_MAX_CORES
    utilization: Annotated[t.Number, Field(ge=1, le=100)] = 90
    tasks: Annotated[t.Number, Field(ge=-1, le=t.MAX_COUNT)] = 1
    gpus: Annotated[t.Number, Field(ge=0, le=1_000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _all_cores(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("cores") == -1:
            max_cores = values.get("max_cores", DOCUMENTED_MAX_CORES)
            return {**values, "cores": 1 if max_cores == DOCUMENTED_MAX_CORES else max_cores}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cores > self.max_cores != DOCUMENTED_MAX_CORES:
            raise ValueError(f"cores ({self.cores}) is more than max_cores ({self.max_cores})")
        if self.tasks == 0:
            raise ValueError("tasks must be at least 1, or -1 to let AEDT choose")
        if self.tasks > self.cores:
            raise ValueError(
                f"tasks ({self.tasks}) is more than cores ({self.cores}); "
                "cores is the total of the host, and each task needs one"
            )
        return self

    def __str__(self) -> str:
        text = f"{self.hostname}:{self.tasks}:{self.cores}:{self.utilization}%"
        return text if self.gpus is None else f"{text}:{self.gpus}"


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

    Three documented defaults count as not set, because using them would do harm: a partition named "default" rarely
    exists and a submit to it is refused; a limit of 24:00:00 would end a longer solve and is refused by partitions
    with a shorter limit; 4GB is too little for nearly every model, and the scheduler would kill the solve.

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
    time: TimeText = "24:00:00"
    nodes: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] = 1
    tasks_per_node: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] = 1
    cores_per_node: Annotated[t.Number, Field(ge=0, le=t.MAX_COUNT)] = 0
    memory: MemoryText = "4GB"
    account: OptionalText = None
    reservation: OptionalText = None
    qos: OptionalText = None
    constraints: OptionalText = None
    exclusive: bool = False
    gpus: Annotated[t.Number, Field(ge=0, le=t.MAX_COUNT)] = 0
    gpu_type: OptionalText = None
    priority: Literal["Low", "Lowest", "BelowNormal", "Normal", "AboveNormal", "High", "Highest"] = "Normal"
    email_notification: Annotated[str, Field(pattern=t.EMAIL, max_length=254)] | None = None
    run_as_administrator: bool = False
    licenses: tuple[LicenseText, ...] = ()
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

    def asked(self, name: str) -> str:
        """Return `queue`, `time` or `memory`; empty: not set."""
        value: str = getattr(self, name)
        return "" if value == self.NOT_SET[name] else value


class RetryPolicy(Model):
    """When and how often an ended attempt is retried.

    Parameters
    ----------
    max_attempts : int
        Total number of attempts, up to 100; 0 and 1, the default: no retry.
    reasons : sequence of EndReason
        Reasons that are retried; empty: license, node_fail, preempted.
    initial_backoff, max_backoff : timedelta or seconds
        Wait before the second attempt (10 s), doubled for each further one up to the second (10 min).
    """

    max_attempts: Annotated[t.Number, Field(ge=0, le=100)] = 1
    reasons: Annotated[tuple[EndReason, ...], Field(max_length=32)] = ()
    initial_backoff: t.Delay = timedelta(seconds=10)
    max_backoff: t.Delay = timedelta(minutes=10)
