"""What of live jobs changes without an event: their progress and waiting reasons, once a second for all watchers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
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
    round : int
        The round in which it became so.
    data : bytes
        Serialized field of a message.
    """

    job: Job
    message: job_pb2.Job
    key: tuple[object, ...]
    round: int
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
        self._latest: dict[str, _Update] = {}
        self._changed: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=KEPT_ROUNDS)
        self._round = 0
        self._feeds: set[Feed] = set()
        self._task: asyncio.Task[None] | None = None
        self._fresh: asyncio.Future[None] | None = None

    def feed(self, matcher: JobMatcher) -> Feed:
        """Return a source of updates for one watcher."""
        return Feed(self, matcher)

    async def attach(self, feed: Feed) -> None:
        """Compute updates from now on; when it returns, those there are now have been."""
        self._feeds.add(feed)
        if self._task is None:
            self._fresh = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(keep_running("computing updates of jobs", self._run), name="job updates")
        if self._fresh is not None:
            await asyncio.shield(self._fresh)

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
        if self._fresh is not None and not self._fresh.done():
            self._fresh.set_result(None)
        self._fresh = None
        self._latest.clear()
        self._changed.clear()

    @property
    def latest(self) -> Mapping[str, _Update]:
        """The last update of each job that has any, by uid."""
        return self._latest

    @property
    def round(self) -> int:
        """Number of the last round with changes."""
        return self._round

    def changed_since(self, round: int) -> Iterable[str]:
        """Return the uids whose update may be newer than a round."""
        if not self._changed or self._changed[0][0] > round + 1:
            return self._latest
        return dict.fromkeys(uid for number, uids in self._changed if number > round for uid in uids)

    def is_current(self, update: _Update) -> bool:
        """Return whether a job has not changed since its update was made: else the next round makes another."""
        return self._core.jobs.get(update.job.uid) is update.job

    async def _run(self) -> None:
        while True:
            await self._compute()
            if self._fresh is not None and not self._fresh.done():
                self._fresh.set_result(None)
            await asyncio.sleep(PERIOD_SECONDS)

    async def _compute(self) -> None:
        changed: list[str] = []
        for number, uid in enumerate([*self._core.jobs], 1):
            job = self._core.jobs.get(uid)
            if job is not None and self._look_at(job, self._round + 1):
                changed.append(uid)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        for uid in self._latest.keys() - self._core.jobs.keys():
            del self._latest[uid]
        if changed:
            self._round += 1
            self._changed.append((self._round, tuple(changed)))
            self._wake()

    def _look_at(self, job: Job, round: int) -> bool:
        """Make the update of a job, if there is another one than the last."""
        known = self._latest.get(job.uid)
        progress = self._reasons.progress_of(job)
        why = self._reasons.why(job, progress)
        if known is None and not _has_updates(job, why):
            return False
        written = progress.SerializeToString(deterministic=True) if progress is not None else b""
        key = (job.revision, written, why.reason, why.detail, why.next_attempt_time)
        if known is not None and known.key == key:
            return False
        update = jobs_messages_pb2.JobUpdate(uid=job.uid, attempt=job.attempt_count, progress=progress)
        if why.reason is not None:
            update.waiting.CopyFrom(
                waiting_to_message(why.reason, why.detail, why.before, next_attempt_time=why.next_attempt_time)
            )
        same = known is not None and known.job is job
        message = known.message if same and known is not None else job_pb2.Job.FromString(basic_bytes(job))
        data = embedded(_UPDATES, update.SerializeToString())
        self._latest[job.uid] = _Update(job, message, key, round, data)
        return True


class Feed:
    """Updates for one watcher: it keeps the round that it has, and nothing else."""

    def __init__(self, updates: JobUpdates, matcher: JobMatcher) -> None:
        self._updates = updates
        self._matcher = matcher
        self._round = 0
        self._rest: list[str] = []  # found in a round, and not sent yet as the message was full

    async def open(self) -> None:
        """Make all updates that there are now new to the watcher."""
        await self._updates.attach(self)
        self._rest = [*self._updates.latest]
        self._round = self._updates.round

    def take(self) -> bytes:
        """Return what is new, as serialized fields of ``WatchJobsResponse``; empty: nothing."""
        if self._round < self._updates.round:
            self._rest = [*dict.fromkeys([*self._rest, *self._updates.changed_since(self._round)])]
            self._round = self._updates.round
        taken: list[bytes] = []
        size = number = 0
        while number < len(self._rest) and size < MAX_BYTES:
            uid, number = self._rest[number], number + 1
            update = self._updates.latest.get(uid)
            if update is None or not self._updates.is_current(update) or not self._matcher(update.message):
                continue
            taken.append(update.data)
            size += len(update.data)
        del self._rest[:number]
        return b"".join(taken)

    def close(self) -> None:
        """Need no more updates."""
        self._updates.detach(self)


def _has_updates(job: Job, why: Explanation) -> bool:
    """Return whether a job runs, is with a scheduler, or waits for something of its own."""
    if job.state is not State.QUEUED:
        return True
    return why.reason is not None and why.reason not in _OF_THE_QUEUE
