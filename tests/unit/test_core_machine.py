"""No order of requests, commits, failed commits, ends and restarts breaks what the core promises.

The core is compared with a plain model of the promise: all jobs in one list, every sum made anew. EDBJOBS_CI=1 tries
five times as many orders.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
from edbjobs_server.core import transitions
from edbjobs_server.core.admission import Block, refuse_infeasible
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL, Attempt, Job, RetryOptions
from edbjobs_server.core.limits import Host, Limits, UserLimits
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.states import Reason, State, Waiting
from edbjobs_server.core.transitions import Change
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.core_jobs import MIB, make_job, result

HOST = Host(cores=12, memory_bytes=1000 * MIB)
picks = st.integers(min_value=0, max_value=1_000_000)

# Many projects and small jobs, or several runs at once are too rare to show a limit that does not hold.
wishes = st.fixed_dictionaries(
    {
        "priority": st.sampled_from([0, 0, 0, 1, -1]),
        "user": st.sampled_from(["ann", "ann", "bob", "cyd"]),
        "project": st.sampled_from([f"/p/{number}" for number in range(12)]),
        "cores": st.sampled_from([1, 1, 2, 3, 5, 20]),
        "memory_mib": st.sampled_from([0, 150, 350]),
        "scheduler": st.sampled_from([LOCAL, LOCAL, "slurm"]),
        "licenses": st.sampled_from([(), (), (("hfss", 1),), (("hfss", 2),), (("beta", 1), ("hfss", 1))]),
        "held": st.sampled_from([False, False, False, True]),
        "retry": st.integers(1, 3).map(lambda n: RetryOptions(max_attempts=n, reasons=frozenset({Reason.LICENSE}))),
    }
)


def make_limits(values: dict[str, Any]) -> Limits:
    return Limits(**values)


caps = st.one_of(
    st.builds(UserLimits, max_running_jobs=st.integers(0, 2)),
    st.builds(UserLimits, max_cores=st.sampled_from([0, 3, 6])),
)
# Each limit is absent half the time, or the tightest would hide the others.
limits = st.fixed_dictionaries(
    {},
    optional={
        "max_local_jobs": st.sampled_from([0, 2, 4, 9, 9, 9]),
        "max_cores": st.sampled_from([0, 4, 8, 30]),
        "max_memory_bytes": st.sampled_from([0, 400 * MIB, 700 * MIB]),
        "max_cluster_jobs": st.integers(0, 2),
        "licenses": st.sampled_from([{"hfss": 1}, {"hfss": 2}, {"hfss": 3, "beta": 0}]),
        "default_user": caps,
        "users": st.fixed_dictionaries({"ann": caps}, optional={"bob": caps}),
    },
).map(make_limits)

OUTCOMES = {
    "ok": (Reason.NORMAL, True),
    "license": (Reason.LICENSE, True),
    "exit": (Reason.EXIT_CODE, True),
    "never": (Reason.NOT_STARTED, False),
    "cancelled": (Reason.CANCELLED, True),
}


def cores_of(job: Job) -> int:
    return min(job.spec.cores, HOST.cores) if job.spec.scheduler == LOCAL else job.spec.cores


def or_none(limit: int | None) -> float:
    return math.inf if limit is None else limit


def place(job: Job) -> tuple[int, int]:
    return -job.priority, job.seq


@dataclass
class Model:
    """Promises 8 and 9 of the design in the plainest form: `taken` is all that holds resources."""

    limits: Limits
    taken: list[Job]
    stopped: set[str] = field(default_factory=set)
    claimed: set[str] = field(default_factory=set)
    silent: frozenset[str] = frozenset()

    def plan(self, eligible: Iterable[Job]) -> list[Job]:
        chosen = []
        for job in sorted(eligible, key=place):
            if job.spec.scheduler in self.stopped or self.waits_alone(job):
                continue
            if job.spec.scheduler in self.silent:
                self.stopped.add(job.spec.scheduler)
                continue
            short = self.is_short_of_licenses(job)
            if short or not self.fits(job):
                self.stopped.add(job.spec.scheduler)
                if short and self.fits(job):
                    self.claimed.update(feature for feature, _ in job.spec.licenses if feature in self.limits.licenses)
                continue
            self.taken.append(job)
            chosen.append(job)
        return chosen

    def waits_alone(self, job: Job) -> bool:
        if any(other.spec.project_key == job.spec.project_key for other in self.taken):
            return True
        cap, mine = self.limits.of_user(job.user), [other for other in self.taken if other.user == job.user]
        if len(mine) >= or_none(cap.max_running_jobs):
            return True
        if sum(map(cores_of, mine)) + cores_of(job) > or_none(cap.max_cores):
            return True
        alone = Model(self.limits, [])
        return alone.is_short_of_licenses(job) or not alone.fits(job, alone=True)

    def fits(self, job: Job, alone: bool = False) -> bool:
        """Return whether a job fits; `alone`: as the only one, if any may run at all."""
        lane = [job, *(other for other in self.taken if other.spec.scheduler == job.spec.scheduler)]
        if job.spec.scheduler != LOCAL:
            return alone or len(lane) <= or_none(self.limits.max_cluster_jobs)
        cores, memory = self.limits.max_cores, self.limits.max_memory_bytes
        return (
            (alone or len(lane) <= or_none(self.limits.max_local_jobs))
            and sum(map(cores_of, lane)) <= (HOST.cores if cores is None else cores)
            and memory != 0
            and sum(other.spec.memory_bytes for other in lane) <= (HOST.memory_bytes if memory is None else memory)
        )

    def is_short_of_licenses(self, job: Job) -> bool:
        return any(
            feature in self.claimed
            or count + sum(dict(other.spec.licenses).get(feature, 0) for other in self.taken)
            > self.limits.licenses.get(feature, 10**6)
            for feature, count in job.spec.licenses
        )


class World(RuleBasedStateMachine):
    """A core, a store that commits when told, and the runs that really go on."""

    @initialize(limits=limits, wishes=st.lists(wishes, min_size=4, max_size=10))
    def begin(self, limits: Limits, wishes: list[dict[str, object]]) -> None:
        self.limits = limits
        self.paused = False
        self.core = Planner(HOST, limits)
        self.disk: dict[str, Job] = {}
        self.planned: list[tuple[Job, Limits]] = []
        self.deferred: dict[str, float] = {}
        self.started: set[tuple[str, int]] = set()
        self.now = 1000.0
        self.seq = 0
        self.submit(wishes)

    # Committing, as the store does ----------------------------------------------------------------------

    def commit(self, change: Change | None) -> None:
        if change is None:
            return
        job = change.job
        before = self.disk[job.uid]
        assert not before.state.terminal, "a terminal state is never left"
        assert job.attempt_count >= before.attempt_count, "attempts only grow"
        self.put(job)

    def put(self, job: Job) -> None:
        self.disk[job.uid] = job
        self.deferred.pop(job.uid, None)
        self.core.apply(job)

    def live(self) -> list[Job]:
        return [job for job in self.disk.values() if not job.state.terminal]

    def open(self) -> list[Job]:
        return [job for job in self.live() if job.open_attempt is not None]

    def waiting(self) -> list[Job]:
        """Jobs that hold nothing: neither reserved on disk nor planned."""
        planned = {job.uid for job, _ in self.planned}
        return [job for job in self.live() if job.open_attempt is None and job.uid not in planned]

    def taken(self) -> list[Job]:
        waiting = {job.uid for job in self.waiting()}
        return [job for job in self.live() if job.uid not in waiting]

    def pick(self, jobs: list[Job], number: int) -> Job | None:
        return jobs[number % len(jobs)] if jobs else None

    # Requests -------------------------------------------------------------------------------------------

    @rule(wishes=st.lists(wishes, min_size=1, max_size=5), delay=st.sampled_from([0.0, 0.0, 20.0]))
    def submit(self, wishes: list[dict[str, object]], delay: float = 0.0) -> None:
        for values in wishes:
            self.seq += 1
            job = make_job(self.seq, next_attempt_time=self.now + delay if delay else 0.0, **values)
            try:
                refuse_infeasible(job, self.limits, HOST)
            except Refused:
                continue
            self.put(job)

    @rule(number=picks, grace=st.sampled_from([None, 1.0]))
    def cancel(self, number: int, grace: float | None) -> None:
        job = self.pick(self.live(), number)
        if job is not None:
            self.commit(transitions.cancel(job, self.now, grace))

    @rule(number=picks, priority=st.integers(-3, 3), what=st.sampled_from(["hold", "release", "release", "priority"]))
    def change_waiting(self, number: int, priority: int, what: str) -> None:
        job = self.pick(self.live(), number)
        if job is None:
            return
        try:
            if what == "priority":
                self.commit(transitions.set_priority(job, priority))
            else:
                self.commit(transitions.hold(job) if what == "hold" else transitions.release(job))
        except Refused:
            assert job.open_attempt is not None or job.state is not State.QUEUED

    @rule(limits=limits)
    def change_limits(self, limits: Limits) -> None:
        self.limits = self.core.limits = limits
        self.check_explanations()

    @rule(paused=st.sampled_from([False, False, True]))
    def pause_or_resume(self, paused: bool) -> None:
        self.paused = self.core.paused = paused

    @rule(seconds=st.floats(0.1, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # Planning and starting ------------------------------------------------------------------------------

    @rule()
    def plan(self) -> None:
        eligible = [
            job
            for job in self.waiting()
            if not job.held and max(job.next_attempt_time, self.deferred.get(job.uid, 0.0)) <= self.now
        ]
        model = Model(self.limits, self.taken(), silent=frozenset(self.core.unreachable))
        expected = [] if self.paused else model.plan(eligible)
        chosen = self.core.plan(self.now)
        assert [job.id for job in chosen] == [job.id for job in expected]
        for job in chosen:
            self.planned.append((job, self.limits))
        self.check_explanations()

    def check_explanations(self) -> None:
        """What is remembered between changes explains no job otherwise than a core that remembers nothing."""
        fresh = self.fresh()
        for core in (fresh, self.core):
            core.draining = True
            core.plan(self.now)  # for what came due; starts nothing
            core.draining = False
        self.deferred = {uid: until for uid, until in self.deferred.items() if until > self.now}
        for job in self.live() if not self.deferred else ():
            assert self.core.explain(job.uid, self.now) == fresh.explain(job.uid, self.now)

    @rule()
    def start_all(self) -> None:
        self.plan()
        while self.planned:
            self.commit_start(0)

    @precondition(lambda self: self.planned)
    @rule(number=picks)
    def commit_start(self, number: int) -> None:
        job, limits = self.planned.pop(number % len(self.planned))
        current = self.disk[job.uid]
        change = None
        if limits == self.limits and not self.paused:
            change = transitions.reserve(current, self.now, "boot", "/runs/x")
        if change is None:
            self.core.release(job.uid)
            return
        run = (job.uid, change.job.attempt_count)
        assert run not in self.started, "no attempt starts twice"
        self.started.add(run)
        self.commit(change)

    @precondition(lambda self: self.planned)
    @rule(number=picks)
    def start_does_not_come_about(self, number: int) -> None:
        job, _ = self.planned.pop(number % len(self.planned))
        self.core.release(job.uid)

    @precondition(lambda self: self.planned)
    @rule(number=picks, seconds=st.floats(1, 30))
    def project_is_locked(self, number: int, seconds: float) -> None:
        job, _ = self.planned.pop(number % len(self.planned))
        self.core.defer(job.uid, self.now + seconds, Block(Waiting.PROJECT_LOCKED, "locked", own=True))
        if job.uid in self.core.jobs:
            self.deferred[job.uid] = self.now + seconds

    # Ends and restarts ----------------------------------------------------------------------------------

    @rule(number=picks)
    def starts(self, number: int) -> None:
        job = self.pick(self.open(), number)
        if job is not None:
            self.commit(transitions.started(job, job.attempt_count, self.now, 42, ("host",)))

    @rule(number=picks)
    def is_taken_by_a_scheduler(self, number: int) -> None:
        job = self.pick([job for job in self.open() if job.spec.scheduler != LOCAL], number)
        if job is None:
            return
        running = job.state is State.RUNNING
        self.commit(transitions.scheduled(job, job.attempt_count, f"{job.seq}"))
        assert self.disk[job.uid].state is (State.RUNNING if running else State.SCHEDULED)
        assert transitions.scheduled(self.disk[job.uid], job.attempt_count, f"{job.seq}") is None, (
            "told twice, kept once"
        )

    @rule(silent=st.booleans())
    def a_scheduler_falls_silent_or_answers(self, silent: bool) -> None:
        self.core.unreachable = {"slurm": "it does not answer"} if silent else {}

    @rule(number=picks, what=st.sampled_from(sorted(OUTCOMES)), cancel=st.sampled_from([False, False, True]))
    def ends(self, number: int, what: str, cancel: bool) -> None:
        job = self.pick(self.open(), number)
        if job is None:
            return
        if cancel:
            self.commit(transitions.cancel(job, self.now, None))
            job = self.disk[job.uid]
        reason, ran = OUTCOMES[what]
        end = result(reason, self.now, start_time=self.now, ran=ran)
        assert transitions.ended(job, job.attempt_count - 1, end, self.now) is None, (
            "an end of another attempt is no end"
        )
        self.commit(transitions.ended(job, job.attempt_count, end, self.now))
        after = self.disk[job.uid]
        if what == "ok":
            assert after.state is State.COMPLETED
        elif job.cancel_request_time is not None:
            assert after.state is State.CANCELLED
        elif what == "license":
            tries = sum(attempt.has_run for attempt in after.attempts)
            assert (after.state is State.QUEUED) == (tries < job.spec.retry.max_attempts)

    @rule()
    def restarts(self) -> None:
        """A new process, or a commit that failed: what is on disk is all there is."""
        self.planned.clear()
        self.deferred.clear()
        self.core.reset(self.live(), self.limits, self.paused)

    # What always holds ----------------------------------------------------------------------------------

    def fresh(self) -> Planner:
        """A core made from the same jobs; planned starts are open attempts there."""
        fresh = Planner(HOST, self.limits)
        fresh.unreachable = self.core.unreachable
        fresh.reset(self.live(), self.limits, self.paused)
        for job in self.taken():
            if job.open_attempt is None:
                fresh.apply(replace(job, attempts=(*job.attempts, Attempt(job.attempt_count + 1, self.now))))
        return fresh

    @invariant()
    def core_is_what_is_on_disk(self) -> None:
        assert self.core.jobs == {job.uid: job for job in self.live()}
        fresh = self.fresh()
        assert vars(self.core.usage) == vars(fresh.usage)
        assert self.core.counts() == fresh.counts()
        assert sum(self.core.waiting_by_priority().values()) == len(self.waiting())
        assert self.core.counts()["queued"] == sum(job.state is State.QUEUED for job in self.live())
        assert self.core.queued_by_priority() == fresh.queued_by_priority()

    @invariant()
    def one_run_per_project(self) -> None:
        keys = [job.spec.project_key for job in self.taken()]
        assert len(keys) == len(set(keys))

    @invariant()
    def every_waiting_job_says_why(self) -> None:
        waiting = self.waiting()
        for job in self.live():
            why = self.core.explain(job.uid, self.now)
            if job.state is State.QUEUED:
                assert why.reason is not None
                assert why.detail
            if job in waiting:
                assert why.before == sum(place(other) < place(job) for other in waiting)


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=1000 if os.environ.get("EDBJOBS_CI") else 200, stateful_step_count=30, deadline=None
)
