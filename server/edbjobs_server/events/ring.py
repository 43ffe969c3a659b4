"""The newest events, in memory: what most watchers read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edbjobs.v1 import event_pb2, job_pb2, job_state_pb2

from edbjobs_server.events.changes import job_before
from edbjobs_server.store.filters import JobMatcher

MAX_EVENTS = 8_192
MAX_BYTES = 8 * 1024 * 1024


class Entry:
    """One event, parsed when the first watcher has to look into it.

    Attributes
    ----------
    revision : int
        Its revision.
    data : bytes
        Serialized ``edbjobs.v1.WatchEvent``.
    """

    __slots__ = ("_before", "_message", "data", "revision")

    def __init__(self, revision: int, data: bytes) -> None:
        self.revision = revision
        self.data = data
        self._message: event_pb2.WatchEvent | None = None
        self._before: job_pb2.Job | None = None

    @property
    def message(self) -> event_pb2.WatchEvent:
        """The event; shared, so not to be changed."""
        if self._message is None:
            self._message = event_pb2.WatchEvent.FromString(self.data)
        return self._message

    def agreed_before(self, matcher: JobMatcher) -> bool:
        """Return whether the job agreed with a filter before the change; one that was accepted by it did not."""
        change = self.message.job_change
        if change.old_state == job_state_pb2.JOB_STATE_UNSPECIFIED:
            return False
        if not matcher.looks_at_changes and change.type != event_pb2.JOB_CHANGE_TYPE_SUPERSEDED:
            return matcher(change.job)
        if self._before is None:
            self._before = job_before(change)
        return matcher(self._before)

    def agrees_after(self, matcher: JobMatcher) -> bool:
        """Return whether the job agrees with a filter after the change; a deleted one does not."""
        change = self.message.job_change
        return change.type != event_pb2.JOB_CHANGE_TYPE_DELETED and matcher(change.job)


class Ring:
    """Events without a gap up to `head`, bounded in number and bytes.

    Parameters
    ----------
    head : int
        Newest revision; events start after it.
    """

    def __init__(self, head: int) -> None:
        self.head = head
        self._entries: list[Entry] = []
        self._bytes = 0

    @property
    def floor(self) -> int:
        """Events up to here are not in memory."""
        return self.head - len(self._entries)

    def append(self, events: Iterable[tuple[int, bytes]]) -> None:
        """Add the next events; after a gap the older ones are dropped."""
        for revision, data in events:
            if revision != self.head + 1:
                self.clear(revision - 1)
            self._entries.append(Entry(revision, data))
            self._bytes += len(data)
            self.head = revision
        self._trim()

    def clear(self, head: int) -> None:
        """Start again after a revision."""
        self._entries.clear()
        self._bytes = 0
        self.head = head

    def after(self, revision: int, limit: int, max_bytes: int) -> Sequence[Entry]:
        """List events after a revision that is not below `floor`; at least one if there is any."""
        start = revision - self.floor
        found = self._entries[start : start + limit]
        for index, entry in enumerate(found):
            max_bytes -= len(entry.data)
            if max_bytes < 0 and index:
                return found[:index]
        return found

    def _trim(self) -> None:
        if len(self._entries) <= MAX_EVENTS and self._bytes <= MAX_BYTES:
            return
        # A quarter at once, so that the list is not moved for every event.
        drop = 0
        while len(self._entries) - drop > MAX_EVENTS * 3 // 4 or self._bytes > MAX_BYTES * 3 // 4:
            self._bytes -= len(self._entries[drop].data)
            drop += 1
        del self._entries[:drop]
