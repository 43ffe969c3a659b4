"""The command `batch`: all projects of a folder as one named batch."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edbjobs.cli import _options as o
from edbjobs.cli._cluster_options import takes_cluster_options
from edbjobs.cli._errors import FAILED, fail
from edbjobs.cli._output import show_table, write_json
from edbjobs.cli._projects import AmbiguousProjects, find_projects
from edbjobs.cli._watch import follow

if TYPE_CHECKING:
    from edbjobs._models import SubmitResult

__all__ = ["batch"]


class Form(str, Enum):
    """Form of a project."""

    aedb = "aedb"
    aedt = "aedt"


@takes_cluster_options
def batch(
    folder: Annotated[Path, typer.Argument(help="Folder with the projects.", exists=True, file_okay=False)],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search subfolders too.")] = False,
    prefer: Annotated[Form | None, typer.Option(help="Form to submit if a project exists as .aedb and .aedt.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the batch; default: from the folder's name.")] = None,
    priority: o.Priority = 0,
    user: o.Owner = None,
    label: o.Labels = None,
    hold: o.Hold = False,
    wait: o.Wait = False,
    cores: o.Cores = None,
    memory: o.Memory = None,
    setup: o.Setup = None,
    aedt_version: o.AedtVersion = None,
    time_limit: o.TimeLimit = None,
    fields: o.Fields = None,
    config: o.ConfigFile = None,
    cluster_fields: o.ClusterFields = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Submit all projects of a folder as one named batch."""
    projects = _find(folder.absolute(), recursive, prefer)
    name = name or batch_name(folder.absolute())
    data = o.job_dict(
        cores=cores,
        memory=memory,
        design=None,
        setup=setup,
        aedt_version=aedt_version,
        time_limit=time_limit,
        fields=fields,
        config=config,
        cluster_fields=cluster_fields,
        labels=label,
        batch=name,
    )
    items = [{**data, "project_path": str(path)} for path in projects]
    with o.connect(target) as client:
        results = client.submit_many(items, priority=priority, user=user, hold=hold)
        _print_results(name, projects, list(results), json)
        completed = follow(client, {"batches": [name]}, until_ended=True, json=json) if wait else True
    if not completed or any(result.error for result in results):
        raise typer.Exit(FAILED)


def batch_name(folder: Path) -> str:
    """Return a new batch name from the folder's name."""
    from edbjobs.config import make_job_id

    words = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")[:32]
    return make_job_id(words or "batch")


def _find(folder: Path, recursive: bool, prefer: Form | None) -> list[Path]:
    try:
        projects = find_projects(folder, recursive=recursive, prefer=prefer and prefer.value)
    except AmbiguousProjects as error:
        named = "\n  ".join(str(folder) for folder, _ in error.pairs[:5])
        fail(f"{error}; choose one with --prefer aedb or --prefer aedt:\n  {named}")
    except OSError as error:
        fail(f"{error.filename} cannot be read: {error.strerror}")
    if not projects:
        hint = "" if recursive else "; --recursive searches subfolders too"
        fail(f"no .aedt or .aedtz file and no .aedb folder in {folder}{hint}", code=FAILED)
    return projects


def _print_results(name: str, projects: list[Path], results: list[SubmitResult], json: bool) -> None:
    if json:
        write_json({"batch": name, "results": [_result_dict(*pair) for pair in zip(projects, results, strict=True)]})
        return
    rows = [
        (result.job.id if result.job else "refused", path.name, result.error.message if result.error else "")
        for path, result in zip(projects, results, strict=True)
    ]
    show_table(("job", "project", "note"), rows)
    refused = sum(result.error is not None for result in results)
    print(f"batch {name}: {len(results) - refused} submitted" + (f", {refused} refused" if refused else ""))


def _result_dict(path: Path, result: SubmitResult) -> dict[str, object]:
    error = result.error
    return {
        "project": str(path),
        "job": result.job.to_dict() if result.job else None,
        "error": {"reason": error.reason, "message": error.message, "fields": error.fields} if error else None,
    }
