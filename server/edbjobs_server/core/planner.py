"""The scheduler: which jobs start now, and why the others wait.

`Planner` holds the live jobs as they were last committed, and the starts that are planned but not committed yet.
Its jobs change only by `apply`, so it can be rebuilt from the store at any moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from edbjobs_server.core.admission import (
    Block,
    Need,
    Usage,
    claim_block,
    fit_block,
    need_of,
    user_block,
    zero_limit_text,
)
from edbjobs_server.core.deadlines import Deadlines, RecentStarts
from edbjobs_server.core.gates import HostLoad, gate
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.own_wait import STARTING, own_wait
from edbjobs_server.core.queue import WaitingQueue
from edbjobs_server.core.states import State, Waiting


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job waits.

    Attributes
    ----------
    reason : Waiting or None
        None: nothing keeps it from starting or ending.
    before : int or None
        Number of waiting jobs that come before it; None: order does not matter.
    next_attempt_time : float
        It is not tried before this time, seconds since the epoch; 0: no such time.
    """

    reason: Waiting | None
    detail: str = ""
    before: int | None = None
    next_attempt_time: float = 0.0


LONGEST_DEFERRAL = 60.0  # seconds for which a planned start is put off at most
_NO_WAIT = Explanation(None)


class Planner:
    """Plans the starts of live jobs, and explains why the others wait.

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
        self.generation = 0
        self.draining = False
        self.now = 0.0  # of the last plan; 0: not known
        self.store_error = ""  # why nothing can be written now, so that nothing may start
        self.load: HostLoad | None = None
        self.unreachable: dict[str, str] = {}  # executor to why it takes no jobs now: its scheduler does not respond
        self._clear()

    def _clear(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.usage = Usage()
        self._queue = WaitingQueue()
        self._held: dict[str, Need] = {}
        self._working: dict[str, list[str]] = {}  # project to the jobs that run on it
        self._planned: set[str] = set()
        self._scheduled: set[str] = set()
        self._gone: set[str] = set()  # of those in _held: nothing but the project, as the run's processes are gone
        self._troubles: dict[str, Block] = {}  # why a run cannot be followed, or its end not be recorded
        self._deferred: dict[str, Block] = {}
        self._timers = Deadlines()
        self._settling = RecentStarts()
        self._firsts_cache: tuple[int, Limits, list[Job]] | None = None

    def reset(self, jobs: Iterable[Job], limits: Limits, paused: bool, generation: int = 0) -> None:
        """Start again from the committed jobs; planned starts of an older generation are void."""
        self._clear()
        self.generation = generation
        self.limits, self.paused = limits, paused
        for job in jobs:
            self.apply(job)

    def apply(self, job: Job) -> None:
        """Replace a job by its committed version."""
        uid = job.uid
        if job.state is State.QUEUED and uid not in self.jobs and not job.attempts:  # as most are: it is new
            self.jobs[uid] = job
            self._enqueue(job)
            return
        if job.state.terminal:
            self.remove(uid)
            return
        self._dequeue(uid)
        self.jobs[uid] = job
        if job.state is State.SCHEDULED:
            self._scheduled.add(uid)
        else:
            self._scheduled.discard(uid)
        attempt = job.open_attempt
        if attempt is not None:
            self._planned.discard(uid)
            self._take(job, attempt.reserve_time if attempt.start_time is None else attempt.start_time)
        elif uid not in self._planned:
            self._troubles.pop(uid, None)
            self._give_back(uid)
            self._enqueue(job)

    def remove(self, uid: str) -> None:
        """Remove a job that ended, or whose record was deleted."""
        self._dequeue(uid)
        self._planned.discard(uid)
        self._scheduled.discard(uid)
        self._troubles.pop(uid, None)
        self._give_back(uid)
        self.jobs.pop(uid, None)

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
        if now < self.now:
            self._shorten_waits(now)
        self.now = now
        self._wake_up(now)
        chosen: list[Job] = []
        if self.paused or self.draining or self.store_error:
            return chosen
        stopped: set[str] = set()
        claims: dict[str, str] = {}
        for job in self._queue.candidates(self._stands_aside, stopped):
            if self._turn_block(job, now, claims) is None:
                self._reserve(job, now)
                chosen.append(job)
            else:
                stopped.add(job.spec.scheduler)
        return chosen

    def release(self, uid: str) -> None:
        """Release what a planned start held; the run was not started."""
        if uid in self._planned:
            self._planned.discard(uid)
            self._give_back(uid)
            self._enqueue(self.jobs[uid])

    def defer(self, uid: str, until: float, block: Block) -> None:
        """Release a planned start and do not plan the job again before a time."""
        if uid in self._planned:
            self._planned.discard(uid)
            self._give_back(uid)
            self._deferred[uid] = block
            self._enqueue(self.jobs[uid], until)

    def run_gone(self, uid: str) -> None:
        """Release what a run held but its project: its processes are gone, its end is not committed yet."""
        need = self._held.get(uid)
        if need is not None and uid not in self._gone:
            self._gone.add(uid)
            self._settling.discard(uid)
            self.usage.add(need, -1)
            self._firsts_cache = None

    def set_trouble(self, uid: str, block: Block | None) -> None:
        """Set why a run cannot be followed, or why its end is not recorded yet; None: nothing is wrong."""
        if block is None:
            self._troubles.pop(uid, None)
        elif uid in self._held:
            self._troubles[uid] = block

    def trouble(self, uid: str) -> Explanation | None:
        """Return why a run cannot be followed, or why its end is not recorded yet."""
        block = self._troubles.get(uid)
        return None if block is None else Explanation(block.reason, block.detail)

    def next_wake(self) -> float | None:
        """Return the next time at which a job that waits for a time comes due."""
        return self._timers.first()

    def explain(self, uid: str, now: float) -> Explanation:
        """Return why a live job is not running, or not ended."""
        job = self.jobs.get(uid)
        if job is None:
            return _NO_WAIT
        trouble = self.trouble(uid) if not job.unkillable else None
        if trouble is not None:
            return trouble
        if uid not in self._queue:
            planned = job.state is State.QUEUED and job.open_attempt is None
            block = STARTING if planned else own_wait(job)
            return _NO_WAIT if block is None else Explanation(block.reason, block.detail)
        block = self._own_block(job, now) or self._queue_block(job, now)
        until = job.next_attempt_time if block.reason in (Waiting.BACK_OFF, Waiting.NOT_BEFORE) else 0.0
        return Explanation(block.reason, block.detail, self._queue.before(uid), until)

    def running(self) -> list[Job]:
        """Return the jobs that hold resources now: their attempt is open, or their start is planned."""
        return [self.jobs[uid] for uid in self._held]

    def counts(self) -> dict[str, int]:
        """Count live jobs by state; of the queued ones those that are held, and those that are being started."""
        states = Counter(self.jobs[uid].state for uid in self._held)
        starting = states[State.QUEUED]
        return {
            "queued": len(self._queue) + starting,
            "held": self._queue.held,
            "starting": starting,
            "scheduled": states[State.SCHEDULED],
            "running": states[State.RUNNING],
        }

    def waiting_by_priority(self) -> dict[int, int]:
        """Count the waiting jobs of each priority, without those that are being started."""
        return dict(self._queue.priorities)

    def queued_by_priority(self) -> dict[int, int]:
        """Count the queued jobs of each priority."""
        held = (self.jobs[uid] for uid in self._held)
        starting = Counter(job.priority for job in held if job.state is State.QUEUED)
        return dict(self._queue.priorities + starting)

    def blocked_text(self, now: float) -> str:
        """Return why nothing starts on this host at present, as a sentence; empty: jobs start."""
        block = self._service_block() or self.gate_block(now)
        return block.detail if block is not None else zero_limit_text(self.limits)

    def gate_block(self, now: float) -> Block | None:
        """Return the gate that keeps local runs from starting now."""
        self._settling.expire(now)
        found = gate(self.limits, self.load, self._settling.cores, self._settling.memory_bytes)
        return Block(found.reason, found.detail) if found is not None else None

    # Reservations ----------------------------------------------------------------------------------------

    def _reserve(self, job: Job, now: float) -> None:
        self._dequeue(job.uid)
        self._planned.add(job.uid)
        self._take(job, now)

    def _take(self, job: Job, start_time: float) -> None:
        if job.uid in self._gone:
            return
        need = need_of(job, self.host)
        if need.local:
            self._settling.add(job.uid, start_time, need)
        if job.uid in self._held:
            return
        self._held[job.uid] = need
        self.usage.add(need)
        self._working.setdefault(job.spec.project_key, []).append(job.uid)
        self._queue.take_project(job.spec.project_key)

    def _give_back(self, uid: str) -> None:
        need = self._held.pop(uid, None)
        if need is None:
            return
        if uid in self._gone:
            self._gone.discard(uid)
        else:
            self._settling.discard(uid)
            self.usage.add(need, -1)
        key = self.jobs[uid].spec.project_key
        self._working[key].remove(uid)
        if not self._working[key]:
            del self._working[key]
            self._queue.free_project(key)

    # Waiting ---------------------------------------------------------------------------------------------

    def _enqueue(self, job: Job, until: float = 0.0) -> None:
        until = max(job.next_attempt_time, until)
        if job.backing_off and self.now:  # the clock may have been set back since it was written
            until = min(until, self.now + _longest_back_off(job))
        self._queue.add(job, need_of(job, self.host), eligible=not job.held and not until)
        if until:
            self._timers.set(job.uid, until)

    def _dequeue(self, uid: str) -> None:
        if uid in self._queue:
            self._queue.remove(uid)
            self._timers.drop(uid)
            self._deferred.pop(uid, None)

    def _wake_up(self, now: float) -> None:
        for uid in self._timers.pop_due(now):
            self._deferred.pop(uid, None)
            if not self.jobs[uid].held:
                self._queue.enable(uid)

    def _shorten_waits(self, now: float) -> None:
        """Limit the service's own delays to their maximum, as the clock may have been set back."""
        for uid, until in self._timers.items():
            job = self.jobs[uid]
            if uid in self._deferred:
                longest = LONGEST_DEFERRAL
            elif job.backing_off:
                longest = _longest_back_off(job)
            else:  # a time that the user has set
                continue
            self._timers.set(uid, min(until, now + longest))

    # Blocks ----------------------------------------------------------------------------------------------

    def _stands_aside(self, need: Need) -> bool:
        if user_block(need, self.usage, self.limits) is not None:
            return True
        block = fit_block(need, self.usage, self.limits, self.host)
        return block is not None and block.own

    def _turn_block(self, job: Job, now: float, claims: dict[str, str]) -> Block | None:
        """Return what a job at the head of the queue waits for; `claims` collects the licenses kept for such jobs."""
        unreachable = self.unreachable.get(job.spec.scheduler)
        if unreachable is not None:
            return Block(Waiting.SCHEDULER_UNREACHABLE, unreachable)
        need = self._queue.need(job.uid)
        block = fit_block(need, self.usage, self.limits, self.host) or claim_block(need, claims)
        if block is not None and block.reason is Waiting.LICENSES:
            for feature, _ in need.licenses:
                if feature in self.limits.licenses:
                    claims.setdefault(feature, job.id)
        if block is None and need.local:
            block = self.gate_block(now)
        return block

    def _firsts(self) -> list[Job]:
        """Return the first candidate of each executor, in order; cached until something changes."""
        known, version = self._firsts_cache, self._queue.version
        if known is not None and known[0] == version and known[1] is self.limits:
            return known[2]
        stopped: set[str] = set()
        found: list[Job] = []
        for job in self._queue.candidates(self._stands_aside, stopped):
            stopped.add(job.spec.scheduler)
            found.append(job)
        self._firsts_cache = (version, self.limits, found)
        return found

    def _own_block(self, job: Job, now: float) -> Block | None:
        """Return what only this job waits for, such as its hold or its project."""
        if job.held or job.next_attempt_time > now:
            return own_wait(job)
        deferred = self._deferred.get(job.uid)
        if deferred is not None:
            return deferred
        working = self._working.get(job.spec.project_key)
        if working:
            name = self.jobs[working[0]].id
            return Block(Waiting.PROJECT_BUSY, f"job {name} works on the same project", own=True)
        need = self._queue.need(job.uid)
        block = user_block(need, self.usage, self.limits)
        if block is None:
            block = fit_block(need, self.usage, self.limits, self.host)
        return block if block is not None and block.own else None

    def _service_block(self) -> Block | None:
        """Return why the service starts no job at all."""
        if self.draining:
            return Block(Waiting.DRAINING, "the service is stopping; jobs start again when it comes back")
        if self.store_error:
            text = f"the state folder cannot be written, so nothing is started: {self.store_error}"
            return Block(Waiting.STORE_UNAVAILABLE, text)
        if self.paused:
            return Block(Waiting.QUEUE_PAUSED, "the queue is paused")
        return None

    def _queue_block(self, job: Job, now: float) -> Block:
        """Return what a waiting job waits for together with others."""
        block = self._service_block()
        if block is not None:
            return block
        claims: dict[str, str] = {}
        for first in self._firsts():
            if first.order >= job.order:
                break
            block = self._turn_block(first, now, claims)
            if first.spec.scheduler == job.spec.scheduler:
                reason = f", which waits: {block.detail}" if block is not None else ""
                return Block(Waiting.JOBS_BEFORE, f"behind job {first.id}{reason}")
        return self._turn_block(job, now, claims) or Block(Waiting.STARTING, "it is next")


def _longest_back_off(job: Job) -> float:
    return max(LONGEST_DEFERRAL, job.spec.retry.max_delay)
