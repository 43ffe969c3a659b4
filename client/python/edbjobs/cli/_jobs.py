"""Commands that read jobs."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from edbjobs._text import age, place_text, progress_text, state_text, waiting_text
from edbjobs.cli import _options as o
from edbjobs.cli._output import COLORS, console, counted, job_table, line, local_time, show_pairs, size, write_json

if TYPE_CHECKING:
    from edbjobs._client import Client
    from edbjobs._models import Attempt, Job, Reservation, Waiting

__all__ = ["job_filter", "list_jobs", "logs", "show"]

TAIL_BYTES = 65_536
EVIDENCE = {
    "solver_log": "the solver's own log",
    "exit_code": "the exit code; there was no log",
    "scheduler": "the cluster's scheduler",
    "none": "none: its end was not seen",
    "service": "the service itself",
}


def job_filter(**given: Any) -> Any:
    """Return the given values that are not empty."""
    return {name: value for name, value in given.items() if value}


def list_jobs(
    state: o.States = None,
    user: Annotated[list[str] | None, typer.Option(help="Only jobs of this user; may be repeated.")] = None,
    batch: Annotated[list[str] | None, typer.Option(help="Only jobs of this batch; may be repeated.")] = None,
    label: o.Labels = None,
    superseded: Annotated[bool, typer.Option("--superseded", help="Also jobs that a retry superseded.")] = False,
    number: Annotated[int, typer.Option("--number", "-n", help="Maximum number of jobs.", min=1)] = 25,
    every: Annotated[bool, typer.Option("--all", "-a", help="All jobs.")] = False,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """List jobs, newest first."""
    labels = o.pairs(label, "--label")
    given = job_filter(states=state, users=user, batches=batch, labels=labels, include_superseded=superseded)
    with o.connect(target) as client:
        found = client.list(order="create_time_descending", **given)
        # One more than is shown, to find out whether there are more.
        jobs = list(found if every else islice(found, number + 1))
    shown = jobs if every else jobs[:number]
    if json:
        write_json([job.to_dict() for job in shown])
    elif not jobs:
        print("no jobs")
    else:
        console().print(job_table(shown))
        if len(shown) < len(jobs):
            print(f"only the newest {number}; --all shows all", file=sys.stderr)


def show(name: o.Name, target: o.Target = None, json: o.Json = False) -> None:
    """Show one job: its state and the reason, the log's first fatal line, and its folder of logs."""
    with o.connect(target) as client:
        job = client.get(name)
    if json:
        write_json(job)
        return
    state = state_text(job).partition(":")[0] if job.ended else str(job.state)
    title = Text.assemble((job.id, "bold"), "  ", (state, COLORS.get(str(job.state), "")))
    show_pairs(_facts(job), title=title)


def _facts(job: Job) -> dict[str, object]:
    outcome = job.outcome
    return {
        "message": outcome.message if outcome else "",
        "evidence": EVIDENCE.get(str(outcome.evidence), outcome.evidence) if outcome and outcome.evidence else "",
        "waits for": _waiting(job.waiting) if job.waiting else "",
        "progress": progress_text(job.progress) if job.progress and not job.ended else "",
        "project": job.project_path,
        "design": _design(job),
        "note": [*job.warnings, *(["run by the demo solver: nothing was really solved"] if job.demo else [])],
        "submitted": f"{local_time(job.create_time)} by {job.user}",
        "started": local_time(job.start_time),
        "ended": _end(job) if job.ended else "",
        "cancel requested": local_time(job.cancel_request_time),
        "attempts": [_attempt(attempt) for attempt in job.attempts],
        "solver": job.aedt_version,
        "runs on": place_text(job),
        "reserves": _reserves(job.reservation),
        "priority": job.priority or "",
        "batch": job.batch,
        "retry of": job.retry_of,
        "superseded by": job.superseded_by,
        "logs": job.attempts[-1].run_directory if job.attempts else "",
        "uid": job.uid,
    }


def _waiting(waiting: Waiting) -> str:
    at = local_time(waiting.next_attempt_time)
    words = [f"not before {at}" if at and waiting.reason == "not_before" else waiting_text(waiting)]
    if at and waiting.reason != "not_before":
        words.append(f"next attempt {at}")
    if waiting.jobs_before:
        words.append(f"{counted(waiting.jobs_before, 'job')} before it")
    return ", ".join(words)


def _end(job: Job) -> str:
    run = f" after {age(job.start_time, job.end_time)}" if job.start_time else ", it never ran"
    return local_time(job.end_time) + run


def _reserves(reservation: Reservation) -> str:
    words = [counted(reservation.cores, "core")] if reservation.cores else []
    if reservation.memory_bytes:
        words.append(size(reservation.memory_bytes))
    return ", ".join([*words, *(f"{number} {feature}" for feature, number in reservation.licenses.items())])


def _design(job: Job) -> str:
    message = job.config_message
    return "" if message is None else " / ".join(filter(None, (message.design, message.setup)))


def _attempt(attempt: Attempt) -> str:
    words = [f"{attempt.number}: {local_time(attempt.start_time) or 'never ran'}"]
    if attempt.end_time is not None:
        reason = attempt.outcome.reason if attempt.outcome else None
        run = f" after {age(attempt.start_time, attempt.end_time)}" if attempt.start_time else ""
        words.append(str(reason or "ended").replace("_", " ") + run)
    if attempt.nodes:
        words.append(f"on {', '.join(attempt.nodes)}" + (f" (pid {attempt.pid})" if attempt.pid else ""))
    return ", ".join(words)


def logs(
    name: o.Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the run has ended.")] = False,
    stream: Annotated[str, typer.Option("--stream", help="stdout, stderr, solver or script.")] = "solver",
    attempt: Annotated[int | None, typer.Option(help="Number of the attempt; default: the last.", min=1)] = None,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", help="Only the last N lines, at most 64 KiB.", min=0)
    ] = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Print the output of a job's run."""
    with o.connect(target) as client:
        for text in _texts(client, name, stream, attempt, follow, lines):
            if json:
                line(json_module.dumps({"text": text}))
            else:
                sys.stdout.write(text)
                sys.stdout.flush()


def _texts(
    client: Client, name: str, stream: str, attempt: int | None, follow: bool, lines: int | None
) -> Iterator[str]:
    offset = 0
    if lines is not None:
        pieces = list(client.logs(name, stream=stream, attempt=attempt, offset=-TAIL_BYTES))
        selected = b"".join(pieces).splitlines(keepends=True)[-lines:] if lines else []
        yield b"".join(selected).decode("utf-8", "replace")
        if not follow:
            return
        if pieces:
            offset, attempt = pieces[-1].offset + len(pieces[-1]), pieces[-1].attempt
    yield from client.logs(name, stream=stream, attempt=attempt, offset=offset, follow=follow, text=True)
