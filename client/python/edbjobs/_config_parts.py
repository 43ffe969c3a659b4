"""Parts of a job's configuration; the names are those of protos/edbjobs/v1/job_config.proto.

None and an empty text, list or mapping mean "not set": the service then uses the default that the contract names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edbjobs import _config_types as t
from edbjobs._enums import EndReason, SchedulerPriority

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LayoutOptions", "Machine", "Model", "RetryOptions", "SchedulerOptions"]

_LAYOUT = "HFSS 3D Layout Design"
_NEVER_RETRIED = frozenset({"UNKNOWN", "NORMAL", "CANCELLED", "NOT_STARTED"})


class Model(BaseModel):
    """Base model: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="float")


class Machine(Model):
    """One host of AEDT's ``-machinelist list=``.

    AEDT reads ``host:tasks:cores:RAM%[:gpus]``, where the second number is the total of the host's
    cores, shared by the tasks (from a real log: ``localhost:2:2:90%`` gives "task0:1 cores, task1:1
    cores").

    Parameters
    ----------
    hostname : str
        Host name; default: localhost.
    cores : int, optional
        Logical processors used on this host; default: 1.
    max_cores : int, optional
        Logical processors of the host, which `cores` may not exceed; not passed to AEDT; default: not checked.
    memory_percent : int, optional
        Share of the host's memory that AEDT may use, 1 to 100 percent; default: 90.
    tasks : int, optional
        Distributed tasks that share `cores`; -1 lets AEDT choose; default: 1.
    gpus : int, optional
        GPUs, 0 for none; default: left out of the list.
    """

    hostname: t.OptionalHostName = ""
    cores: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] | None = None
    max_cores: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] | None = None
    memory_percent: Annotated[t.Number, Field(ge=1, le=100)] | None = None
    tasks: Annotated[t.Number, Field(ge=-1, le=t.MAX_COUNT)] | None = None
    gpus: Annotated[t.Number, Field(ge=0, le=1_000)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        cores, tasks = self.total_cores, self.tasks
        if self.max_cores is not None and cores > self.max_cores:
            raise ValueError(f"cores ({cores}) is more than max_cores ({self.max_cores})")
        if tasks == 0:
            raise ValueError("tasks must be at least 1, or -1 to let AEDT choose")
        if tasks is not None and tasks > cores:
            raise ValueError(
                f"tasks ({tasks}) is more than cores ({cores}); cores is the total of the host, and each task needs one"
            )
        return self

    @property
    def total_cores(self) -> int:
        """Logical processors used on this host."""
        return 1 if self.cores is None else self.cores

    def aedt(self) -> str:
        """Return the host as in AEDT's machine list: ``host:tasks:cores:RAM%[:gpus]``."""
        tasks = 1 if self.tasks is None else self.tasks
        percent = 90 if self.memory_percent is None else self.memory_percent
        text = f"{self.hostname or 'localhost'}:{tasks}:{self.total_cores}:{percent}%"
        return text if self.gpus is None else f"{text}:{self.gpus}"

    def __str__(self) -> str:
        return self.aedt()


class LayoutOptions(Model):
    """AEDT's ``-batchoptions`` of HFSS 3D Layout; an option that is not set is not passed.

    Parameters
    ----------
    create_starting_mesh, enable_gpu, solve_adaptive_only, validate_only : bool, optional
        ``'HFSS 3D Layout Design/CreateStartingMesh'``, ``.../EnableGPU`` and so on.
    default_process_priority : str
        ``Normal``, ``Below Normal`` and so on.
    mpi_vendor : str
        ``Intel``, ``Open MPI`` or ``Microsoft``.
    mpi_version : str
        ``Default``, ``2021`` and so on.
    remote_spawn_command : str
        ``SSH`` or ``Scheduler``.
    temp_directory : str
        Folder of AEDT's scratch files on the solving host.
    """

    create_starting_mesh: bool | None = None
    default_process_priority: t.OptionText = ""
    enable_gpu: bool | None = None
    mpi_vendor: t.OptionText = ""
    mpi_version: t.OptionText = ""
    remote_spawn_command: t.OptionText = ""
    solve_adaptive_only: bool | None = None
    validate_only: bool | None = None
    temp_directory: t.OptionText = ""

    def batch_options(self) -> dict[str, str]:
        """Return the options that are set, by AEDT's names."""
        named = {
            f"{_LAYOUT}/CreateStartingMesh": self.create_starting_mesh,
            f"{_LAYOUT}/DefaultProcessPriority": self.default_process_priority,
            f"{_LAYOUT}/EnableGPU": self.enable_gpu,
            f"{_LAYOUT}/MPIVendor": self.mpi_vendor,
            f"{_LAYOUT}/MPIVersion": self.mpi_version,
            f"{_LAYOUT}/RemoteSpawnCommand": self.remote_spawn_command,
            f"{_LAYOUT}/SolveAdaptiveOnly": self.solve_adaptive_only,
            f"{_LAYOUT}/ValidateOnly": self.validate_only,
            "TempDirectory": self.temp_directory,
        }
        return {
            name: value if isinstance(value, str) else str(int(value))
            for name, value in named.items()
            if value is not None and value != ""
        }


class SchedulerOptions(Model):
    """What is asked of a cluster's scheduler; `JobConfig.time_limit` is its time limit.

    Parameters
    ----------
    partition : str
        Partition or queue; default: the scheduler's.
    nodes, tasks_per_node : int, optional
        At least 1 each; default: 1.
    cores_per_node, memory_bytes_per_node : int, optional
        At least 1 each; default: the scheduler's.
    gpus_per_node : int, optional
        Default: none.
    gpu_type : str
        Such as ``a100``.
    exclusive : bool, optional
        No other job on the same nodes; default: the scheduler's.
    constraint : str
        Node features, in the scheduler's form.
    include_nodes, exclude_nodes : sequence of str
        Nodes to use and not to use, as names or ranges in the scheduler's form.
    account, qos, reservation, wckey, email, comment : str
        With the scheduler's meaning; `email` is written to when the job ends, `comment` is added to the job's.
    priority : SchedulerPriority, optional
        ``lowest`` to ``highest``; default: the scheduler's.
    licenses : mapping of str to int
        Licenses that the scheduler counts, by ``name`` or ``name@server``.
    run_as_administrator : bool, optional
        Windows HPC: run elevated; default: False.
    extra : mapping of str to str
        Further directives; only those that the service's settings allow.
    """

    partition: t.Text = ""
    nodes: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] | None = None
    tasks_per_node: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] | None = None
    cores_per_node: Annotated[t.Number, Field(ge=1, le=t.MAX_COUNT)] | None = None
    memory_bytes_per_node: Annotated[t.Number, Field(ge=1, le=t.MAX_BYTES)] | None = None
    gpus_per_node: Annotated[t.Number, Field(ge=0, le=t.MAX_COUNT)] | None = None
    gpu_type: t.Text = ""
    exclusive: bool | None = None
    constraint: t.Text = ""
    include_nodes: t.NodeList = ()
    exclude_nodes: t.NodeList = ()
    account: t.Text = ""
    qos: t.Text = ""
    reservation: t.Text = ""
    priority: SchedulerPriority | None = None
    licenses: t.SchedulerLicenses = Field(default_factory=dict)
    wckey: t.Text = ""
    email: Annotated[str, Field(pattern=t.EMAIL, max_length=254)] = ""
    comment: t.Text = ""
    run_as_administrator: bool | None = None
    extra: Annotated[dict[t.Text, t.PathText], Field(max_length=64)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        cores, tasks = self.cores_per_node, self.tasks_per_node
        if cores is not None and tasks is not None and tasks > cores:
            raise t.FieldsError({"tasks_per_node": f"({tasks}) is more than cores_per_node ({cores})"})
        return self


class RetryOptions(Model):
    """When a failed attempt is followed by another one.

    Parameters
    ----------
    max_attempts : int, optional
        Attempts that count, 1 to 100; default: 3.
    reasons : sequence of EndReason
        Reasons that are followed by another attempt; default: license, node_fail, preempted.
    initial_delay, max_delay : timedelta or seconds, optional
        Delay before the second attempt (default: 10 s), doubled for each further one up to the second (10 min).
    """

    max_attempts: Annotated[t.Number, Field(ge=1, le=100)] | None = None
    reasons: Annotated[tuple[EndReason, ...], Field(max_length=32)] = ()
    initial_delay: t.Delay | None = None
    max_delay: t.Delay | None = None

    @field_validator("reasons", mode="after")
    @classmethod
    def _can_be_retried(cls, reasons: tuple[EndReason, ...]) -> tuple[EndReason, ...]:
        for reason in reasons:
            if reason.name in _NEVER_RETRIED:
                raise ValueError(f"{reason} is never followed by another attempt")
        return reasons
