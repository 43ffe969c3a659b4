"""Commands that change jobs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from edbjobs._text import state_text
from edbjobs.cli import _options as o
from edbjobs.cli._errors import FAILED, fail
from edbjobs.cli._output import counted, write_json
from edbjobs.cli._submit import finish

if TYPE_CHECKING:
    from edbjobs._client import Client
    from edbjobs._models import Job

__all__ = ["cancel", "delete", "hold", "priority", "release", "retry"]

ManyNames = Annotated[list[str] | None, typer.Argument(help="Ids or uids of the jobs.", show_default=False)]


def _each(names: list[str], target: str | None, json: bool, act: Callable[[Client, str], Job | None]) -> None:
    """Apply an action to each job; a refusal for one does not stop the others."""
    import sys

    from edbjobs._exceptions import ConnectError, EdbJobsError

    results: list[dict[str, object]] = []
    refused = False
    with o.connect(target) as client:
        for name in names:
            try:
                job = act(client, name)
            except ConnectError:
                raise
            except EdbJobsError as error:
                refused = True
                results.append({"name": name, "error": {"reason": error.reason, "message": error.message}})
                if not json:
                    print(f"{name}: {error.message}", file=sys.stderr)
                continue
            results.append({"name": name, "job": job.to_dict() if job is not None else None})
            if not json:
                print(f"{job.id}: {state_text(job)}" if job is not None else f"{name}: deleted")
    if json:
        write_json(results)
    if refused:
        raise typer.Exit(FAILED)


def cancel(
    names: ManyNames = None,
    batch: Annotated[str | None, typer.Option(help="All active jobs of this batch.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All active jobs.")] = False,
    grace_period: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Time between the request to stop and the forced end; default: the job's.", min=0
        ),
    ] = None,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Mark a job as ended although its processes cannot be killed.")
    ] = False,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Cancel jobs. Returns at once; a job is cancelled once all its processes have ended."""
    if names and not (batch or every):
        _each(names, target, json, partial(_cancel, grace_period=grace_period, abandon=abandon))
        return
    if names or abandon or not (batch or every):
        fail("name the jobs, or give --batch or --all")
    with o.connect(target) as client:
        if batch:
            results = client.cancel_many(batches=[batch], grace_period=grace_period)
        else:
            results = client.cancel_many(all_jobs=True, grace_period=grace_period)
    if json:
        write_json([{"name": item.name, "job": item.job.to_dict() if item.job else None} for item in results])
    else:
        print(f"{counted(len(results), 'job')} being cancelled")


def _cancel(client: Client, name: str, *, grace_period: float | None, abandon: bool) -> Job:
    return client.cancel(name, grace_period=grace_period, abandon=abandon)


def hold(names: o.Names, target: o.Target = None, json: o.Json = False) -> None:
    """Hold waiting jobs: they do not start until they are released."""
    _each(names, target, json, lambda client, name: client.hold(name))


def release(names: o.Names, target: o.Target = None, json: o.Json = False) -> None:
    """Release held jobs, so that they can start."""
    _each(names, target, json, lambda client, name: client.release(name))


def priority(
    name: o.Name,
    value: Annotated[int, typer.Argument(help="Higher runs first; may be negative.")],
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Change the priority of a waiting job."""
    _each([name], target, json, lambda client, job: client.set_priority(job, value))


def retry(name: o.Name, wait: o.Wait = False, target: o.Target = None, json: o.Json = False) -> None:
    """Submit an ended job again, as a new job with the same id that supersedes it."""
    with o.connect(target) as client:
        job = client.retry(name)
        if wait:
            finish(client, job, json)
        elif json:
            write_json(job)
        else:
            print(f"{job.id}: {state_text(job)}")


def delete(names: o.Names, target: o.Target = None, json: o.Json = False) -> None:
    """Delete the records and run folders of ended jobs and of those that they superseded; projects are kept."""
    _each(names, target, json, lambda client, name: client.delete(client.get(name).uid))
