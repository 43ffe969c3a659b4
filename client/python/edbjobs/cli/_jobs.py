"""Commands that read jobs."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from edbjobs._text import age, place_text, progress_text, state_text
from edbjobs.cli import _options as o
from edbjobs.cli._output import COLORS, console, counted, job_table, line, local_time, show_pairs, write_json

if TYPE_CHECKING:
    from edbjobs._client import Client
    from edbjobs._models import Attempt, Job

__all__ = ["job_filter", "list_jobs", "logs", "show"]

TAIL_BYTES = 65_536
EVIDENCE = {
    "solver_log": "the solver's own log",
    "exit_code": "the exit code; there was no log",
    "scheduler": "the cluster's scheduler",
    "none": "none: its end is unknown",
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
    title = Text.assemble((job.id, "bold"), "  ", (state_text(job).partition(":")[0], COLORS.get(str(job.status), "")))
    show_pairs(_facts(job), title=title)


def _facts(job: Job) -> dict[str, object]:
    waiting = state_text(job).partition(": ")[2] if job.waiting_reason is not None else ""
    before = f"{job.jobs_before} before it" if job.jobs_before else ""
    return {
        "message": job.message,
        "evidence": EVIDENCE.get(str(job.evidence), job.evidence) if job.evidence else "",
        "waits for": ", ".join(filter(None, (waiting, before))),
        "progress": progress_text(job.progress) if job.progress and not job.status.ended else "",
        "project": job.project_path,
        "design": _design(job),
        "note": [*job.warnings, *(["run by the demo solver: nothing was really solved"] if job.demo else [])],
        "submitted": f"{local_time(job.created)} by {job.user}",
        "started": local_time(job.started),
        "ended": f"{local_time(job.ended)} after {age(job.started, job.ended)}" if job.ended else "",
        "cancel requested": local_time(job.cancel_requested),
        "attempts": [_attempt(attempt) for attempt in job.attempts],
        "solver": job.solver_version,
        "runs on": place_text(job),
        "reserves": counted(job.cores, "core") + (f", {job.memory_mib} MiB" if job.memory_mib else ""),
        "priority": job.priority or "",
        "batch": job.batch,
        "retry of": job.retry_of,
        "superseded by": job.superseded_by,
        "logs": job.run_directory,
        "uid": job.uid,
    }


def _design(job: Job) -> str:
    message = job.config_message
    return "" if message is None else " / ".join(filter(None, (message.design_name, message.setup_name)))


def _attempt(attempt: Attempt) -> str:
    words = [f"{attempt.number}: {local_time(attempt.started) or 'never ran'}"]
    if attempt.ended is not None:
        words.append(f"{attempt.reason or 'ended'} after {age(attempt.started, attempt.ended) or '0s'}")
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
