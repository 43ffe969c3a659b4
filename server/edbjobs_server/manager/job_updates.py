"""What of live jobs changes without an event: their progress and waiting reasons, once a second for all watchers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edbjobs.v1 import job_pb2, jobs_messages_pb2

from edbjobs_server.contract.codec import basic_bytes, embedded, waiting_to_message
from edbjobs_server.core.job import Job
from edbjobs_server.core.planner import Explanation, Planner
from edbjobs_server.core.states import State, Waiting
from edbjobs_server.manager.waiting_reasons import WaitingReasons
from edbjobs_server.store.filters import JobMatcher
from edbjobs_server.util.keep_running import keep_running

PERIOD_SECONDS = 1.0
SLICE = 200  # jobs that are looked at between two iterations of the event loop
MAX_BYTES = 1024 * 1024  # of the updates in one message
KEPT_ROUNDS = 64  # a watcher that has missed more looks through all jobs
MAX_BUILT = 64  # messages kept for other watchers at the same place
_UPDATES = jobs_messages_pb2.WatchJobsResponse.UPDATES_FIELD_NUMBER
# Reasons that come from the jobs before a job: they change with each start, for all that wait.
_OF_THE_QUEUE = frozenset({Waiting.JOBS_BEFORE, Waiting.JOB_LIMIT, Waiting.CORES, Waiting.MEMORY})


@dataclass(slots=True)
class _Update:
    """The last update of a job.

    Attributes
    ----------
    job : Job
        As it was then.
    message : edbjobs.v1.Job
        The same, as filters look at it.
    key : tuple
        What makes it another one: all of it but the number of jobs before, and each change of the job.
    own : bool
        The job runs, is with a scheduler or waits for something of its own: new watchers get it.
    data : bytes
        Serialized field of a message.
    """

    job: Job
    message: job_pb2.Job
    key: tuple[object, ...]
    own: bool
    data: bytes


class JobUpdates:
    """Computes the updates while anybody wants them.

    Parameters
    ----------
    core : Planner
        Source of the live jobs.
    reasons : WaitingReasons
        Source of progress and reasons.
    wake : callable
        Called after a round with changes.
    """

    def __init__(self, core: Planner, reasons: WaitingReasons, wake: Callable[[], None]) -> None:
        self._core = core
        self._reasons = reasons
        self._wake = wake
        self.latest: dict[str, _Update] = {}  # by uid
        self.round = 0  # number of the last one with changes; 0: none has ended yet
        self.built: dict[tuple[bytes, int, int], bytes] = {}  # by filter, round and revision of a watcher
        self._changed: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=KEPT_ROUNDS)
        self._feeds: set[Feed] = set()
        self._task: asyncio.Task[None] | None = None

    def feed(self, matcher: JobMatcher, selected: bytes) -> Feed:
        """Return a source of updates for one watcher; `selected` is its filter, serialized."""
        return Feed(self, matcher, selected)

    def attach(self, feed: Feed) -> None:
        """Compute updates from now on."""
        self._feeds.add(feed)
        if self._task is None:
            self._task = asyncio.create_task(keep_running("computing updates of jobs", self._run), name="job updates")

    def detach(self, feed: Feed) -> None:
        """Compute none any more, if this was the last who wanted them."""
        self._feeds.discard(feed)
        if not self._feeds:
            self.close()

    def close(self) -> None:
        """Stop computing."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.round = 0
        self.latest.clear()
        self.built.clear()
        self._changed.clear()

    def changed_since(self, round: int) -> list[str]:
        """Return the uids whose update is newer than a round; after round 0, those that a new watcher gets."""
        if not round:
            return [uid for uid, update in self.latest.items() if update.own]
        if not self._changed or self._changed[0][0] > round + 1:
            return [*self.latest]
        return [*dict.fromkeys(uid for number, uids in self._changed if number > round for uid in uids)]

    def is_current(self, update: _Update) -> bool:
        """Return whether a job has not changed since its update was made: else the next round makes another."""
        return self._core.jobs.get(update.job.uid) is update.job

    async def _run(self) -> None:
        while True:
            await self._compute()
            await asyncio.sleep(PERIOD_SECONDS)

    async def _compute(self) -> None:
        changed: dict[str, _Update] = {}
        for number, uid in enumerate([*self._core.jobs], 1):
            job = self._core.jobs.get(uid)
            update = self._next_update(job) if job is not None else None
            if update is not None:
                changed[uid] = update
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self.latest.update(changed)
        for uid in self.latest.keys() - self._core.jobs.keys():
            del self.latest[uid]
        if changed or not self.round:
            self.round += 1
            self.built.clear()
            self._changed.append((self.round, tuple(changed)))
            self._wake()

    def _next_update(self, job: Job) -> _Update | None:
        """Return the update of a job, if it is another one than the last."""
        known = self.latest.get(job.uid)
        progress = self._reasons.progress_of(job)
        why = self._reasons.why(job, progress)
        own = _is_own(job, why)
        # That a job waits for its turn again is sent, how it gets on in the queue is not.
        if not own and (known is None or (known.job is job and not known.own)):
            return None
        written = progress.SerializeToString(deterministic=True) if progress is not None else b""
        key = (job.revision, written, why.reason, why.detail, why.next_attempt_time)
        if known is not None and known.key == key:
            return None
        update = jobs_messages_pb2.JobUpdate(uid=job.uid, progress=progress)
        if job.open_attempt is not None:
            update.attempt = job.open_attempt.number
        if why.reason is not None:
            update.waiting.CopyFrom(
                waiting_to_message(why.reason, why.detail, why.before, next_attempt_time=why.next_attempt_time)
            )
        same = known is not None and known.job is job
        message = known.message if same and known is not None else job_pb2.Job.FromString(basic_bytes(job))
        data = embedded(_UPDATES, update.SerializeToString())
        return _Update(job, message, key, own, data)


class Feed:
    """Updates for one watcher: it keeps the round that it has, and what of that did not fit into a message."""

    def __init__(self, updates: JobUpdates, matcher: JobMatcher, selected: bytes) -> None:
        self._updates = updates
        self._matcher = matcher
        self._selected = selected
        self._round = 0
        self._rest: list[str] = []

    def open(self) -> None:
        """Compute updates from now on, all of which are new to the watcher."""
        self._updates.attach(self)

    def take(self, revision: int) -> bytes:
        """Return what is new at a place, as serialized fields of ``WatchJobsResponse``; empty: nothing."""
        updates = self._updates
        if self._rest:
            if self._round < updates.round:
                self._rest = [*dict.fromkeys([*self._rest, *updates.changed_since(self._round)])]
                self._round = updates.round
            return self._fill()
        if self._round == updates.round:
            return b""
        key = (self._selected, self._round, revision)
        built = updates.built.get(key)
        if built is None:
            self._rest = updates.changed_since(self._round)
            built = self._fill()
            if not self._rest:
                updates.built[key] = built
                if len(updates.built) > MAX_BUILT:
                    del updates.built[next(iter(updates.built))]  # the oldest
        self._round = updates.round
        return built

    def _fill(self) -> bytes:
        """Take what fits into a message."""
        taken: list[bytes] = []
        size = number = 0
        while number < len(self._rest) and size < MAX_BYTES:
            update = self._updates.latest.get(self._rest[number])
            number += 1
            if update is None or not self._updates.is_current(update) or not self._matcher(update.message):
                continue
            taken.append(update.data)
            size += len(update.data)
        del self._rest[:number]
        return b"".join(taken)

    def close(self) -> None:
        """Need no more updates."""
        self._updates.detach(self)


def _is_own(job: Job, why: Explanation) -> bool:
    """Return whether a job runs, is with a scheduler, or waits for something of its own."""
    if job.state is not State.QUEUED:
        return True
    return why.reason is not None and why.reason not in _OF_THE_QUEUE
