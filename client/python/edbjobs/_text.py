"""Texts about jobs and events for the progress display and the command line."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edbjobs._models import AdaptivePass, Job, JobProgress, Waiting, WatchEvent

__all__ = [
    "age",
    "event_text",
    "limit_text",
    "note_text",
    "place_text",
    "progress_text",
    "state_text",
    "waiting_text",
]


def state_text(job: Job) -> str:
    """Return a short text: what a job is doing, why it waits, or how it ended."""
    if job.ended:
        return _end_text(job)
    words = str(job.state)
    if job.progress is not None and (text := progress_text(job.progress)):
        words += f", {text}"
    if job.waiting is not None:
        words += f": {waiting_text(job.waiting)}"
    elif job.scheduler_job_id and job.state in ("scheduled", "running") and words == str(job.state):
        words += f": {place_text(job)}"
    return words


def waiting_text(waiting: Waiting) -> str:
    """Return why a job waits."""
    return waiting.message or str(waiting.reason or "waiting").replace("_", " ")


def place_text(job: Job) -> str:
    """Return where a job runs, for example ``slurm 4711 on n1, n2``."""
    nodes = ", ".join(job.attempts[-1].nodes) if job.scheduler_job_id and job.attempts else ""
    return " ".join(filter(None, (job.scheduler, job.scheduler_job_id, nodes and f"on {nodes}")))


def note_text(job: Job) -> str:
    """Return the text of `state_text` without the state itself."""
    return state_text(job).removeprefix(str(job.state)).lstrip(":, ")


def event_text(event: WatchEvent) -> str:
    """Return an event as text, for example ``completed: Setup1: normal completion``."""
    change = event.job_change or event.queue_change
    word = change.type.value.replace("_", " ") if change is not None else "limits updated"
    note = event.message or (note_text(event.job) if event.job is not None else "")
    return f"{word}: {note}" if note else word


def _end_text(job: Job) -> str:
    words = str(job.state)
    if job.outcome is None:
        return words
    if job.outcome.reason is not None and job.outcome.reason not in ("normal", words):
        words += f" ({job.outcome.reason.value.replace('_', ' ')})"
    return f"{words}: {job.outcome.message}" if job.outcome.message else words


def progress_text(progress: JobProgress) -> str:
    """Return the progress of a solve, for example ``pass 5 of 10, delta S 0.021 (target 0.02)``."""
    last, number = progress.last_pass, progress.current_pass
    if number is None and last is not None:
        number = last.number
    if progress.phase == "sweep":
        return _sweep_text(progress)
    if number is None:
        return str(progress.phase or "")
    words = f"pass {number}" + (f" of {progress.max_passes}" if progress.max_passes else "")
    return words if last is None or last.delta is None else f"{words}, {_delta_text(last, progress.target_delta)}"


def _sweep_text(progress: JobProgress) -> str:
    if progress.frequencies_solved is None:
        return "sweep"
    total = f" of {progress.frequencies_total}" if progress.frequencies_total else ""
    return f"sweep, {progress.frequencies_solved}{total} frequencies solved"


def _delta_text(last: AdaptivePass, target: float | None) -> str:
    words = f"{last.delta_name or 'delta S'} {last.delta:.4g}"
    return words if target is None else f"{words} (target {target:g})"


def age(start: datetime | None, end: datetime | None = None) -> str:
    """Return a duration in at most six characters, until now without `end`; empty without `start`."""
    if start is None:
        return ""
    seconds = int(((end or datetime.now(timezone.utc)) - start) / timedelta(seconds=1))
    if seconds < 60:
        return f"{max(seconds, 0)}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 100 * 3600:
        return f"{seconds // 3600}h{seconds // 60 % 60:02d}m"
    return f"{seconds // 86400}d"


def limit_text(seconds: int) -> str:
    """Format a time limit as schedulers do, for example ``1-12:00:00``; 0 is no limit."""
    if not seconds:
        return "no limit"
    days, rest = divmod(seconds, 86_400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text
