"""Options that several commands have, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edbjobs.cli._errors import fail

if TYPE_CHECKING:
    from edbjobs._client import Client

__all__ = [
    "SHARED",
    "Asked",
    "Batch",
    "ConfigFile",
    "Cores",
    "Design",
    "Fields",
    "Hold",
    "Json",
    "Labels",
    "Name",
    "Names",
    "Owner",
    "Priority",
    "Release",
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
_SOLVE = "The solve"

Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="ADDRESS",
        help="The service, as host:port or unix:/path; else EDBJOBS_TARGET, else this user's own.",
        rich_help_panel=_SERVICE,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.", rich_help_panel=_SERVICE)]
Name = Annotated[str, typer.Argument(help="Job, by id or uid.", show_default=False)]
Names = Annotated[list[str], typer.Argument(help="Jobs, by id or uid.", show_default=False)]
Priority = Annotated[int, typer.Option("--priority", "-p", help="Higher runs first.")]
Hold = Annotated[bool, typer.Option("--hold", help="Do not start before it is released.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Stay until the end; exit code 1 unless completed.")]
Owner = Annotated[str | None, typer.Option("--user", help="On whose behalf; else the caller's account.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label; may be repeated.")]
Batch = Annotated[str | None, typer.Option("--batch", help="Name of the batch.")]
States = Annotated[
    list[str] | None, typer.Option("--state", "-s", help="Only in this state, such as running; may be repeated.")
]
Asked = Mapping[str, Any] | None  # of a cluster, by field of the configuration: see `_cluster_options`
Cores = Annotated[int | None, typer.Option("--cores", "-c", help="Cores in all.", rich_help_panel=_SOLVE)]
Design = Annotated[str | None, typer.Option(help="Design; else all.", rich_help_panel=_SOLVE)]
Setup = Annotated[str | None, typer.Option(help="Setup; else all of the design.", rich_help_panel=_SOLVE)]
Release = Annotated[
    str | None,
    typer.Option("--release", help='AEDT release, "2025.2" or "252"; else the newest.', rich_help_panel=_SOLVE),
]
TimeLimit = Annotated[
    str | None, typer.Option(metavar="TIME", help="Longest run, seconds or HH:MM:SS.", rich_help_panel=_SOLVE)
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the configuration, such as scheduler_options.queue=long; may be repeated.",
        rich_help_panel=_SOLVE,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON file with a configuration; the other options go over it.",
        rich_help_panel=_SOLVE,
        exists=True,
        dir_okay=False,
    ),
]


@dataclass
class Shared:
    """Options given before the command."""

    certificates: Path | None = None


SHARED = Shared()


def connect(target: str | None) -> Client:
    """Make the client of a command."""
    from edbjobs._client import Client

    return Client(target, certificates=SHARED.certificates)


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Split texts of the form KEY=VALUE."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            fail(f"{option} {text!r}: KEY=VALUE is wanted")
        found[key] = value
    return found


def job_dict(
    *,
    cores: int | None,
    design: str | None,
    setup: str | None,
    release: str | None,
    time_limit: str | None,
    fields: Sequence[str] | None,
    config: Path | None,
    labels: Sequence[str] | None = None,
    batch: str | None = None,
    asked: Asked = None,
) -> dict[str, Any]:
    """Make the documented dictionary of a configuration, without its project, from options and file."""
    data = _read_config(config)
    given: dict[str, Any] = {
        "cores": cores,
        "design_name": design,
        "setup_name": setup,
        "aedt_version": release,
        "wall_clock_limit": float(time_limit) if time_limit and time_limit.isdigit() else time_limit,
        "batch": batch,
        **(asked or {}),
    }
    for name, text in pairs(fields, "--set").items():
        given[name] = _value(text)
    for name, value in given.items():
        if value is not None:
            _put(data, name, value)
    _refuse_without_cluster(data, asked or {})
    if labels:
        data["labels"] = {**data.get("labels", {}), **pairs(labels, "--label")}
    # What stands on the command line is meant, also where it equals a documented default.
    data["explicit"] = [*data.get("explicit", ()), *(name for name, value in given.items() if value is not None)]
    return data


def _read_config(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--config {file} cannot be read as JSON: {error}")
    if not isinstance(data, dict):
        fail(f"--config {file} holds no JSON object")
    return dict(data.get("config", data))


def _refuse_without_cluster(data: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse what only a cluster could be asked for, when none is named: it would be passed over in silence."""
    place = str(data.get("scheduler_type") or "none").lower()
    names = [name.rpartition(".")[2] for name in asked if name.startswith("scheduler_options.")]
    if names and place in ("none", "local"):
        fail(f"{', '.join(names)}: this can be asked of a cluster only; name it with --scheduler")


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
