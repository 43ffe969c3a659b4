"""The log of revisions: every change once, in order, for as many watchers as there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from edbjobs.v1 import event_pb2, jobs_messages_pb2

from edbjobs_server.contract.codec import embedded, seconds
from edbjobs_server.core.errors import Refused
from edbjobs_server.events.ring import Entry, Ring
from edbjobs_server.events.wakeup import Wakeup
from edbjobs_server.store import Committed, Store
from edbjobs_server.store.filters import JobMatcher

MAX_MESSAGE_EVENTS = 500
MAX_MESSAGE_BYTES = 1024 * 1024
DEFAULT_PROGRESS = 15.0
SHORTEST_PROGRESS = 1.0
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


@dataclass(slots=True)
class _Watcher:
    """Where a watcher stands: all it costs while it does not read."""

    cursor: int
    matcher: JobMatcher
    service_events: bool
    progress: float
    last_sent: float

    def matches(self, event: event_pb2.Event) -> bool:
        return self.matcher(event.job) if event.HasField("job") else self.service_events


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
        self._built: dict[tuple[int, bool], tuple[int, Message | None]] = {}
        self._closed = False

    @property
    def revision(self) -> int:
        """Newest revision that watchers can have."""
        return self._ring.head

    def publish(self, batch: Sequence[Committed]) -> None:
        """Take over a commit; on the loop, in order of revision."""
        self._ring.append((item.revision, item.event) for item in batch)
        self._built.clear()
        self._wakeup.wake()

    def reset(self, revision: int) -> None:
        """Go on after a commit of which it is not known what of it is on disk: watchers read it from there."""
        if revision != self._ring.head:
            self._ring.clear(revision)
            self._built.clear()
            self._wakeup.wake()

    def close(self) -> None:
        """End all watches with DRAINING; clients go on from where they are when the service is back."""
        self._closed = True
        self._wakeup.wake()

    async def watch(
        self, request: jobs_messages_pb2.WatchJobsRequest
    ) -> AsyncIterator[jobs_messages_pb2.WatchJobsResponse]:
        """Send changes after a revision, a mark when caught up, and then each new one.

        The messages are shared between watchers and must not be changed.

        Raises
        ------
        Refused
            OTHER_STORE, REVISION_TOO_OLD, REVISION_IN_FUTURE; DRAINING after `close`.
        """
        async for message in self.messages(request):
            yield message.parsed

    async def messages(self, request: jobs_messages_pb2.WatchJobsRequest) -> AsyncIterator[Message]:
        """Do as `watch`, with messages that are serialized already."""
        watcher = await self._begin(request)
        target = self._ring.head
        caught_up = False
        while True:
            if self._closed:
                raise Refused("DRAINING", "the service is stopping: watch again from the last revision")
            message = await self._next(watcher)
            if message is not None:
                yield self._sent(watcher, message)
            elif not caught_up and watcher.cursor >= target:
                caught_up = True
                yield self._sent(watcher, self._mark(watcher.cursor, caught_up=True))
            elif watcher.cursor < self._ring.head:
                await asyncio.sleep(0)  # it read what it does not want: others first, before it reads on
            elif _now() >= watcher.last_sent + watcher.progress:
                yield self._sent(watcher, self._mark(watcher.cursor))
            else:
                await self._wakeup.wait(watcher.last_sent + watcher.progress)

    async def _begin(self, request: jobs_messages_pb2.WatchJobsRequest) -> _Watcher:
        if request.store_id and request.store_id != self._store.store_id:
            raise Refused(
                "OTHER_STORE",
                f"revisions of the store {request.store_id} mean nothing here, this is {self._store.store_id}: list "
                "the jobs and watch from that list's revision",
                metadata={"store_id": self._store.store_id},
            )
        interval = request.progress_interval
        progress = seconds(interval) if request.HasField("progress_interval") else DEFAULT_PROGRESS
        cursor = self._ring.head
        if request.HasField("after_revision"):
            cursor = await self._checked(request.after_revision)
        return _Watcher(
            cursor=cursor,
            matcher=JobMatcher(request.filter),
            service_events=request.include_service_events,
            progress=max(SHORTEST_PROGRESS, progress),
            last_sent=_now(),
        )

    async def _checked(self, after: int) -> int:
        """Return the revision to start after; 0 is the oldest on record."""
        floor, newest = await self._store.read(lambda reader: (reader.floor(), reader.revision()))
        if after > newest:
            raise Refused(
                "REVISION_IN_FUTURE",
                f"revision {after} is newer than the newest one, {newest}: the store was put back to an older state; "
                "list the jobs and watch from that list's revision",
                metadata={"revision": str(newest)},
            )
        if after == 0:
            return floor
        if after < floor:
            raise _too_old(after, floor)
        return after

    async def _next(self, watcher: _Watcher) -> Message | None:
        """Build the watcher's next message and move it; None: it has all, or nothing of what it read matches."""
        if watcher.cursor >= self._ring.head:
            return None
        key = watcher.cursor, watcher.service_events
        found = self._built.get(key) if watcher.matcher.everything else None
        if found is None:
            entries = await self._entries_after(watcher.cursor)
            matching = [entry for entry in entries if watcher.matches(entry.message)]
            found = entries[-1].revision, self._message(matching, entries[-1].revision)
            if watcher.matcher.everything and watcher.cursor >= self._ring.floor:
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

    def _message(self, entries: Sequence[Entry], revision: int) -> Message | None:
        if not entries:
            return None
        events = b"".join([embedded(_EVENTS, entry.data) for entry in entries])
        return Message(events + self._mark(revision).serialized)

    def _mark(self, revision: int, caught_up: bool = False) -> Message:
        mark = jobs_messages_pb2.WatchJobsResponse(
            revision=revision, store_id=self._store.store_id, caught_up=caught_up
        )
        return Message(mark.SerializeToString())

    def _sent(self, watcher: _Watcher, message: Message) -> Message:
        watcher.last_sent = _now()
        return message


def _now() -> float:
    return asyncio.get_running_loop().time()


def _too_old(revision: int, floor: int) -> Refused:
    return Refused(
        "REVISION_TOO_OLD",
        f"changes up to revision {floor} are no longer on record, and {revision} was asked for: list the jobs and "
        "watch from that list's revision",
        metadata={"oldest_revision": str(floor)},
    )
