"""The one place that writes: everything that waits is one commit, by one thread at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edbjobs_server.core.errors import Refused, store_unavailable
from edbjobs_server.store.database import connect, is_storage_failure, write_back
from edbjobs_server.store.queries import QUERIES
from edbjobs_server.store.transaction import Transaction
from edbjobs_server.store.values import Committed, Snapshot
from edbjobs_server.store.writer_state import read_state
from edbjobs_server.util import failpoints

LOG = logging.getLogger(__name__)
MAX_WAITING = 20_000
_MAX_BATCH = 2_000
_PROBE_SECONDS = 1.0
CORRECTION_SECONDS = 60.0

OnCommit = Callable[[Sequence[Committed]], None]
OnReset = Callable[[Snapshot], None]


def draining() -> Refused:
    """Return the error for a change that comes after the stop has started."""
    return Refused("DRAINING", "the service is stopping; try again when it is back")


def steady(newest: float, clock: float) -> float:
    """Return the time of a change: times do not go back by what a clock is corrected by now and then.

    A clock that is set back further was wrong before, and is taken as it is now: revisions have the order.
    """
    return newest if clock < newest <= clock + CORRECTION_SECONDS else clock


@dataclass(slots=True)
class _Request:
    command: Callable[[Transaction], Any]
    request_ids: Sequence[str]
    ids: Sequence[str]
    answer: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs commands off the loop, in a thread of its own or of those who `post`, and commits all that wait together.

    Parameters
    ----------
    path : Path
        The store's file.
    connection : sqlite3.Connection
        Open for writing; from now on the writer's own.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._sql: sqlite3.Connection | None = connection
        self._state = read_state(connection)
        self._turn = threading.Lock()  # of the thread that commits: guards all that is here but the queue
        self._lock = threading.Lock()  # of the three that follow
        self._queue: deque[_Request] = deque()
        self._waiting = 0
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edbjobs-store", daemon=True)
        self._stale = False  # the state in memory may differ from what is committed
        self._loop: asyncio.AbstractEventLoop
        self._on_commit: OnCommit
        self._on_reset: OnReset
        self.error = ""
        self.snapshot = self._state.snapshot()
        self.revision = self.snapshot.revision
        self.newest_time = self._state.newest_time

    def start(self, loop: asyncio.AbstractEventLoop, on_commit: OnCommit, on_reset: OnReset) -> None:
        """Start to write; both functions are called on `loop`."""
        self._loop = loop
        self._on_commit = on_commit
        self._on_reset = on_reset
        self._thread.start()

    def submit(
        self, command: Callable[[Transaction], Any], request_ids: Sequence[str], ids: Sequence[str]
    ) -> asyncio.Future[Any]:
        """Queue a command; its answer comes after COMMIT. On the loop only.

        Raises
        ------
        Refused
            OVERLOADED, if too many wait already; DRAINING after `stop`.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.post(command, request_ids, ids, answer)
        self._wake.set()
        return answer

    def post(
        self,
        command: Callable[[Transaction], Any],
        request_ids: Sequence[str],
        ids: Sequence[str],
        answer: asyncio.Future[Any],
    ) -> None:
        """Queue a command from any thread; `answer`, a future of the loop, gets its result after COMMIT.

        It may wait until `commit_posted` is called.

        Raises
        ------
        Refused
            As `submit`; nothing was queued then.
        """
        with self._lock:
            if self._stopping:
                raise draining()
            if self._waiting >= MAX_WAITING:
                raise Refused("OVERLOADED", f"{self._waiting} changes wait for the disk already; try again in a moment")
            self._waiting += 1
            self._queue.append(_Request(command, request_ids, ids, answer))

    def commit_posted(self) -> None:
        """Commit what waits in the calling thread, or leave it to the thread that is at it; blocks on the disk.

        To wake another thread and to share the interpreter with it costs more than the commit.
        """
        if self._turn.acquire(blocking=False):
            try:
                self._do(self._next_batch())
            finally:
                self._turn.release()
        if self._queue:
            self._wake.set()

    def stop(self, timeout: float) -> bool:
        """Finish what waits and end the thread; blocks. Returns whether it ended in time."""
        with self._lock:
            self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Mark the store as cleanly stopped; only after `stop`."""
        if self._sql is None:
            return
        try:
            self._sql.execute(QUERIES["set_clean"], (1,))
        except sqlite3.Error as error:
            LOG.warning("the store could not be marked as cleanly stopped: %s", error)
        self._sql.close()

    def _run(self) -> None:
        while True:
            woken = self._wake.wait(_PROBE_SECONDS if self.error else None)
            self._wake.clear()  # before looking: what comes now wakes again
            with self._turn:
                while batch := self._next_batch():
                    self._do(batch)
                if self._stopping:  # nothing is queued any more
                    return
                if self.error and not woken:
                    self._probe()

    def _next_batch(self) -> list[_Request]:
        with self._lock:
            return [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]

    def _do(self, batch: list[_Request]) -> None:
        if not batch:
            return
        try:
            committed = self._commit(batch)
        except Exception as error:  # whatever it is, the thread goes on and all callers hear
            self._fail(batch, error)
            return
        self.error = ""
        self._tell(self._finish, batch, committed)

    def _commit(self, batch: list[_Request]) -> list[Committed]:
        connection = self._connection()
        self._stale = True
        transaction = Transaction(connection, self._state, steady(self._state.newest_time, time.time()))
        request_ids = [request_id for request in batch for request_id in request.request_ids]
        ids = [id for request in batch for id in request.ids]
        if request_ids or ids:
            transaction.look_up(request_ids, ids)
        for request in batch:
            self._attempt(transaction, request)
        if transaction.committed:
            failpoints.point("store.before_commit")
        transaction.flush()
        self._stale = False
        if transaction.committed:
            self._state.newest_time = self.newest_time = transaction.now
            failpoints.point("store.after_commit")
        return transaction.committed

    def _attempt(self, transaction: Transaction, request: _Request) -> None:
        try:
            with transaction.request_scope():
                request.result = request.command(transaction)
        except Exception as error:  # the caller's own is raised there; one of the disk ends the whole commit
            if is_storage_failure(error):
                raise
            request.error = error

    def _fail(self, batch: list[_Request], error: Exception) -> None:
        """Notify all callers of a commit that failed, after the committed state was read again."""
        if not self.error:
            LOG.warning("the store cannot be written: %s", error)
        self._let_go(error)
        for request in batch:
            request.error = store_unavailable(self.error)
        try:
            self._connection()
        except (sqlite3.Error, OSError) as again:
            LOG.debug("the store cannot be opened again: %s", again)
        self._tell(self._finish, batch, [])

    def _connection(self) -> sqlite3.Connection:
        """Return the open connection; after a failure a new one, with the state read again.

        After a failed fsync the system may take pages for written that are not. Copying the whole log into
        the file and beginning a new one writes them again; until that works nothing more is committed.
        """
        if self._sql is None:
            connection = connect(self._path)
            try:
                if self._stale:
                    generation = self._state.generation + 1
                    self._state = read_state(connection)
                    self._state.generation = generation
                    self._stale = False
                    self._tell(self._reset, self._state.snapshot())
                write_back(connection)
            except BaseException:
                connection.close()
                raise
            self._sql = connection
        return self._sql

    def _probe(self) -> None:
        """Find out whether the store can be written again."""
        try:
            self._connection().execute(QUERIES["probe"])
        except (sqlite3.Error, OSError) as error:
            self._let_go(error)
            return
        LOG.info("the store can be written again")
        self.error = ""

    def _let_go(self, error: Exception) -> None:
        """Close a connection that failed; nothing of what it held may be used again."""
        self.error = str(error)
        if self._sql is not None:
            self._sql.close()
            self._sql = None

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _reset(self, snapshot: Snapshot) -> None:
        self.revision = snapshot.revision
        self._on_reset(snapshot)

    def _finish(self, batch: list[_Request], committed: list[Committed]) -> None:
        """Publish a commit, then answer; on the loop."""
        with self._lock:
            self._waiting -= len(batch)
        try:
            if committed:
                self.revision = committed[-1].revision
                self._on_commit(committed)
        finally:
            for request in batch:
                if request.answer.done():
                    continue
                if request.error is None:
                    request.answer.set_result(request.result)
                else:
                    request.answer.set_exception(request.error)
