"""Texts about jobs and events for the progress display and the command line."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edbjobs._models import Event, Job, JobProgress

__all__ = ["age", "event_text", "limit_text", "note_text", "place_text", "progress_text", "state_text"]


def state_text(job: Job) -> str:
    """Return a short text: what a job is doing, why it waits, or how it ended."""
    if job.status.ended:
        return _end_text(job)
    words = str(job.status)
    if job.progress is not None and (text := progress_text(job.progress)):
        words += f", {text}"
    if job.waiting_reason is not None:
        words += f": {job.waiting_detail or job.waiting_reason.value.replace('_', ' ')}"
    elif job.scheduler_job_id and job.status in ("scheduled", "running") and words == str(job.status):
        words += f": {place_text(job)}"
    return words


def place_text(job: Job) -> str:
    """Return where a job runs, for example ``slurm 4711 on n1, n2``."""
    nodes = ", ".join(job.attempts[-1].nodes) if job.scheduler_job_id and job.attempts else ""
    return " ".join(filter(None, (job.executor, job.scheduler_job_id, nodes and f"on {nodes}")))


def note_text(job: Job) -> str:
    """Return the text of `state_text` without the state itself."""
    return state_text(job).removeprefix(str(job.status)).lstrip(":, ")


def event_text(event: Event) -> str:
    """Return an event as text, for example ``completed: Setup1: normal completion``."""
    word = event.type.value.removeprefix("job_").replace("_", " ")
    note = event.detail or (note_text(event.job) if event.job is not None else "")
    return f"{word}: {note}" if note else word


def _end_text(job: Job) -> str:
    words = str(job.status)
    if job.reason is not None and job.reason.value not in ("normal", str(job.status)):
        words += f" ({job.reason.value.replace('_', ' ')})"
    return f"{words}: {job.message}" if job.message else words


def progress_text(progress: JobProgress) -> str:
    """Return the progress of a solve, for example ``pass 5 of 10, delta S 0.021 (target 0.02)``."""
    parts = []
    if progress.phase == "sweep":
        total = f" of {progress.frequencies_total}" if progress.frequencies_total else ""
        parts.append(f"sweep, {progress.frequencies_solved}{total} frequencies solved")
    elif progress.adaptive_pass:
        total = f" of {progress.max_passes}" if progress.max_passes else ""
        parts.append(f"pass {progress.adaptive_pass}{total}")
        if progress.delta_s is not None:
            target = "" if progress.target_delta_s is None else f" (target {progress.target_delta_s:g})"
            parts.append(f"delta S {progress.delta_s:.4g}{target}")
    elif progress.phase:
        parts.append(progress.phase)
    return ", ".join(parts)


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
