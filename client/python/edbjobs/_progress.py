"""Progress display of `wait`: a bar in terminals and notebooks, otherwise one line for each change."""

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
    """Display that shows nothing; base class of the others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, job: Job) -> None:
        """Show the present state of a job."""

    def close(self) -> None:
        """Stop and leave the last state on the screen."""


class LineDisplay(Display):
    """Display that prints a line to standard error for each change of the state's text."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, job: Job) -> None:
        """Show the present state of a job."""
        text = f"{job.id}: {state_text(job)}"
        if text != self._last:
            print(text, file=sys.stderr, flush=True)
            self._last = text


class BarDisplay(Display):
    """Progress bar of rich; it pulses while the completed fraction is unknown."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        # The text takes the remaining width, so that the bar does not move.
        state_column = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._bar = Progress(
            TextColumn("[bold]{task.fields[name]}[/]", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.fields[state]}", markup=False, table_column=state_column),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, name="", state="")
        self._bar.start()

    def update(self, job: Job) -> None:
        """Show the present state of a job."""
        from rich.markup import escape

        fraction = job.progress.fraction if job.progress is not None else None
        done = 1.0 if job.ended else fraction
        self._bar.update(
            self._task,
            name=escape(job.id),
            state=state_text(job).splitlines()[0],
            total=None if done is None else 1.0,
            completed=done or 0.0,
        )

    def close(self) -> None:
        """Stop and leave the last state on the screen."""
        self._bar.stop()


def display(progress: bool) -> Display:
    """Return a display: the bar needs rich and a terminal or a notebook."""
    if not progress:
        return Display()
    try:
        from rich.console import Console
    except ImportError:
        return LineDisplay()
    console = Console(stderr=True)
    return BarDisplay(console) if console.is_terminal or console.is_jupyter else LineDisplay()
