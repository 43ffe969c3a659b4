"""What `wait` shows while a job goes on: a bar in terminals and notebooks, else one line for each change."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edbjobs._text import state_text

if TYPE_CHECKING:
    from typing_extensions import Self

    from edbjobs._models import Job

__all__ = ["Display", "display"]


class Display:
    """Shows nothing; the base of those that do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, job: Job) -> None:
        """Show a job as it is now."""

    def close(self) -> None:
        """Leave the last state standing."""


class LineDisplay(Display):
    """Writes a line to standard error whenever what there is to say has changed."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, job: Job) -> None:
        """Show a job as it is now."""
        text = f"{job.id}: {state_text(job)}"
        if text != self._last:
            print(text, file=sys.stderr, flush=True)
            self._last = text


class BarDisplay(Display):
    """A bar by rich, moving where the share that is done cannot be told."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        # The sentence takes what the rest leaves, so that the bar stays where it is.
        sentence = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._bar = Progress(
            TextColumn("[bold]{task.fields[name]}[/]", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.fields[state]}", markup=False, table_column=sentence),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, name="", state="")
        self._bar.start()

    def update(self, job: Job) -> None:
        """Show a job as it is now."""
        from rich.markup import escape

        fraction = job.progress.fraction if job.progress is not None else None
        done = 1.0 if job.status.ended else fraction
        self._bar.update(
            self._task,
            name=escape(job.id),
            state=state_text(job).splitlines()[0],
            total=None if done is None else 1.0,
            completed=done or 0.0,
        )

    def close(self) -> None:
        """Leave the last state standing."""
        self._bar.stop()


def display(wanted: bool) -> Display:
    """Choose a display: the bar needs rich and a terminal or a notebook."""
    if not wanted:
        return Display()
    try:
        from rich.console import Console
    except ImportError:
        return LineDisplay()
    console = Console(stderr=True)
    return BarDisplay(console) if console.is_terminal or console.is_jupyter else LineDisplay()
