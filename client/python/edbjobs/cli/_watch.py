"""The command `watch`: jobs as they change."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from edbjobs._text import state_text
from edbjobs.cli import _options as o
from edbjobs.cli._errors import FAILED
from edbjobs.cli._jobs import job_filter
from edbjobs.cli._output import console, job_table, line

if TYPE_CHECKING:
    from edbjobs._client import Client
    from edbjobs._models import Event, Job

__all__ = ["follow", "watch"]

LIVE = ("queued", "scheduled", "running", "pending")


def watch(
    names: Annotated[list[str] | None, typer.Argument(help="Only these jobs; stays until all have ended.")] = None,
    user: Annotated[str | None, typer.Option(help="Only of this user.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only of this batch; stays until all have ended.")] = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Watch jobs as they change: a live table, elsewhere than in a terminal one line for each change."""
    with o.connect(target) as client:
        uids = [client.get(name).uid for name in names or ()]
        given = job_filter(names=uids, user=user, batch=batch)
        if not follow(client, given, until_ended=bool(uids or batch), json=json):
            raise typer.Exit(FAILED)


def follow(client: Client, given: dict[str, Any], *, until_ended: bool, json: bool = False) -> bool:
    """Show jobs as they change.

    Parameters
    ----------
    client : Client
        Connected.
    given : dict
        Which jobs, as in `Client.list`.
    until_ended : bool
        Show also those that have ended, and return when all have; else go on until interrupted.
    json : bool
        Write every event as a line of JSON.

    Returns
    -------
    bool
        Every one of them completed.
    """
    snapshot = client.snapshot(**given) if until_ended else client.snapshot(states=LIVE, **given)
    jobs = {job.uid: job for job in snapshot.jobs}
    if until_ended and all(job.status.ended for job in jobs.values()):
        if not json:
            console().print(job_table(jobs.values()))
        return _all_completed(jobs)
    events = client.watch(after_revision=snapshot.revision, store_id=snapshot.store_id, **given)
    changes = _changes(events, jobs, until_ended)
    screen = console()
    if json:
        for event in changes:
            _write_event(event)
    elif screen.is_terminal:
        with Live(get_renderable=lambda: _page(jobs, screen.height), console=screen, refresh_per_second=4):
            for _ in changes:
                pass
    else:
        for job in jobs.values():
            line(f"{job.id}: {state_text(job)}")
        for event in changes:
            if event.job is not None:
                line(f"{event.job.id}: {event.type.value.removeprefix('job_')}: {state_text(event.job)}")
    return _all_completed(jobs)


def _changes(events: Iterator[Event], jobs: dict[str, Job], until_ended: bool) -> Iterator[Event]:
    for event in events:
        job = event.job
        if job is None or (job.uid in jobs and job.revision <= jobs[job.uid].revision):
            continue
        jobs[job.uid] = job
        yield event
        if until_ended and all(known.status.ended for known in jobs.values()):
            return


def _all_completed(jobs: dict[str, Job]) -> bool:
    return all(job.status == "completed" for job in jobs.values())


def _page(jobs: dict[str, Job], height: int) -> Group:
    # Live ones first to be kept when there are more than the screen has lines; order of submission within.
    room = max(height - 3, 1)
    kept = sorted(jobs.values(), key=lambda job: job.status.ended)[:room]
    uids = {job.uid for job in kept}
    hidden = len(jobs) - len(kept)
    table = job_table(job for job in jobs.values() if job.uid in uids)
    return Group(table, Text(f"{hidden} more", style="dim")) if hidden else Group(table)


def _write_event(event: Event) -> None:
    from edbjobs._convert import to_json

    job = event.job.to_dict() if event.job is not None else None
    values = {
        "revision": event.revision,
        "time": to_json(event.time),
        "type": event.type.value,
        "principal": event.principal,
        "detail": event.detail,
        "job": job,
    }
    line(json_module.dumps(values))
