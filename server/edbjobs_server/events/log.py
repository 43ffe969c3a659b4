"""The log of revisions: every change once, in order, for as many watchers as there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from edbjobs.v1 import event_pb2, jobs_messages_pb2

from edbjobs_server.contract.codec import embedded, seconds
from edbjobs_server.core.errors import Refused
from edbjobs_server.events.ring import Entry, Ring
from edbjobs_server.events.wakeup import Wakeup
from edbjobs_server.store import Committed, Store
from edbjobs_server.store.filters import JobMatcher

MAX_MESSAGE_EVENTS = 500
MAX_MESSAGE_BYTES = 1024 * 1024
DEFAULT_HEARTBEAT = 15.0
SHORTEST_HEARTBEAT = 1.0
MAX_BUILT = 64  # messages kept for other watchers at the same place, each of up to 1 MiB
_EVENTS = jobs_messages_pb2.WatchJobsResponse.EVENTS_FIELD_NUMBER


class Message:
    """One ``WatchJobsResponse``; made once for all watchers who stand at the same place.

    Attributes
    ----------
    serialized : bytes
        The message as it goes over the wire.
    """

    __slots__ = ("_parsed", "serialized")

    def __init__(self, serialized: bytes) -> None:
        self.serialized = serialized
        self._parsed: jobs_messages_pb2.WatchJobsResponse | None = None

    @property
    def parsed(self) -> jobs_messages_pb2.WatchJobsResponse:
        """The message; shared, so not to be changed."""
        if self._parsed is None:
            self._parsed = jobs_messages_pb2.WatchJobsResponse.FromString(self.serialized)
        return self._parsed


class UpdateFeed(Protocol):
    """Updates of jobs for one watcher."""

    def open(self) -> None:
        """Compute updates from now on, all of which are new to the watcher."""

    def take(self, revision: int) -> bytes:
        """Return what is new at a place, as serialized fields of ``WatchJobsResponse``; empty: nothing."""

    def close(self) -> None:
        """Need no more updates."""


FeedMaker = Callable[[JobMatcher, bytes], UpdateFeed]  # gets a filter, and the same serialized


@dataclass(slots=True)
class _Watcher:
    """Where a watcher stands: all it costs while it does not read.

    Attributes
    ----------
    key : tuple of (bytes, bool)
        What it selects: watchers of one key at one place get the same message.
    """

    cursor: int
    matcher: JobMatcher
    service_changes: bool
    key: tuple[bytes, bool]
    heartbeat: float
    last_sent: float
    feed: UpdateFeed | None


class EventLog:
    """Publishes committed changes to watchers.

    Each watcher has a position and nothing else. It reads from memory, or, when it fell behind, from the store;
    so a slow one delays no other and misses nothing.

    Parameters
    ----------
    store : Store
        Where older events are read from.
    first_revision : int
        Newest revision there is.
    """

    def __init__(self, store: Store, first_revision: int) -> None:
        self._store = store
        self._ring = Ring(first_revision)
        self._wakeup = Wakeup()
        self._update_wakeup = Wakeup()  # of those who want updates too
        self._built: dict[tuple[int, tuple[bytes, bool]], tuple[int, Message | None]] = {}
        self._closed = False

    @property
    def revision(self) -> int:
        """Newest revision that watchers can have."""
        return self._ring.head

    def publish(self, batch: Sequence[Committed]) -> None:
        """Take over a commit; on the loop, in order of revision."""
        self._ring.append((item.revision, item.event) for item in batch)
        self._built.clear()
        self._wake_all()

    def reset(self, revision: int) -> None:
        """Go on after a commit of which it is not known what of it is on disk: watchers read it from there."""
        if revision != self._ring.head:
            self._ring.clear(revision)
            self._built.clear()
            self._wake_all()

    def close(self) -> None:
        """End all watches with DRAINING; clients go on from where they are when the service is back."""
        self._closed = True
        self._wake_all()

    def wake_for_updates(self) -> None:
        """Let the watchers who want updates look for them."""
        self._update_wakeup.wake()

    def _wake_all(self) -> None:
        self._wakeup.wake()
        self._update_wakeup.wake()

    async def watch(
        self, request: jobs_messages_pb2.WatchJobsRequest, feed: FeedMaker | None = None
    ) -> AsyncIterator[jobs_messages_pb2.WatchJobsResponse]:
        """Send changes after a position, a mark when caught up, and then each new one.

        The messages are shared between watchers and must not be changed.

        Parameters
        ----------
        request : WatchJobsRequest
            What to send.
        feed : callable, optional
            Makes the source of updates, for a watcher who wants them.

        Raises
        ------
        Refused
            INVALID_REQUEST, OTHER_STORE, REVISION_TOO_OLD, REVISION_IN_FUTURE; DRAINING after `close`.
        """
        async with aclosing(self.messages(request, feed)) as messages:
            async for message in messages:
                yield message.parsed

    async def messages(
        self, request: jobs_messages_pb2.WatchJobsRequest, feed: FeedMaker | None = None
    ) -> AsyncGenerator[Message, None]:
        """Do as `watch`, with messages that are serialized already."""
        watcher = await self._begin(request, feed)
        updates, wakeup = watcher.feed, self._wakeup if watcher.feed is None else self._update_wakeup
        target: int | None = self._ring.head  # None: it has caught up
        try:
            while True:
                if self._closed:
                    raise Refused("DRAINING", "the service is stopping: watch again from the last position")
                if target is not None and watcher.cursor >= target:
                    target = None
                    if updates is not None:
                        updates.open()
                    message = self._mark(watcher.cursor, caught_up=True)
                elif watcher.cursor < self._ring.head:
                    found = await self._next(watcher)
                    if found is None:
                        await asyncio.sleep(0)  # it read what it does not want: others first, before it reads on
                        continue
                    message = found
                # All changes up to here were sent, the ends among them: no update comes after the end of its job.
                elif updates is not None and (taken := updates.take(watcher.cursor)):
                    message = Message(taken + self._mark(watcher.cursor).serialized)
                elif _now() >= watcher.last_sent + watcher.heartbeat:
                    message = self._mark(watcher.cursor)
                else:
                    await wakeup.wait(watcher.last_sent + watcher.heartbeat)
                    continue
                watcher.last_sent = _now()
                yield message
        finally:
            if updates is not None:
                updates.close()

    async def _begin(self, request: jobs_messages_pb2.WatchJobsRequest, feed: FeedMaker | None) -> _Watcher:
        cursor = await self._first_cursor(request)
        interval = request.heartbeat_interval
        heartbeat = seconds(interval) if request.HasField("heartbeat_interval") else DEFAULT_HEARTBEAT
        matcher = JobMatcher(request.filter)
        selected = request.filter.SerializeToString(deterministic=True)
        return _Watcher(
            cursor=cursor,
            matcher=matcher,
            service_changes=request.include_service_changes,
            key=(selected, request.include_service_changes),
            heartbeat=max(SHORTEST_HEARTBEAT, heartbeat),
            last_sent=_now(),
            feed=feed(matcher, selected) if feed is not None and request.include_updates else None,
        )

    async def _first_cursor(self, request: jobs_messages_pb2.WatchJobsRequest) -> int:
        """Return the revision to start after."""
        if request.from_oldest:
            if request.HasField("after"):
                what = "expected one of after and from_oldest, got both"
                raise Refused("INVALID_REQUEST", what, fields={"from_oldest": what})
            return await self._store.read(lambda reader: reader.floor())
        if not request.HasField("after"):
            return self._ring.head
        if request.after.store_id not in ("", self._store.store_id):
            raise Refused(
                "OTHER_STORE",
                f"positions of the store {request.after.store_id} mean nothing here, this is {self._store.store_id}: "
                "list the jobs and watch from that list's position",
                metadata={"store_id": self._store.store_id},
            )
        return await self._checked(request.after.revision)

    async def _checked(self, after: int) -> int:
        floor, newest = await self._store.read(lambda reader: (reader.floor(), reader.revision()))
        if after > newest:
            raise Refused(
                "REVISION_IN_FUTURE",
                f"revision {after} is newer than the newest one, {newest}: the store was put back to an older state; "
                "list the jobs and watch from that list's position",
                metadata={"revision": str(newest)},
            )
        if after < floor:
            raise _too_old(after, floor)
        return after

    async def _next(self, watcher: _Watcher) -> Message | None:
        """Build the message after the watcher's place, and move the watcher; None: nothing of what it read matches."""
        key = watcher.cursor, watcher.key
        found = self._built.get(key)
        if found is None:
            entries = await self._entries_after(watcher.cursor)
            found = entries[-1].revision, self._message(watcher, entries)
            if watcher.cursor >= self._ring.floor:
                self._built[key] = found
                if len(self._built) > MAX_BUILT:
                    del self._built[next(iter(self._built))]  # the oldest
        watcher.cursor, message = found
        return message

    async def _entries_after(self, cursor: int) -> Sequence[Entry]:
        if cursor >= self._ring.floor:
            return self._ring.after(cursor, MAX_MESSAGE_EVENTS, MAX_MESSAGE_BYTES)
        floor, events = await self._store.read(
            lambda reader: (reader.floor(), reader.events(cursor, MAX_MESSAGE_EVENTS, MAX_MESSAGE_BYTES))
        )
        if cursor < floor or not events:
            raise _too_old(cursor, floor)
        return [Entry(revision, data) for revision, data in events]

    def _message(self, watcher: _Watcher, entries: Sequence[Entry]) -> Message | None:
        """Make a message of those changes that a watcher selects, and of who left its selection; None: of none."""
        selected: list[bytes] = []
        left: dict[str, bool] = {}  # by uid: whether its last change took it out
        for entry in entries:
            if not entry.message.HasField("job_change"):
                if watcher.service_changes:
                    selected.append(entry.data)
                continue
            change = entry.message.job_change
            before, after = entry.agreed_before(watcher.matcher), entry.agrees_after(watcher.matcher)
            if before or after:
                selected.append(entry.data)
                left[change.job.uid] = not after
        if not selected:
            return None
        uids = [uid for uid, has_left in left.items() if has_left]
        events = b"".join([embedded(_EVENTS, data) for data in selected])
        gone = jobs_messages_pb2.WatchJobsResponse(left_uids=uids).SerializeToString() if uids else b""
        return Message(events + gone + self._mark(entries[-1].revision).serialized)

    def _mark(self, revision: int, caught_up: bool = False) -> Message:
        position = event_pb2.Position(revision=revision, store_id=self._store.store_id)
        mark = jobs_messages_pb2.WatchJobsResponse(position=position, caught_up=caught_up)
        return Message(mark.SerializeToString())


def _now() -> float:
    return asyncio.get_running_loop().time()


def _too_old(revision: int, floor: int) -> Refused:
    return Refused(
        "REVISION_TOO_OLD",
        f"changes up to revision {floor} are no longer on record, and {revision} was asked for: list the jobs and "
        "watch from that list's position",
        metadata={"oldest_revision": str(floor)},
    )
