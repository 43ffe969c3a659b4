"""Reading in threads of their own, each with a read-only connection."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from edbjobs.v1 import jobs_messages_pb2
from edbjobs.v1.job_pb2 import JobView
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.contract.views import BASIC, FULL
from edbjobs_server.core.errors import Refused, store_unavailable
from edbjobs_server.core.job import Job
from edbjobs_server.store.database import connect_readonly, is_storage_failure
from edbjobs_server.store.pages import Page, read_page
from edbjobs_server.store.queries import QUERIES
from edbjobs_server.store.rows import job_of, live_jobs, whole

T = TypeVar("T")
_THREADS = 3
_MAX_WAITING = 10_000
_MAX_SEARCHED = 200_000


class Reader:
    """One consistent view of the store; valid only inside the function it is handed to.

    Parameters
    ----------
    connection : sqlite3.Connection
        Read-only, inside a transaction.
    store_id : str
        Identity of the store.
    """

    def __init__(self, connection: sqlite3.Connection, store_id: str) -> None:
        self._sql = connection
        self._store_id = store_id

    def revision(self) -> int:
        """Newest revision on disk."""
        (revision,) = self._sql.execute(QUERIES["revision"]).fetchone()
        return int(revision)

    def floor(self) -> int:
        """Events up to this revision were cut from the log."""
        (floor,) = self._sql.execute(QUERIES["floor"]).fetchone()
        return int(floor)

    def job_bytes(self, ref: JobRef, view: JobView.ValueType = FULL) -> bytes | None:
        """Find the serialized ``Job`` that a reference names; None if there is none."""
        name = ("message_by_uid", ref.uid) if ref.uid else ("message_by_id", ref.id)
        row = self._sql.execute(QUERIES[name[0]], name[1:]).fetchone()
        if row is None:
            return None
        return bytes(row[0]) if view == BASIC else whole(*row)

    def uid(self, ref: JobRef) -> str | None:
        """Find the uid of the job that a reference names; None if there is none."""
        name = ("uid_by_uid", ref.uid) if ref.uid else ("uid_by_id", ref.id)
        row = self._sql.execute(QUERIES[name[0]], name[1:]).fetchone()
        return str(row[0]) if row else None

    def request(self, principal: str, request_id: str) -> tuple[str, bytes] | None:
        """Return the uid and the digest of what a caller's request made; the job may be gone by now."""
        row = self._sql.execute(QUERIES["request"], (principal, request_id)).fetchone()
        return (str(row[0]), bytes(row[1])) if row else None

    def job(self, uid: str) -> Job | None:
        """Find a job as the core sees it, by its uid."""
        row = self._sql.execute(QUERIES["job_by_uid"], (uid,)).fetchone()
        return job_of(row) if row else None

    def live_jobs(self) -> list[Job]:
        """All jobs that have not ended, in order of acceptance."""
        return live_jobs(self._sql)

    def counts(self) -> dict[int, int]:
        """Count the jobs in each state that has any."""
        found: dict[int, int] = {}
        for state, _, number in self._sql.execute(QUERIES["counts"]):
            if number:
                found[state] = found.get(state, 0) + number
        return found

    def events(self, after: int, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """List serialized events after a revision, at most so many and, beyond the first, so many bytes."""
        found: list[tuple[int, bytes]] = []
        for revision, event in self._sql.execute(QUERIES["events_after"], (after, limit)):
            max_bytes -= len(event)
            if found and max_bytes < 0:
                break
            found.append((revision, event))
        return found

    def events_of(self, uid: str, after: int, limit: int) -> tuple[list[bytes], int]:
        """List serialized events of a job after a revision, and up to which revision they are all.

        The search is bounded: nothing keeps the events by job, and nearly all of them are of others.
        """
        start = max(after, self.floor())
        horizon = min(start + _MAX_SEARCHED, self.revision())
        rows = self._sql.execute(QUERIES["events_of"], (start, horizon, uid, limit)).fetchall()
        if len(rows) == limit:
            horizon = int(rows[-1][0])
        return [bytes(event) for _, event in rows], horizon

    def page(
        self,
        requested: jobs_messages_pb2.JobFilter,
        token: str = "",
        size: int = 50,
        newest_first: bool = False,
        view: JobView.ValueType = FULL,
    ) -> Page:
        """Read one page of jobs; see `pages.read_page`."""
        return read_page(
            self._sql,
            self._store_id,
            requested,
            token=token,
            size=size,
            newest_first=newest_first,
            view=view,
        )


class ReaderPool:
    """A few threads that read.

    Parameters
    ----------
    path : Path
        The store's file.
    store_id : str
        Its identity.
    """

    def __init__(self, path: Path, store_id: str) -> None:
        self._path = path
        self._store_id = store_id
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="edbjobs-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._waiting = 0

    async def read(self, function: Callable[[Reader], T]) -> T:
        """Run a function in one of the threads.

        Raises
        ------
        Refused
            STORE_UNAVAILABLE, if the disk fails; OVERLOADED, if too many wait already.
        """
        if self._waiting >= _MAX_WAITING:
            raise Refused("OVERLOADED", f"{self._waiting} reads wait for the disk already; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, function)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what runs; blocks."""
        self._threads.shutdown(cancel_futures=True)
        for connection in self._connections:
            connection.close()

    def _read(self, function: Callable[[Reader], T]) -> T:
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return function(Reader(connection, self._store_id))
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            if not is_storage_failure(error):
                raise
            self._let_go()
            raise store_unavailable(str(error)) from error

    def _let_go(self) -> None:
        """Close a connection that failed; the next read opens a new one."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            self._connections.remove(connection)
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect_readonly(self._path)
            self._local.connection = connection
            self._connections.append(connection)
        return connection
