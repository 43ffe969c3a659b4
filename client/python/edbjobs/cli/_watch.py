"""The command `watch`: show jobs as they change."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from edbjobs._json import to_json
from edbjobs._models import JobUpdate, WatchEvent
from edbjobs._text import event_text, state_text
from edbjobs.cli import _options as o
from edbjobs.cli._errors import FAILED
from edbjobs.cli._jobs import job_filter
from edbjobs.cli._output import console, job_table, line

if TYPE_CHECKING:
    from edbjobs._client import Client
    from edbjobs._models import Job

__all__ = ["follow", "watch"]


def watch(
    names: Annotated[list[str] | None, typer.Argument(help="Ids or uids; ends when all these jobs have ended.")] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch; ends when all have ended.")] = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Watch jobs: a live table in a terminal, otherwise one line for each change."""
    with o.connect(target) as client:
        uids = [client.get(name).uid for name in names or ()]
        given = job_filter(jobs=uids, users=user and [user], batches=batch and [batch])
        if not follow(client, given, until_ended=bool(uids or batch), json=json):
            raise typer.Exit(FAILED)


def follow(client: Client, given: dict[str, Any], *, until_ended: bool, json: bool = False) -> bool:
    """Show jobs as they change.

    Parameters
    ----------
    client : Client
        Client to use.
    given : dict
        Filter of the jobs, as in `Client.list`.
    until_ended : bool
        Include ended jobs, and return when all have ended; otherwise continue until interrupted.
    json : bool
        Print every event as a line of JSON.

    Returns
    -------
    bool
        True if all jobs completed.
    """
    snapshot = client.snapshot(**given) if until_ended else client.snapshot(ended=False, **given)
    board = _Board({job.uid: job for job in snapshot.jobs})
    if until_ended and board.all_ended():
        if not json:
            console().print(job_table(board.jobs.values()))
        return board.all_completed()
    items = client.watch(after=snapshot.position, include_updates=True, **given)
    changes = board.changes(items, until_ended)
    screen = console()
    if json:
        for item, _ in changes:
            _write_item(item)
    elif screen.is_terminal:
        with Live(get_renderable=lambda: board.page(screen.height), console=screen, refresh_per_second=4):
            for _ in changes:
                pass
    else:
        _print_lines(snapshot.jobs, changes)
    return board.all_completed()


def _print_lines(jobs: Iterable[Job], changes: Iterator[tuple[WatchEvent | JobUpdate, Job]]) -> None:
    """Print a line for each job, each change, and each update that shows."""
    last: dict[str, str] = {}
    for job in jobs:
        last[job.uid] = state_text(job)
        line(f"{job.id}: {last[job.uid]}")
    for item, job in changes:
        text = state_text(job)
        if isinstance(item, WatchEvent):
            line(f"{job.id}: {event_text(item)}")
        elif text != last.get(job.uid):
            line(f"{job.id}: {text}")
        last[job.uid] = text


class _Board:
    """Last known state of the watched jobs."""

    def __init__(self, jobs: dict[str, Job]) -> None:
        self.jobs = jobs

    def changes(
        self, items: Iterator[WatchEvent | JobUpdate], until_ended: bool
    ) -> Iterator[tuple[WatchEvent | JobUpdate, Job]]:
        """Update the jobs, and yield what is new with the job as it is now."""
        for item in items:
            job = self._updated(item) if isinstance(item, JobUpdate) else self._changed(item)
            if job is None:
                continue
            self.jobs[job.uid] = job
            yield item, job
            if until_ended and self.all_ended():
                return

    def _changed(self, event: WatchEvent) -> Job | None:
        job = event.job
        known = self.jobs.get(job.uid) if job is not None else None
        if job is None or known is None:
            return job
        if job.revision <= known.revision:
            return None
        # An event has no progress: that of the same attempt stays until the next update.
        same = job.state == "running" and job.attempt_count == known.attempt_count
        return replace(job, progress=known.progress) if same else job

    def _updated(self, update: JobUpdate) -> Job | None:
        known = self.jobs.get(update.uid)
        if known is None or known.ended:
            return None
        return replace(known, progress=update.progress, waiting=update.waiting)

    def all_ended(self) -> bool:
        """Return True if all jobs have ended."""
        return all(job.ended for job in self.jobs.values())

    def all_completed(self) -> bool:
        """Return True if all jobs completed."""
        return all(job.state == "completed" for job in self.jobs.values())

    def page(self, height: int) -> Group:
        """Return the content of the screen; called in the thread that refreshes it."""
        # If there are more jobs than lines, active ones are kept first; the table keeps the order of submission.
        jobs = list(self.jobs.values())
        kept = {job.uid for job in sorted(jobs, key=lambda job: job.ended)[: max(height - 3, 1)]}
        table = job_table(job for job in jobs if job.uid in kept)
        hidden = len(jobs) - len(kept)
        return Group(table, Text(f"{hidden} more", style="dim")) if hidden else Group(table)


def _write_item(item: WatchEvent | JobUpdate) -> None:
    """Print an event, or an update as the only member of an object, as a line of JSON."""
    if isinstance(item, JobUpdate):
        line(json_module.dumps({"update": to_json(item)}))
        return
    values = to_json(replace(item, job_change=None))
    if item.job_change is not None:
        change = item.job_change
        values["job_change"] = {
            "type": to_json(change.type),
            "job": change.job.to_dict(),
            "old_state": to_json(change.old_state),
            "left": change.left,
        }
    line(json_module.dumps(values))
