"""The store as the service uses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from edbjobs_server.core.errors import Refused
from edbjobs_server.store import state_folder
from edbjobs_server.store.database import FILE, open_checked
from edbjobs_server.store.reader import Reader, ReaderPool
from edbjobs_server.store.transaction import Transaction
from edbjobs_server.store.values import Snapshot
from edbjobs_server.store.writer import OnCommit, OnReset, Writer, draining

T = TypeVar("T")
LOG = logging.getLogger(__name__)
LOCK_FILE = "lock"
_CLOSE_SECONDS = 30.0


class Store:
    """All that is on disk. Made by `open`; `start` before the first `write`.

    Attributes
    ----------
    store_id : str
        Identity of the store: revisions belong to it.
    """

    def __init__(self, writer: Writer, readers: ReaderPool, lock: state_folder.Lock) -> None:
        self.store_id = writer.snapshot.store_id
        self._writer = writer
        self._readers = readers
        self._lock = lock
        self._closing = False

    @classmethod
    def open(cls, state_dir: Path) -> Store:
        """Open the store of a state folder, made or upgraded where needed; blocks.

        Parameters
        ----------
        state_dir : Path
            A local folder; made if it does not exist.

        Raises
        ------
        StoreError
            If the folder is in use, on a network file system or cannot be written, or the store is corrupt or
            of a newer release. Its text is one line with what to do.
        """
        state_folder.prepare(state_dir)
        lock = state_folder.Lock(state_dir / LOCK_FILE)
        try:
            path = state_dir / FILE
            writer = Writer(path, open_checked(path))
        except BaseException:
            lock.release()
            raise
        return cls(writer, ReaderPool(path, writer.snapshot.store_id), lock)

    @property
    def writable(self) -> bool:
        """Whether the last commit worked, or a later probe did."""
        return not self._writer.error

    @property
    def revision(self) -> int:
        """Newest revision on disk that the loop has heard of."""
        return self._writer.revision

    @property
    def newest_time(self) -> float:
        """Time of the newest change on disk, seconds since the epoch; 0: there is none."""
        return self._writer.newest_time

    @property
    def last_error(self) -> str:
        """Why the store cannot be written; empty while it can."""
        return self._writer.error

    def snapshot(self) -> Snapshot:
        """Return what was on disk when the store was opened."""
        return self._writer.snapshot

    def start(self, loop: asyncio.AbstractEventLoop, on_commit: OnCommit, on_reset: OnReset) -> None:
        """Start to write.

        Parameters
        ----------
        loop : asyncio.AbstractEventLoop
            Both functions are called on it.
        on_commit : callable
            Gets the changes of each commit, in order of revision, before those who asked for them hear.
        on_reset : callable
            Gets what is on disk after a commit failed, which may contain that commit, before its callers hear.
        """
        self._writer.start(loop, on_commit, on_reset)

    async def write(
        self, command: Callable[[Transaction], T], *, request_ids: Sequence[str] = (), ids: Sequence[str] = ()
    ) -> T:
        """Run a command in the writer's thread; answers when what it did is on disk.

        A caller that is cancelled does not take the command back.

        Parameters
        ----------
        command : callable
            What it raises is raised here, and nothing of it is done.
        request_ids, ids : sequence of str, optional
            Requests and ids of jobs it will ask about, looked up together with those of other commands.

        Raises
        ------
        Refused
            STORE_UNAVAILABLE, if the commit failed; OVERLOADED, if too many wait; DRAINING, after `close`.
        """
        return await self.send(command, request_ids=request_ids, ids=ids)

    def send(
        self, command: Callable[[Transaction], T], *, request_ids: Sequence[str] = (), ids: Sequence[str] = ()
    ) -> asyncio.Future[T]:
        """Do as `write`, without waiting: commands are run in the order in which they are sent."""
        if self._closing:
            raise draining()
        return self._writer.submit(command, request_ids, ids)

    def commit_posted(self) -> None:
        """Commit what was posted, in this thread unless another is at it; blocks on the disk."""
        self._writer.commit_posted()

    def post(
        self,
        command: Callable[[Transaction], T],
        answer: asyncio.Future[T],
        *,
        request_ids: Sequence[str] = (),
        ids: Sequence[str] = (),
    ) -> None:
        """Do as `write`, from any thread: `answer`, a future of the loop, gets what the command gives.

        Call `commit_posted` after the last one.

        Raises
        ------
        Refused
            OVERLOADED, if too many wait; DRAINING, after `close`. The answer is left alone then.
        """
        self._writer.post(command, request_ids, ids, answer)

    async def write_all(
        self, commands: Sequence[Callable[[Transaction], T]], *, request_ids: Sequence[str] = ()
    ) -> list[T | Refused]:
        """Run several commands in one commit; gives the result or the refusal of each.

        Parameters
        ----------
        commands : sequence of callable
            What one of them does is undone if it is refused; anything else it raises undoes them all.
        request_ids : sequence of str, optional
            Requests they will ask about, looked up together.

        Raises
        ------
        Refused
            As `write`.
        """

        def run(tx: Transaction) -> list[T | Refused]:
            return [tx.attempt(command) for command in commands]

        return await self.write(run, request_ids=request_ids)

    async def read(self, function: Callable[[Reader], T]) -> T:
        """Run a function on one consistent view of what is on disk, in a reader's thread.

        Raises
        ------
        Refused
            STORE_UNAVAILABLE, if the disk cannot be read; OVERLOADED, if too many wait.
        """
        return await self._readers.read(function)

    async def close(self) -> None:
        """Finish what waits, mark the stop as clean, and let another service in."""
        if self._closing:
            return
        self._closing = True
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        ended = self._writer.stop(_CLOSE_SECONDS)
        self._readers.close()
        if ended:
            self._writer.close()
        else:
            LOG.error("the store's writer did not end in %.0f s: the disk does not answer", _CLOSE_SECONDS)
        self._lock.release()
