"""Cluster options of the commands that submit jobs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from edbjobs.cli._errors import fail
from edbjobs.cli._sizes import size

__all__ = ["takes_cluster_options"]

_PANEL = "Cluster (set other fields of scheduler_options with --set or --config)"


def _option(*names: str, help: str, metavar: str | None = None, min: int | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, min=min, rich_help_panel=_PANEL)


# Parameter of the command: field of the configuration, and the option.
_OPTIONS: dict[str, tuple[str, Any]] = {
    "scheduler": (
        "scheduler",
        Annotated[
            str | None,
            _option("--scheduler", metavar="NAME", help="slurm, lsf, pbs, windows_hpc, a plug-in, or local (default)."),
        ],
    ),
    "partition": (
        "scheduler_options.partition",
        Annotated[str | None, _option("--partition", metavar="NAME", help="Partition or queue.")],
    ),
    "nodes": ("scheduler_options.nodes", Annotated[int | None, _option("--nodes", min=1, help="Number of nodes.")]),
    "tasks_per_node": (
        "scheduler_options.tasks_per_node",
        Annotated[int | None, _option("--tasks-per-node", min=1, help="Tasks on each node; they share its cores.")],
    ),
    "cores_per_node": (
        "scheduler_options.cores_per_node",
        Annotated[int | None, _option("--cores-per-node", min=1, help="Cores on each node; default: the scheduler's.")],
    ),
    "memory_per_node": (
        "scheduler_options.memory_bytes_per_node",
        Annotated[str | None, _option("--memory-per-node", metavar="SIZE", help="Memory on each node, such as 64GB.")],
    ),
    "account": (
        "scheduler_options.account",
        Annotated[str | None, _option("--account", metavar="NAME", help="Account or project to charge.")],
    ),
    "qos": (
        "scheduler_options.qos",
        Annotated[str | None, _option("--qos", metavar="NAME", help="Quality of service.")],
    ),
    "constraint": (
        "scheduler_options.constraint",
        Annotated[str | None, _option("--constraint", metavar="TEXT", help="Features that the nodes must have.")],
    ),
    "gpus_per_node": (
        "scheduler_options.gpus_per_node",
        Annotated[
            str | None, _option("--gpus-per-node", metavar="[TYPE:]N", help="GPUs on each node, such as a100:2.")
        ],
    ),
    "exclusive": (
        "scheduler_options.exclusive",
        Annotated[bool | None, _option("--exclusive/--no-exclusive", help="Do not share the nodes with other jobs.")],
    ),
}


def takes_cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the cluster options to a command; it receives the given values as `cluster_fields`."""

    @wraps(command)
    def run(**given: Any) -> None:
        values = {field: given.pop(name) for name, (field, _) in _OPTIONS.items()}
        set_values = {field: value for field, value in values.items() if value is not None}
        command(**given, cluster_fields=_to_fields(set_values))

    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, (_, kind) in _OPTIONS.items()]
    parameters: list[inspect.Parameter] = []
    for item in signature.parameters.values():
        parameters += added if item.name == "cluster_fields" else [item.replace(kind=keyword)]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def _to_fields(values: dict[str, Any]) -> Mapping[str, Any]:
    memory = values.get("scheduler_options.memory_bytes_per_node")
    if memory is not None:
        values["scheduler_options.memory_bytes_per_node"] = size(memory, "--memory-per-node")
    gpus = values.pop("scheduler_options.gpus_per_node", None)
    if gpus is not None:
        kind, _, number = gpus.rpartition(":")
        if not number.isdigit():
            fail(f"--gpus-per-node {gpus!r}: expected a number, or a type and a number such as a100:2")
        values["scheduler_options.gpus_per_node"] = int(number)
        if kind:
            values["scheduler_options.gpu_type"] = kind
    return values
