"""A job as a row, and a row as a job."""

from __future__ import annotations

import sqlite3
from operator import attrgetter

from edbjobs.v1 import job_config_pb2, job_pb2

from edbjobs_server.contract.codec import Internals, job_from_message
from edbjobs_server.core.job import Job
from edbjobs_server.store.filters import labels_text, project_of
from edbjobs_server.store.queries import QUERIES

Row = tuple[int, str, str, str, bytes, "float | None", int, str, str, bytes]


def row_of(job: Job, message: bytes, end: float | None) -> tuple[object, ...]:
    """Make the values of one row of ``write_changes``.

    `message` is the serialised job, `end` its place in the order of ends.

    Raises
    ------
    UnicodeEncodeError
        If a text that is not in the message cannot be stored.
    """
    spec = job.spec
    for text in (spec.project_path, spec.project_key, job.request_id):
        text.encode()
    config = job_config_pb2.JobConfig.FromString(job.config)
    return (
        job.seq,
        job.uid,
        job.id,
        job.state.value,
        job.user,
        spec.batch,
        project_of(config.project_path),
        labels_text(spec.labels),
        job.create_time,
        end,
        spec.project_path,
        spec.project_key,
        job.request_id,
        job.digest,
        job.cancel_grace,
        job.backing_off,
        _numbers_text(job.unkillable),
        _boot_ids_text(job),
        message,
    )


def job_of(row: Row) -> Job:
    """Make a job of a row of the queries that name the internals and the message."""
    seq, project_path, project_key, request_id, digest, cancel_grace, backing_off, unkillable, boot_ids, data = row
    message = job_pb2.Job.FromString(data)
    internals = Internals(
        seq=seq,
        project_path=project_path,
        project_key=project_key,
        request_id=request_id,
        digest=digest,
        cancel_grace=cancel_grace,
        backing_off=bool(backing_off),
        unkillable=tuple(map(int, unkillable.split())),
        boot_ids=tuple(boot_ids.split("\n")),
    )
    return job_from_message(message, internals)


def live_jobs(connection: sqlite3.Connection) -> list[Job]:
    """Read all jobs that have not ended, in order of acceptance."""
    return sorted([job_of(row) for row in connection.execute(QUERIES["live_jobs"])], key=attrgetter("seq"))


def _numbers_text(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers)) if numbers else ""


def _boot_ids_text(job: Job) -> str:
    return "\n".join([attempt.boot_id for attempt in job.attempts]) if job.attempts else ""
