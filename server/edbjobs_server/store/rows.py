"""A job as a row, and a row as a job."""

from __future__ import annotations

import sqlite3
from operator import attrgetter
from typing import Any

from edbjobs.v1 import job_pb2

from edbjobs_server.contract.codec import Internals, job_from_message
from edbjobs_server.core.job import Job
from edbjobs_server.store.filters import labels_text
from edbjobs_server.store.queries import QUERIES

Row = tuple[Any, ...]  # of the columns of `Internals`, in their order, and the message


def row_of(job: Job, message: bytes, end_order: float | None) -> tuple[object, ...]:
    """Make the values of one row of ``write_changes``.

    `message` is the serialized job, `end_order` its place in the order of ends.

    Raises
    ------
    UnicodeEncodeError
        If a text that is not in the message cannot be stored.
    """
    spec = job.spec
    for text in (spec.project_path, spec.project_key, job.requested_by, job.request_id):
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
        job.held,
        job.reason.value,
        spec.executor,
        job.superseded_by,
        *same,
        " ".join(map(str, unkillable)) if unkillable else "",
        "\n".join(boot_ids) if boot_ids else "",
        message,
    )


INTERNALS_AT = 14  # where the internals but `seq` stand in a row of ``write_changes``


def job_of(row: Row) -> Job:
    """Make a job of a row of the queries that name the internals and the message."""
    *same, backing_off, unkillable, boot_ids, data = row
    pids = tuple(map(int, unkillable.split()))
    internals = Internals._make((*same, bool(backing_off), pids, tuple(boot_ids.split("\n"))))
    return job_from_message(job_pb2.Job.FromString(data), internals)


def live_jobs(connection: sqlite3.Connection) -> list[Job]:
    """Read all jobs that have not ended, in order of acceptance."""
    return sorted([job_of(row) for row in connection.execute(QUERIES["live_jobs"])], key=attrgetter("seq"))
