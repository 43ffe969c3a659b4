"""What a command may do, and how what several commands did becomes one commit."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar, cast

from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.contract.codec import (
    basic_bytes,
    event_to_bytes,
    job_to_bytes,
    limits_to_message,
    own_waiting_bytes,
)
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import EventType
from edbjobs_server.store.errors import Duplicate
from edbjobs_server.store.flush import Statement, insert, run, select_in, with_many
from edbjobs_server.store.queries import QUERIES
from edbjobs_server.store.rows import job_of, row_of, whole
from edbjobs_server.store.values import Committed
from edbjobs_server.store.writer_state import State

T = TypeVar("T")
RequestKey = tuple[str, str]  # Principal.name and request_id
AGE_RATE = 24.0
_MISSING: Any = object()


class Transaction:
    """Changes of one commit; handed to one command after the other, in the writer's thread only.

    Nothing is written before all commands have run: what a command changes is kept in memory and taken back if
    it raises, so that a refused request costs the others nothing.

    Attributes
    ----------
    now : float
        Time of every change in this commit, seconds since the epoch.
    committed : list of Committed
        What the commands changed, in order of revision.
    """

    def __init__(self, connection: sqlite3.Connection, state: State, now: float) -> None:
        self.now = now
        self.committed: list[Committed] = []
        self._sql = connection
        self._state = state
        self._jobs: dict[str, Job | None] = {}  # changed here; None: deleted
        self._rows: dict[int, tuple[object, ...] | None] = {}  # by seq; None: deleted
        self._requests: dict[RequestKey, tuple[str, bytes]] = {}  # made or looked up here
        self._looked_up: set[str] = set()  # request_ids
        self._owners: dict[str, list[tuple[str, str]]] = {}  # uid and user of the jobs of an id, as looked up here
        self._new: dict[int, tuple[object, ...]] = {}  # by seq: what was inserted here, as rows of requests
        self._settings: dict[str, tuple[object, ...]] = {}  # queries that set one thing
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []

    @contextmanager
    def request_scope(self) -> Iterator[None]:
        """Take back all that the body did if it raises."""
        state = self._state
        kept = state.revision, state.last_seq, state.paused, state.limits
        events, undo = len(self.committed), len(self._undo)
        try:
            yield
        except BaseException:
            state.revision, state.last_seq, state.paused, state.limits = kept
            del self.committed[events:]
            while len(self._undo) > undo:
                mapping, key, value = self._undo.pop()
                if value is _MISSING:
                    mapping.pop(key, None)
                else:
                    mapping[key] = value
            raise

    def attempt(self, command: Callable[[Transaction], T]) -> T | Refused:
        """Run a command within a command; one that is refused leaves nothing behind."""
        try:
            with self.request_scope():
                return command(self)
        except Refused as refused:
            return refused

    def age_time(self) -> float:
        """Move on the clock that ages are measured by, and return it.

        It follows the clock of the system, but at most `AGE_RATE` times as fast as time goes by, and not at all
        while the service is off. So a clock that is set far ahead, even for a moment or over a restart, makes no
        record old; after a long stop the records of each day missed go in an hour.
        """
        state, mark = self._state, time.monotonic()
        state.age_time = min(self.now, state.age_time + (mark - state.age_mark) * AGE_RATE)
        state.age_mark = mark
        self._set(self._settings, "set_age_time", (state.age_time,))
        return state.age_time

    def look_up(self, request_ids: Iterable[str], ids: Iterable[str] = ()) -> None:
        """Look up many at once: requests, for commands that will ask `request`, and ids, for `owner`."""
        asked = set(request_ids) - self._looked_up
        self._looked_up |= asked
        for principal, request_id, uid, digest in select_in(self._sql, "requests_in", asked):
            self._requests[principal, request_id] = uid, digest  # type: ignore[index, assignment]
        wanted = set(ids) - self._owners.keys()
        self._owners.update((id, []) for id in wanted)
        for id, uid, user in select_in(self._sql, "owners_in", wanted):
            self._owners[id].append((uid, user))  # type: ignore[index, arg-type]

    def flush(self) -> None:
        """Write what all commands changed, in the transaction that is open, or in one of its own."""
        run(self._sql, list(self._statements()))

    def _statements(self) -> Iterator[Statement]:
        for query, values in self._settings.items():
            yield QUERIES[query], values
        yield from with_many("delete_jobs", [seq for seq, row in self._rows.items() if row is None])
        last = {item.job.seq: item.revision for item in self.committed if item.job is not None}
        changes, events = [], []
        for item in self.committed:
            row = self._rows[item.job.seq] if item.job is not None and last[item.job.seq] == item.revision else None
            if row is None:  # nothing of a job to write, or a later change has it
                uid = item.job.uid if item.job is not None else ""
                events.append((item.revision, item.time, item.type.value, uid, item.event))
            else:
                is_new = row[0] in self._new
                changes.append((*row, is_new, item.revision, item.time, item.type.value, item.event))
        yield from insert("write_changes", changes)
        yield from insert("insert_events", events)
        # A new job that is gone already is not among the changes; its request is remembered all the same.
        gone = [request for seq, request in self._new.items() if self._rows[seq] is None and request[1]]
        yield from insert("insert_requests", gone)
        if events:
            yield QUERIES["set_counters"], (self._state.revision, self._state.last_seq)

    @property
    def revision(self) -> int:
        """Newest revision given so far."""
        return self._state.revision

    @property
    def last_seq(self) -> int:
        """Newest number given to a job so far."""
        return self._state.last_seq

    @property
    def limits(self) -> Limits:
        """Limits in force."""
        return self._state.limits

    @property
    def generation(self) -> int:
        """How often the state was read again after a failed commit: see `Snapshot`."""
        return self._state.generation

    @property
    def paused(self) -> bool:
        """Whether the queue is paused."""
        return self._state.paused

    def job(self, uid: str) -> Job:
        """Find a job by its uid.

        Raises
        ------
        Refused
            JOB_NOT_FOUND.
        """
        return self.named(JobRef(uid=uid))

    def named(self, ref: JobRef) -> Job:
        """Find the job that a reference names.

        Raises
        ------
        Refused
            JOB_NOT_FOUND.
        """
        found = self.find(ref.uid) if ref.uid else self.newest(ref.id)
        if found is None:
            raise job_not_found(ref)
        return found

    def find(self, uid: str) -> Job | None:
        """Find a job by its uid; None if there is none."""
        live = self._state.jobs.get(uid)
        if live is not None:
            return live
        if uid in self._jobs:
            return self._jobs[uid]
        row = self._sql.execute(QUERIES["job_by_uid"], (uid,)).fetchone()
        return job_of(row) if row else None

    def newest(self, id: str) -> Job | None:
        """Find the newest job that has an id; None if there is none."""
        changed = [job for job in self._jobs.values() if job is not None and job.id == id]
        for row in self._sql.execute(QUERIES["jobs_by_id"], (id,)):
            job = job_of(row)
            if job.uid not in self._jobs:
                changed.append(job)
                break
        return max(changed, key=attrgetter("seq"), default=None)

    def owner(self, id: str) -> str | None:
        """Return the user whose jobs have an id; None: no job on record has it.

        All jobs that have an id are of one user, as a retry is of the user of the job that it retries.
        """
        live = self.live_id(id)
        if live is not None:
            return live.user
        self.look_up((), [id])
        for uid, user in self._owners[id]:
            if self._jobs.get(uid, _MISSING) is not None:
                return user
        return None

    def live_id(self, id: str) -> Job | None:
        """Find the job of this id that has not ended; None if there is none."""
        uid = self._state.uids.get(id)
        return None if uid is None else self._state.jobs[uid]

    def request(self, principal: str, request_id: str) -> tuple[str, bytes] | None:
        """Return the uid and the digest of what a caller's request made; the job may be gone by now."""
        key = principal, request_id
        if key not in self._requests:
            self.look_up([request_id])
        return self._requests.get(key)

    def insert(self, job: Job, type: EventType, principal: Principal | None = None, detail: str = "") -> Job:
        """Add a job; returns it with its `seq` and `revision`.

        Raises
        ------
        Duplicate
            If its request_id, or, among live jobs, its uid or id is taken. Nothing was written.
        """
        state = self._state
        if job.uid in state.jobs:
            raise Duplicate("uid", job.uid)
        if not job.state.terminal and job.id in state.uids:
            raise Duplicate("id", job.id)
        if job.request_id and self.request(job.requested_by, job.request_id) is not None:
            raise Duplicate("request_id", job.request_id)
        job = _numbered(job, state.last_seq + 1, state.revision + 1)
        self._set(self._new, job.seq, (job.seq, job.request_id, job.requested_by, job.uid, job.digest, self.now))
        self._change(job, type, principal, detail)
        state.last_seq = job.seq
        if job.id in self._owners:
            self._set(self._owners, job.id, [*self._owners[job.id], (job.uid, job.user)])
        if job.request_id:
            self._set(self._requests, (job.requested_by, job.request_id), (job.uid, job.digest))
        return job

    def message(self, job: Job) -> bytes:
        """Return a job as serialized ``JOB_VIEW_FULL``: what this commit writes of it, or else made anew."""
        row = self._rows.get(job.seq)
        if row is None or job.seq not in self._new:  # what the row of a change lacks never changes
            return job_to_bytes(job)
        rest, attempts, basic = cast("tuple[bytes, bytes, bytes]", row[-3:])
        return whole(basic, rest, attempts)

    def basic(self, job: Job) -> bytes:
        """Return a job as serialized ``JOB_VIEW_BASIC``: what this commit writes of it, or else made anew."""
        row = self._rows.get(job.seq)
        return basic_bytes(job) if row is None else cast(bytes, row[-1])

    def put(self, job: Job, type: EventType, principal: Principal | None = None, detail: str = "") -> Job:
        """Write a changed job; returns it with its new `revision`.

        What a job was accepted with (uid, id, user, configuration, request) never changes.

        Raises
        ------
        Refused
            JOB_NOT_FOUND, if it was deleted.
        """
        self._must_exist(job)
        job = _numbered(job, job.seq, self._state.revision + 1)
        self._change(job, type, principal, detail)
        return job

    def delete(self, job: Job, principal: Principal | None = None, detail: str = "") -> Job:
        """Remove a job's record; returns its last state, with the revision of the removal.

        Raises
        ------
        Refused
            JOB_NOT_FOUND, if it was deleted before.
        """
        self._must_exist(job)
        job = _numbered(job, job.seq, self._state.revision + 1)
        self._change(job, EventType.JOB_DELETED, principal, detail)
        return job

    def set_limits(self, limits: Limits, principal: Principal | None = None) -> None:
        """Put new limits in force."""
        old, self._state.limits = self._state.limits, limits
        self._set(self._settings, "set_limits", (limits_to_message(limits).SerializeToString(),))
        self._event(EventType.LIMITS_UPDATED, principal, "", limits=limits, old_limits=old)

    def set_paused(self, paused: bool, principal: Principal | None = None) -> None:
        """Pause or resume the queue; no event if it is so already."""
        if paused == self._state.paused:
            return
        self._state.paused = paused
        self._set(self._settings, "set_paused", (paused,))
        self._event(EventType.QUEUE_PAUSED if paused else EventType.QUEUE_RESUMED, principal, "")

    def note(self, type: EventType, detail: str, principal: Principal | None = None) -> None:
        """Record an event of the service that changes nothing by itself."""
        self._event(type, principal, detail)

    def ended_before(self, time: float, number: int) -> list[Job]:
        """List jobs that ended before a time, the oldest ends first, at most so many."""
        rows = self._sql.execute(QUERIES["ended_jobs"], (time, number)).fetchall()
        return [job for job in map(job_of, rows) if job.uid not in self._jobs]

    def count_ended(self) -> int:
        """Count the ended jobs that were on record when this commit started."""
        (number,) = self._sql.execute(QUERIES["count_ended"]).fetchone()
        return int(number)

    def oldest_events(self, number: int) -> list[tuple[int, float]]:
        """List revision and time of the oldest events in the log."""
        return self._sql.execute(QUERIES["oldest_events"], (number,)).fetchall()

    def cut_events(self, revision: int) -> None:
        """Cut the log from its beginning up to a revision."""
        self._set(self._settings, "delete_events", (revision,))
        self._set(self._settings, "set_floor", (revision,))

    def oldest_requests(self, number: int) -> list[tuple[int, float]]:
        """List number and time of the oldest requests on record."""
        return self._sql.execute(QUERIES["oldest_requests"], (number,)).fetchall()

    def forget_requests(self, number: int) -> None:
        """Forget requests from the oldest up to a number."""
        self._set(self._settings, "delete_requests", (number,))

    def _must_exist(self, job: Job) -> None:
        if job.uid in self._state.jobs:
            return
        if job.uid in self._jobs:
            exists = self._jobs[job.uid] is not None
        else:
            exists = self._sql.execute(QUERIES["message_by_uid"], (job.uid,)).fetchone() is not None
        if not exists:
            raise job_not_found(JobRef(uid=job.uid))

    def _change(self, job: Job, type: EventType, principal: Principal | None, detail: str) -> None:
        state = self._state
        before = state.jobs.get(job.uid, job)
        old_state = 0 if job.seq > state.last_seq else before.state.value
        basic = basic_bytes(job)
        deleted = type is EventType.JOB_DELETED
        row = None if deleted else row_of(job, basic, self._end_of(job), is_new=job.seq in self._new)
        self._set(self._rows, job.seq, row)
        self._set(self._jobs, job.uid, None if deleted else job)
        if not deleted and not job.state.terminal:
            self._set(state.jobs, job.uid, job)
            self._set(state.uids, job.id, job.uid)
        elif job.uid in state.jobs:
            self._set(state.jobs, job.uid, _MISSING)
            self._set(state.uids, job.id, _MISSING)
        self._event(type, principal, detail, job=job, message=basic + own_waiting_bytes(job), old_state=old_state)

    def _end_of(self, job: Job) -> float | None:
        """Return where the end of a job stands in the order of ends: a clock that was set back changes none of it."""
        if job.end_time is None or job.uid not in self._state.jobs:
            return job.end_time
        self._state.last_end = max(self._state.last_end, job.end_time)
        return self._state.last_end

    def _set(self, mapping: dict[Any, Any], key: object, value: object) -> None:
        """Change a mapping so that it can be undone."""
        self._undo.append((mapping, key, mapping.get(key, _MISSING)))
        if value is _MISSING:
            del mapping[key]
        else:
            mapping[key] = value

    def _event(
        self,
        type: EventType,
        principal: Principal | None,
        detail: str,
        *,
        job: Job | None = None,
        message: bytes = b"",
        old_state: int = 0,
        limits: Limits | None = None,
        old_limits: Limits | None = None,
    ) -> None:
        revision = self._state.revision = self._state.revision + 1
        event = event_to_bytes(
            revision,
            self.now,
            type,
            job=message,
            old_state=old_state,
            limits=limits,
            old_limits=old_limits,
            principal=principal,
            detail=detail,
        )
        self.committed.append(Committed(revision, self.now, type, event, job, limits, old_limits, principal, detail))


_FIELDS = tuple(item.name for item in fields(Job))
_values_of = attrgetter(*_FIELDS)
_SEQ, _REVISION = _FIELDS.index("seq"), _FIELDS.index("revision")


def _numbered(job: Job, seq: int, revision: int) -> Job:
    """Do as ``replace(job, seq=…, revision=…)``, in a third of the time: every change of a job passes here."""
    values = list(_values_of(job))
    values[_SEQ], values[_REVISION] = seq, revision
    return Job(*values)


def job_not_found(ref: JobRef) -> Refused:
    """Return the error for a job that is not on record."""
    name = f"uid {ref.uid}" if ref.uid else f"id {ref.id}"
    return Refused("JOB_NOT_FOUND", f"there is no job with the {name}; `edbjobs list` shows those there are")
