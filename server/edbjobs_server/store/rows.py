"""A job as a row, and a row as a job."""

from __future__ import annotations

import sqlite3
from operator import attrgetter
from typing import Any

from edbjobs.v1 import job_pb2

from edbjobs_server.contract.codec import FULL, Internals, attempts_bytes, job_from_message, rest_bytes
from edbjobs_server.core.job import Job
from edbjobs_server.store.filters import labels_text
from edbjobs_server.store.queries import QUERIES

Row = tuple[Any, ...]  # of the columns of `Internals`, in their order, and the three parts of the message


def row_of(job: Job, basic: bytes, end_order: float | None, *, is_new: bool) -> tuple[object, ...]:
    """Make the values of one row of ``write_changes``.

    Parameters
    ----------
    job : Job
        The job.
    basic : bytes
        The same as ``JOB_VIEW_BASIC``, serialized.
    end_order : float or None
        Its place in the order of ends.
    is_new : bool
        It is not in the store yet: what never changes is written too.

    Raises
    ------
    UnicodeEncodeError
        If a text that is not in the message cannot be stored.
    """
    spec = job.spec
    for text in (spec.project_path, spec.project_key, job.requested_by, job.request_id, job.waiting_message):
        text.encode()
    seq, *same, unkillable, boot_ids = Internals.of(job)
    return (
        seq,
        job.uid,
        job.id,
        job.state.value,
        job.user,
        spec.batch,
        labels_text(spec.labels),
        job.create_time,
        job.end_time,
        end_order,
        job.held and not job.state.terminal,
        job.outcome.reason.value if job.outcome is not None else 0,
        spec.scheduler,
        job.superseded_by,
        spec.project_path,
        *same,
        " ".join(map(str, unkillable)) if unkillable else "",
        "\n".join(boot_ids) if boot_ids else "",
        rest_bytes(job) if is_new else b"",
        attempts_bytes(job),
        basic,
    )


INTERNALS_AT = 15  # where the internals but `seq` stand in a row of ``write_changes``


def whole(basic: bytes, rest: bytes, attempts: bytes) -> bytes:
    """Put the parts of a job together, as ``JOB_VIEW_FULL``."""
    return basic + attempts + rest + FULL


def job_of(row: Row) -> Job:
    """Make a job of a row of the queries that name the internals and the message."""
    *same, backing_off, waiting_message, unkillable, boot_ids, rest, attempts, basic = row
    pids = tuple(map(int, unkillable.split()))
    internals = Internals._make((*same, bool(backing_off), waiting_message, pids, tuple(boot_ids.split("\n"))))
    return job_from_message(job_pb2.Job.FromString(basic + attempts + rest), internals)


def live_jobs(connection: sqlite3.Connection) -> list[Job]:
    """Read all jobs that have not ended, in order of acceptance."""
    return sorted([job_of(row) for row in connection.execute(QUERIES["live_jobs"])], key=attrgetter("seq"))
