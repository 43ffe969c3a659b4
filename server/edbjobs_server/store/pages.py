"""Pages of jobs: by keyset, bounded in rows looked at and in bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import sqlite3
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edbjobs.v1 import job_pb2, jobs_messages_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.store.filters import (
    NOT_SUPERSEDED,
    Condition,
    Where,
    excludes_superseded,
    states_of,
    where,
)
from edbjobs_server.store.queries import QUERIES
from edbjobs_server.store.rows import whole

MAX_SIZE = 1_000
DEFAULT_SIZE = 50
MAX_SCAN = 5_000
MAX_BYTES = 3 * 1024 * 1024
_ROOM_BESIDE = 256  # for what is added to a job when it is answered
_TOKEN = struct.Struct(">qq")
_MAX_SEQ = 2**63 - 1
_Row = tuple[Any, ...]  # seq, and the message: of JOB_VIEW_BASIC its first part, of JOB_VIEW_FULL all three


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes
    ----------
    jobs : list of Job
        As the contract has them.
    next_token : str
        For the next page; empty: this was the last one.
    total : int or None
        Number of jobs that the filter selects; None: too costly to count.
    revision : int
        Revision that the first page stands for.
    """

    jobs: list[job_pb2.Job]
    next_token: str
    total: int | None
    revision: int


@dataclass(frozen=True, slots=True)
class _Direction:
    """How to go on from a seq, which itself was seen."""

    compare: str
    order: str
    start: int
    reverse: bool

    def before(self, one: int, other: int) -> bool:
        return one > other if self.reverse else one < other


_OLDEST = _Direction(">", "ASC", -1, reverse=False)
_NEWEST = _Direction("<", "DESC", _MAX_SEQ, reverse=True)


def read_page(
    connection: sqlite3.Connection,
    store_id: str,
    requested: jobs_messages_pb2.JobFilter,
    *,
    token: str,
    size: int,
    newest_first: bool,
    view: job_pb2.JobView.ValueType,
) -> Page:
    """Read one page, in order of acceptance; it may be short, or empty, though more follow.

    Parameters
    ----------
    requested : JobFilter
        Which jobs.
    token : str
        From the page before; empty: the first page.
    size : int
        Most jobs on it; 0: 50, never more than 1,000.
    newest_first : bool
        The other way round.
    view : JobView
        How much of each job.

    Raises
    ------
    Refused
        INVALID_PAGE_TOKEN, if the token was not made here for the same filter and order.
    """
    direction = _NEWEST if newest_first else _OLDEST
    key = _fingerprint(store_id, requested, newest_first)
    if token:
        cursor, revision = _open_token(key, token)
    else:
        cursor = direction.start
        (revision,) = connection.execute(QUERIES["revision"]).fetchone()
    counts = _Counts(connection)
    columns = "job, rest, attempts" if view == job_pb2.JOB_VIEW_FULL else "job"
    scan = _Scan(connection, where(requested), direction, columns)
    if excludes_superseded(requested):
        scan.exclude_superseded(counts.superseded)
    rows, horizon = scan.read(cursor, max(1, min(size or DEFAULT_SIZE, MAX_SIZE)))
    jobs, last = _cut(rows)
    if len(jobs) < len(rows):
        horizon = last
    next_token = "" if horizon is None else _make_token(key, horizon, revision)
    return Page(jobs, next_token, counts.total(requested), revision)


class _Counts:
    """Numbers of jobs that are kept, so that nothing is counted for a page."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._rows: list[tuple[int, int, int]] = connection.execute(QUERIES["counts"]).fetchall()

    @property
    def superseded(self) -> int:
        """Number of superseded jobs."""
        return sum(number for _, superseded, number in self._rows if superseded)

    def total(self, requested: jobs_messages_pb2.JobFilter) -> int | None:
        """Return the number of jobs that a filter by state selects; None for another one."""
        by_state = jobs_messages_pb2.JobFilter(
            states=requested.states,
            ended=requested.ended if requested.HasField("ended") else None,
            include_superseded=requested.include_superseded,
        )
        if requested != by_state:
            return None
        states = states_of(requested)
        hidden = excludes_superseded(requested)
        return sum(
            number
            for state, superseded, number in self._rows
            if (states is None or state in states) and not (superseded and hidden)
        )


class _Scan:
    """Reads rows that a filter finds, looking at a bounded number.

    Parameters
    ----------
    columns : str
        What to read of a row beside its seq; a constant.
    """

    def __init__(self, connection: sqlite3.Connection, found: Where, direction: _Direction, columns: str) -> None:
        self._sql = connection
        self._columns = columns
        self._where = found
        self._direction = direction
        self._also: list[Condition] = []  # conditions that need no bound of the rows looked at
        self._rest = list(found.rest)

    def exclude_superseded(self, number: int) -> None:
        """Leave superseded jobs out, of which there are so many."""
        if number > MAX_SCAN:
            self._rest.append(NOT_SUPERSEDED)
        elif number:
            self._also.append(NOT_SUPERSEDED)

    def read(self, cursor: int, size: int) -> tuple[list[_Row], int | None]:
        """Return rows after a seq, and up to which seq they are all; None: there are no more."""
        bounds = self._time_bounds()
        horizon: int | None = None
        rows: list[_Row] = []
        for driver in self._where.drivers:
            found, end = self._read_one((driver, *bounds), cursor, size)
            rows += found
            if end is not None and (horizon is None or self._direction.before(end, horizon)):
                horizon = end
        rows.sort(key=lambda row: row[0], reverse=self._direction.reverse)
        if horizon is not None:
            rows = [row for row in rows if not self._direction.before(horizon, row[0])]
        if len(rows) > size:
            del rows[size:]
            horizon = rows[-1][0]
        return rows, horizon

    def _read_one(self, driver: Sequence[Condition], cursor: int, size: int) -> tuple[list[_Row], int | None]:
        compare, order = self._direction.compare, self._direction.order
        conditions = [*driver, Condition(f"seq {compare} ?", (cursor,))]
        end = self._end_of_scan(conditions) if self._rest else None
        if end is not None:
            conditions.append(Condition(f"seq {'>=' if self._direction.reverse else '<='} ?", (end,)))
        conditions += [*self._rest, *self._also]
        text = f"SELECT seq, {self._columns} FROM jobs WHERE {_all_of(conditions)} ORDER BY seq {order} LIMIT ?"  # noqa: S608
        rows = self._sql.execute(text, (*_values(conditions), size + 1)).fetchall()
        if len(rows) > size:
            return rows[:size], rows[size - 1][0]
        return rows, end

    def _end_of_scan(self, conditions: Sequence[Condition]) -> int | None:
        """Find the seq of the last row that may be looked at; None: all may."""
        text = (
            f"SELECT seq FROM jobs WHERE {_all_of(conditions)} "  # noqa: S608
            f"ORDER BY seq {self._direction.order} LIMIT 1 OFFSET ?"
        )
        row = self._sql.execute(text, (*_values(conditions), MAX_SCAN - 1)).fetchone()
        return None if row is None else int(row[0])

    def _time_bounds(self) -> list[Condition]:
        """Narrow the seqs by the requested times, if few enough jobs lie in them.

        Times need not grow with seq, because clocks are set; so the seqs are looked up, not guessed.
        """
        created = self._where.created
        if created is None:
            return []
        inner = f"SELECT seq FROM jobs WHERE {created.text} ORDER BY create_time LIMIT ?"  # noqa: S608
        text = f"SELECT count(*), min(seq), max(seq) FROM ({inner})"  # noqa: S608
        number, first, last = self._sql.execute(text, (*created.values, MAX_SCAN)).fetchone()
        if number == MAX_SCAN:
            return []
        return [Condition("seq BETWEEN ? AND ?", (first or 0, last or 0))]


def _all_of(conditions: Sequence[Condition]) -> str:
    return " AND ".join(condition.text for condition in conditions)


def _values(conditions: Sequence[Condition]) -> tuple[object, ...]:
    return tuple(value for condition in conditions for value in condition.values)


def _cut(rows: Sequence[_Row]) -> tuple[list[job_pb2.Job], int]:
    """Take rows as long as they fit in one message, at least one; returns the seq of the last one too."""
    jobs: list[job_pb2.Job] = []
    room = MAX_BYTES
    last = -1
    for seq, *parts in rows:
        job = job_pb2.Job.FromString(parts[0] if len(parts) == 1 else whole(*parts))
        room -= job.ByteSize() + _ROOM_BESIDE
        if jobs and room < 0:
            break
        jobs.append(job)
        last = seq
    return jobs, last


def _fingerprint(store_id: str, requested: jobs_messages_pb2.JobFilter, newest_first: bool) -> bytes:
    data = requested.SerializeToString(deterministic=True) + bytes([newest_first])
    return hashlib.blake2b(data, key=store_id.encode(), digest_size=16).digest()


def _make_token(key: bytes, seq: int, revision: int) -> str:
    body = _TOKEN.pack(seq, revision)
    return base64.urlsafe_b64encode(body + _sum(key, body)).decode().rstrip("=")


def _open_token(key: bytes, token: str) -> tuple[int, int]:
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    body, check = data[: _TOKEN.size], data[_TOKEN.size :]
    if len(body) < _TOKEN.size or check != _sum(key, body):
        raise Refused(
            "INVALID_PAGE_TOKEN",
            "the page token was not made by this service for this filter and order: start again without a token",
            fields={"page_token": "not from a page with the same filter and order"},
        )
    seq, revision = _TOKEN.unpack(body)
    return seq, revision


def _sum(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=8).digest()
