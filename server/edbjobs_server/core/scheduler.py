"""The scheduler: which jobs start now, and why the others wait.

`Core` holds the live jobs as they were last committed, and the starts that are planned but not committed yet.
It changes only by `apply`, so it can be rebuilt from the store at any moment.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from edbjobs_server.core.admission import Block, Need, Usage, fit_block, need_of, user_block
from edbjobs_server.core.gates import HostLoad, gate
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.queue import WaitingQueue
from edbjobs_server.core.states import State, Waiting

SETTLING_SECONDS = 60.0  # until a start shows in the host's averages


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job waits, and how many waiting jobs come before it."""

    reason: Waiting
    detail: str = ""
    before: int = 0


_NO_WAIT = Explanation(Waiting.NONE)


class Core:
    """Live jobs, what they hold, and what comes next.

    Parameters
    ----------
    host : Host
        What the host has.
    limits : Limits
        Limits in force.
    """

    def __init__(self, host: Host, limits: Limits) -> None:
        self.host = host
        self.limits = limits
        self.paused = False
        self.draining = False
        self.load: HostLoad | None = None
        self._clear()

    def _clear(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.usage = Usage()
        self._queue = WaitingQueue()
        self._held: dict[str, Need] = {}
        self._project_of: dict[str, str] = {}
        self._owner: dict[str, str] = {}
        self._planned: set[str] = set()
        self._deferred: dict[str, tuple[float, Block]] = {}
        self._timers: list[tuple[float, str]] = []
        self._recent: deque[tuple[float, int, int]] = deque()

    def reset(self, jobs: Iterable[Job], limits: Limits, paused: bool) -> None:
        """Begin anew from what is committed; planned starts are forgotten."""
        recent = self._recent
        self._clear()
        self._recent = recent
        self.limits, self.paused = limits, paused
        for job in jobs:
            self.apply(job)

    def apply(self, job: Job) -> None:
        """Take over a committed job."""
        uid = job.uid
        if uid in self._queue:
            self._queue.remove(uid)
        self._deferred.pop(uid, None)
        if job.state.terminal:
            self.jobs.pop(uid, None)
            self._planned.discard(uid)
            self._give_back(uid)
            return
        self.jobs[uid] = job
        if job.open_attempt is not None:
            self._planned.discard(uid)
            self._take(job)
        elif uid not in self._planned:
            self._give_back(uid)
            self._enqueue(job)

    def remove(self, uid: str) -> None:
        """Forget a job whose record was deleted."""
        if uid in self._queue:
            self._queue.remove(uid)
        self.jobs.pop(uid, None)
        self._planned.discard(uid)
        self._give_back(uid)

    def plan(self, now: float) -> list[Job]:
        """Choose the jobs to start now and hold what they need until `apply` or `release`.

        Parameters
        ----------
        now : float
            Seconds since the epoch.

        Returns
        -------
        list of Job
            In order of start.
        """
        self._wake_up(now)
        chosen: list[Job] = []
        if self.paused or self.draining:
            return chosen
        for lane in self._queue.lanes():
            for job in self._queue.candidates(lane, self._stands_aside):
                if self._shared_block(job, now) is not None:
                    break
                self._reserve(job, now)
                chosen.append(job)
        return chosen

    def release(self, uid: str) -> None:
        """Give back what a planned start held: it did not come about."""
        if uid in self._planned:
            self._planned.discard(uid)
            self._give_back(uid)
            if uid in self.jobs:
                self._enqueue(self.jobs[uid])

    def defer(self, uid: str, until: float, block: Block) -> None:
        """Take back a planned start and leave the job alone until a time."""
        if uid in self._planned:
            self._planned.discard(uid)
            self._give_back(uid)
            self._deferred[uid] = (until, block)
            self._enqueue(self.jobs[uid])

    def next_wake(self) -> float | None:
        """Tell when something that waits for a time comes due."""
        return self._timers[0][0] if self._timers else None

    def explain(self, uid: str, now: float) -> Explanation:
        """Tell why a live job is not running, or not ended."""
        job = self.jobs.get(uid)
        if job is None:
            return _NO_WAIT
        if job.unkillable:
            pids = ", ".join(str(pid) for pid in job.unkillable)
            return Explanation(Waiting.UNKILLABLE, f"these processes cannot be ended: {pids}")
        if job.cancel_time is not None:
            return Explanation(Waiting.CANCELLING, "its processes are being ended")
        if job.state is not State.QUEUED:
            return _NO_WAIT
        if uid not in self._queue:
            return Explanation(Waiting.STARTING, "its resources are reserved and it is being started")
        block = self._own_block(job, now) or self._queue_block(job, now)
        return Explanation(block.reason, block.detail, self._queue.before(uid))

    def counts(self) -> dict[str, int]:
        """Count live jobs: waiting, held, running (starting included), scheduled."""
        waiting = list(self._queue.jobs())
        scheduled = sum(1 for job in self.jobs.values() if job.state is State.SCHEDULED)
        return {
            "queued": len(waiting),
            "held": sum(1 for job in waiting if job.held),
            "running": len(self._held) - scheduled,
            "scheduled": scheduled,
        }

    def queued_by_priority(self) -> dict[int, int]:
        """Count the waiting jobs of each priority."""
        result: dict[int, int] = {}
        for job in self._queue.jobs():
            result[job.priority] = result.get(job.priority, 0) + 1
        return result

    def gate_block(self, now: float) -> Block | None:
        """Tell whether the host's load lets nothing start now."""
        while self._recent and self._recent[0][0] <= now - SETTLING_SECONDS:
            self._recent.popleft()
        cores = sum(entry[1] for entry in self._recent)
        memory = sum(entry[2] for entry in self._recent)
        found = gate(self.limits, self.load, cores, memory)
        return Block(found.reason, found.detail) if found is not None else None

    # Reservations ----------------------------------------------------------------------------------------

    def _reserve(self, job: Job, now: float) -> None:
        self._queue.remove(job.uid)
        self._planned.add(job.uid)
        self._take(job)
        need = self._held[job.uid]
        if need.local:
            self._recent.append((now, need.cores, need.memory_mib))

    def _take(self, job: Job) -> None:
        if job.uid in self._held:
            return
        need = need_of(job, self.host)
        self._held[job.uid] = need
        self.usage.add(need)
        key = job.spec.project_key
        self._project_of[job.uid] = key
        self._owner[key] = job.uid
        self._queue.take_project(key)

    def _give_back(self, uid: str) -> None:
        need = self._held.pop(uid, None)
        if need is not None:
            self.usage.add(need, -1)
            key = self._project_of.pop(uid)
            del self._owner[key]
            self._queue.free_project(key)

    # Waiting ---------------------------------------------------------------------------------------------

    def _enqueue(self, job: Job) -> None:
        until = max(job.not_before, self._deferred.get(job.uid, (0.0,))[0])
        self._queue.add(job, eligible=not job.held and not until)
        if until:
            heapq.heappush(self._timers, (until, job.uid))

    def _wake_up(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, uid = heapq.heappop(self._timers)
            job = self.jobs.get(uid)
            if job is None or uid not in self._queue:
                continue
            if self._deferred.get(uid, (0.0,))[0] <= now:
                self._deferred.pop(uid, None)
            if not job.held and job.not_before <= now and uid not in self._deferred:
                self._queue.enable(uid)

    # Blocks ----------------------------------------------------------------------------------------------

    def _stands_aside(self, job: Job) -> bool:
        need = need_of(job, self.host)
        if user_block(need, self.usage, self.limits) is not None:
            return True
        block = fit_block(need, self.usage, self.limits, self.host)
        return block is not None and block.own

    def _shared_block(self, job: Job, now: float) -> Block | None:
        need = need_of(job, self.host)
        block = fit_block(need, self.usage, self.limits, self.host)
        if block is None and need.local:
            block = self.gate_block(now)
        return block

    def _own_block(self, job: Job, now: float) -> Block | None:
        """Tell what of its own a waiting job waits for."""
        if job.held:
            return Block(Waiting.HELD, "held; release it to let it start", own=True)
        if job.not_before > now:
            if job.backing_off:
                return Block(Waiting.BACK_OFF, job.message, own=True)
            return Block(Waiting.NOT_BEFORE, f"not before {_utc(job.not_before)}", own=True)
        deferred = self._deferred.get(job.uid)
        if deferred is not None:
            return deferred[1]
        owner = self._owner.get(job.spec.project_key)
        if owner is not None:
            name = self.jobs[owner].id
            return Block(Waiting.PROJECT_BUSY, f"job {name} works on the same project", own=True)
        need = need_of(job, self.host)
        block = user_block(need, self.usage, self.limits)
        if block is None:
            block = fit_block(need, self.usage, self.limits, self.host)
        return block if block is not None and block.own else None

    def _queue_block(self, job: Job, now: float) -> Block:
        """Tell what a waiting job waits for together with others."""
        if self.draining:
            return Block(Waiting.DRAINING, "the service is stopping; jobs start again when it comes back")
        if self.paused:
            return Block(Waiting.QUEUE_PAUSED, "the queue is paused")
        first = next(self._queue.candidates(job.spec.executor, self._stands_aside), None)
        if first is None or first.uid == job.uid:
            return self._shared_block(job, now) or Block(Waiting.STARTING, "it is next")
        block = self._shared_block(first, now)
        reason = f", which waits: {block.detail}" if block is not None else ""
        return Block(Waiting.JOBS_BEFORE, f"behind job {first.id}{reason}")


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
