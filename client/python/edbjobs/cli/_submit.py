"""Commands that make jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edbjobs.cli import _options as o
from edbjobs.cli._cluster_options import takes_cluster_options
from edbjobs.cli._errors import FAILED
from edbjobs.cli._output import show_pairs, write_json

if TYPE_CHECKING:
    from edbjobs._client import Client
    from edbjobs._models import Job

__all__ = ["finish", "preview", "submit"]

ProjectArgument = Annotated[
    str, typer.Argument(help="Project: a .aedt or .aedtz file, or a .aedb folder.", show_default=False)
]


@takes_cluster_options
def submit(
    project: ProjectArgument,
    name: Annotated[str | None, typer.Option("--id", help="Name of the job; else made by the service.")] = None,
    priority: o.Priority = 0,
    user: o.Owner = None,
    batch: o.Batch = None,
    label: o.Labels = None,
    hold: o.Hold = False,
    wait: o.Wait = False,
    cores: o.Cores = None,
    design: o.Design = None,
    setup: o.Setup = None,
    release: o.Release = None,
    time_limit: o.TimeLimit = None,
    fields: o.Fields = None,
    config: o.ConfigFile = None,
    asked: o.Asked = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Submit a project; when this returns, the job is on the service's disk."""
    data = o.job_dict(
        cores=cores,
        design=design,
        setup=setup,
        release=release,
        time_limit=time_limit,
        fields=fields,
        config=config,
        asked=asked,
        labels=label,
        batch=batch,
    )
    with o.connect(target) as client:
        job = client.submit(_with_project(data, project), jobid=name, priority=priority, user=user, hold=hold)
        if wait:
            finish(client, job, json)
        elif json:
            write_json(job)
        else:
            print(job.id)


def finish(client: Client, job: Job, json: bool) -> None:
    """Stay until a job has ended, show it, and exit with 1 unless it completed."""
    from edbjobs._text import state_text

    job = client.wait(job.uid, progress=not json)
    if json:
        write_json(job)
    else:
        print(f"{job.id}: {state_text(job)}")
    if job.status != "completed":
        raise typer.Exit(FAILED)


@takes_cluster_options
def preview(
    project: ProjectArgument,
    cores: o.Cores = None,
    design: o.Design = None,
    setup: o.Setup = None,
    release: o.Release = None,
    time_limit: o.TimeLimit = None,
    fields: o.Fields = None,
    config: o.ConfigFile = None,
    asked: o.Asked = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Show the exact command line or batch script of a submit; nothing is run."""
    data = o.job_dict(
        cores=cores,
        design=design,
        setup=setup,
        release=release,
        time_limit=time_limit,
        fields=fields,
        config=config,
        asked=asked,
    )
    with o.connect(target) as client:
        found = client.preview(_with_project(data, project))
    if json:
        write_json(found)
        return
    show_pairs(
        {
            "runs": found.executor,
            "in": found.working_directory,
            "command": found.command_line,
            "submits": found.submit_command,
            "with": [f"{name}={value}" for name, value in found.environment.items()],
            "note": found.warnings,
        }
    )
    if found.script:
        print(found.script)


def _with_project(data: dict[str, Any], project: str) -> dict[str, Any]:
    from edbjobs.config import absolute_project_path

    return {**data, "project_path": absolute_project_path(project)}
