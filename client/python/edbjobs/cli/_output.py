"""Output of tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from edbjobs._text import age, note_text

if TYPE_CHECKING:
    from edbjobs._models import Job

__all__ = [
    "COLORS",
    "console",
    "counted",
    "job_table",
    "line",
    "local_time",
    "show_pairs",
    "show_table",
    "size",
    "write_json",
]

COLORS = {
    "queued": "yellow",
    "scheduled": "yellow",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def console(*, stderr: bool = False) -> Console:
    """Create the console: colored and as wide as a terminal, otherwise plain and 80 columns wide."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def write_json(value: Any) -> None:
    """Print a value, or a list of values, as JSON."""
    from edbjobs._json import to_json

    print(json.dumps(value.to_dict() if hasattr(value, "to_dict") else to_json(value), indent=2))


def job_table(jobs: Iterable[Job]) -> Table:
    """Build the table of jobs; it fits 80 columns with names of any length."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    # Folded, never truncated: the other commands need the whole id.
    table.add_column("JOB", overflow="fold", max_width=32)
    table.add_column("STATE", no_wrap=True, width=9)
    table.add_column("TIME", no_wrap=True, width=6, justify="right")
    table.add_column("PROJECT", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("NOTE", no_wrap=True, overflow="ellipsis", ratio=3)
    for job in jobs:
        state = Text(str(job.state), style=COLORS.get(str(job.state), ""))
        table.add_row(Text(job.id), state, _time(job), Text(_project(job)), Text(_note(job)))
    return table


def _time(job: Job) -> str:
    # Waiting time of a job that waits, otherwise its run time.
    if job.ended:
        return age(job.start_time, job.end_time)
    return age(job.start_time or job.create_time)


def _project(job: Job) -> str:
    return job.project_path.replace("\\", "/").rpartition("/")[2]


def _note(job: Job) -> str:
    note = note_text(job).partition("\n")[0]
    return f"p{job.priority} {note}" if job.priority and not job.ended else note


def show_table(titles: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a plain table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(item if isinstance(item, Text) else Text(str(item)) for item in row))
    console().print(table)


def show_pairs(values: Mapping[str, object], *, title: Text | None = None) -> None:
    """Print names and values; empty values are omitted."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value not in ("", None, (), []):
            text = "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            table.add_row(name, Text(text))
    console().print(Group(title, table) if title is not None else table)


def local_time(value: datetime | None) -> str:
    """Format a time in the local time zone."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(number: int, word: str) -> str:
    """Format a number with a noun, as singular or plural."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def size(number: int) -> str:
    """Format a number of bytes in GiB."""
    return f"{number / 2**30:.1f} GiB"


def line(text: str) -> None:
    """Print a line and flush it."""
    print(text, file=sys.stdout, flush=True)
