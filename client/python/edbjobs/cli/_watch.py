"""The command `watch`: show jobs as they change."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from edbjobs._exceptions import EdbJobsError
from edbjobs._text import event_text, state_text
from edbjobs.cli import _options as o
from edbjobs.cli._errors import FAILED
from edbjobs.cli._jobs import job_filter
from edbjobs.cli._output import console, job_table, line

if TYPE_CHECKING:
    from edbjobs._client import Client
    from edbjobs._models import Event, Job

__all__ = ["follow", "watch"]

POLL_SECONDS = 1.0
MAX_POLLED = 200


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
    board = _Board(client, given, {job.uid: job for job in snapshot.jobs})
    if until_ended and board.all_ended():
        if not json:
            console().print(job_table(board.jobs.values()))
        return board.all_completed()
    events = client.watch(after_revision=snapshot.position.revision, store_id=snapshot.position.store_id, **given)
    changes = board.changes(events, until_ended)
    screen = console()
    if json:
        for event in changes:
            _write_event(event)
    elif screen.is_terminal:
        with Live(get_renderable=lambda: board.page(screen.height), console=screen, refresh_per_second=4):
            for _ in changes:
                pass
    else:
        for job in snapshot.jobs:
            line(f"{job.id}: {state_text(job)}")
        for event in changes:
            if event.job is not None:
                line(f"{event.job.id}: {event_text(event)}")
    return board.all_completed()


class _Board:
    """Last known state of the watched jobs."""

    def __init__(self, client: Client, given: dict[str, Any], jobs: dict[str, Job]) -> None:
        self.jobs = jobs
        self._client = client
        self._given = given
        self._polled = 0.0

    def changes(self, events: Iterator[Event], until_ended: bool) -> Iterator[Event]:
        """Update the jobs from events, and yield the events that are new."""
        for event in events:
            job = event.job
            if job is None or (job.uid in self.jobs and job.revision <= self.jobs[job.uid].revision):
                continue
            self.jobs[job.uid] = job
            yield event
            if until_ended and self.all_ended():
                return

    def all_ended(self) -> bool:
        """Return True if all jobs have ended."""
        return all(job.status.ended for job in self.jobs.values())

    def all_completed(self) -> bool:
        """Return True if all jobs completed."""
        return all(job.status == "completed" for job in self.jobs.values())

    def page(self, height: int) -> Group:
        """Return the content of the screen; called in the thread that refreshes it."""
        self._poll()
        # If there are more jobs than lines, active ones are kept first; the table keeps the order of submission.
        jobs = list(self.jobs.values())
        kept = {job.uid for job in sorted(jobs, key=lambda job: job.status.ended)[: max(height - 3, 1)]}
        table = job_table(job for job in jobs if job.uid in kept)
        hidden = len(jobs) - len(kept)
        return Group(table, Text(f"{hidden} more", style="dim")) if hidden else Group(table)

    def _poll(self) -> None:
        # Progress and waiting reasons change without an event: they are polled.
        if time.monotonic() - self._polled < POLL_SECONDS:
            return
        try:
            for job in islice(self._client.list(**{"ended": False, **self._given}), MAX_POLLED):
                if job.uid in self.jobs and job.revision >= self.jobs[job.uid].revision:
                    self.jobs[job.uid] = job
        except EdbJobsError:
            pass  # the watch itself raises if the service stays unreachable
        self._polled = time.monotonic()


def _write_event(event: Event) -> None:
    from edbjobs._json import to_json

    job = event.job.to_dict() if event.job is not None else None
    values = {
        "revision": event.revision,
        "time": to_json(event.time),
        "type": event.type.value,
        "principal": to_json(event.principal),
        "detail": event.detail,
        "job": job,
    }
    line(json_module.dumps(values))
