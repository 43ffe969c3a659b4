"""Options shared by several commands, and their conversion to a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edbjobs.cli._errors import fail
from edbjobs.cli._sizes import duration, size

if TYPE_CHECKING:
    from edbjobs._client import Client

__all__ = [
    "SHARED",
    "AedtVersion",
    "Batch",
    "ClusterFields",
    "ConfigFile",
    "Cores",
    "Design",
    "Fields",
    "Hold",
    "Json",
    "Labels",
    "Memory",
    "Name",
    "Names",
    "Owner",
    "Priority",
    "Setup",
    "States",
    "Target",
    "TimeLimit",
    "Wait",
    "connect",
    "job_dict",
    "pairs",
]

_SERVICE = "Service and output"
_SOLVE = "Solve"

Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="ADDRESS",
        help="Service, as host:port or unix:/path; default: EDBJOBS_TARGET, else this user's service.",
        rich_help_panel=_SERVICE,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_SERVICE)]
Name = Annotated[str, typer.Argument(help="Id or uid of the job.", show_default=False)]
Names = Annotated[list[str], typer.Argument(help="Ids or uids of the jobs.", show_default=False)]
Priority = Annotated[int, typer.Option("--priority", "-p", help="Higher runs first.")]
Hold = Annotated[bool, typer.Option("--hold", help="Do not start the job until it is released.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end; exit code 1 unless completed.")]
Owner = Annotated[str | None, typer.Option("--user", help="User the job belongs to; default: your account.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label; may be repeated.")]
Batch = Annotated[str | None, typer.Option("--batch", help="Name of the batch.")]
States = Annotated[
    list[str] | None, typer.Option("--state", "-s", help="Only jobs in this state, such as running; may be repeated.")
]
ClusterFields = Mapping[str, Any] | None  # values of the cluster options by field: see `_cluster_options`
Cores = Annotated[
    int | None, typer.Option("--cores", "-c", help="Cores on the service's host.", rich_help_panel=_SOLVE)
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", help="Memory on the service's host, such as 64GB.", rich_help_panel=_SOLVE
    ),
]
Design = Annotated[str | None, typer.Option(help="Design; default: all.", rich_help_panel=_SOLVE)]
Setup = Annotated[str | None, typer.Option(help="Setup; default: all of the design.", rich_help_panel=_SOLVE)]
AedtVersion = Annotated[
    str | None,
    typer.Option(
        "--aedt-version", help='AEDT release, "2025.2" or "252"; default: the newest.', rich_help_panel=_SOLVE
    ),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Longest run: seconds, 90m, 2h, HH:MM:SS or D-HH:MM:SS; 0: unlimited.",
        rich_help_panel=_SOLVE,
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the configuration, such as scheduler_options.partition=long; may be repeated.",
        rich_help_panel=_SOLVE,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON file with a configuration; other options override it.",
        rich_help_panel=_SOLVE,
        exists=True,
        dir_okay=False,
    ),
]


@dataclass
class Shared:
    """Global options, given before the command."""

    certificates: Path | None = None


SHARED = Shared()


def connect(target: str | None) -> Client:
    """Create the client of a command."""
    from edbjobs._client import Client

    return Client(target, certificates=SHARED.certificates)


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Split texts of the form KEY=VALUE."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            fail(f"{option} {text!r}: expected KEY=VALUE")
        found[key] = value
    return found


def job_dict(
    *,
    cores: int | None,
    memory: str | None,
    design: str | None,
    setup: str | None,
    aedt_version: str | None,
    time_limit: str | None,
    fields: Sequence[str] | None,
    config: Path | None,
    labels: Sequence[str] | None = None,
    batch: str | None = None,
    cluster_fields: ClusterFields = None,
) -> dict[str, Any]:
    """Build the dictionary of a configuration, without its project, from options and a file."""
    data = _read_config(config)
    given: dict[str, Any] = {
        "cores": cores,
        "memory_bytes": None if memory is None else size(memory, "--memory"),
        "design": design,
        "setup": setup,
        "aedt_version": aedt_version,
        "time_limit": None if time_limit is None else duration(time_limit, "--time-limit"),
        "batch": batch,
        **(cluster_fields or {}),
    }
    for name, text in pairs(fields, "--set").items():
        given[name] = _value(text)
    for name, value in given.items():
        if value is not None:
            _put(data, name, value)
    _refuse_without_cluster(data, cluster_fields or {})
    if labels:
        data["labels"] = {**data.get("labels", {}), **pairs(labels, "--label")}
    return data


def _read_config(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--config {file} cannot be read as JSON: {error}")
    if not isinstance(data, dict):
        fail(f"--config {file}: expected a JSON object")
    return dict(data.get("config", data))


def _refuse_without_cluster(data: Mapping[str, Any], cluster_fields: Mapping[str, Any]) -> None:
    """Fail if cluster options are given without a cluster: they would be ignored without notice."""
    place = data.get("scheduler") or "local"
    names = [name.rpartition(".")[2] for name in cluster_fields if name.startswith("scheduler_options.")]
    if names and place == "local":
        fail(f"{', '.join(names)}: only a cluster has these options; choose it with --scheduler")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _put(data: dict[str, Any], name: str, value: Any) -> None:
    *folders, last = name.split(".")
    for folder in folders:
        inner = data.setdefault(folder, {})
        if not isinstance(inner, dict):
            fail(f"--set {name}: {folder} is not an object in the configuration")
        data = inner
    data[last] = value
