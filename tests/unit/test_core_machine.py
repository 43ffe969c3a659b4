"""No order of requests, commits, failed commits, ends and restarts breaks what the core promises."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edbjobs_server.core import transitions
from edbjobs_server.core.admission import Block, refuse_infeasible
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Attempt, Job, RetryPolicy
from edbjobs_server.core.limits import Host, Limits, UserLimits
from edbjobs_server.core.scheduler import Core
from edbjobs_server.core.states import Evidence, Reason, State, Waiting
from edbjobs_server.core.transitions import Change, Outcome
from support.core_jobs import make_job

HOST = Host(cores=8, memory_mib=1000)
picks = st.integers(min_value=0, max_value=1_000_000)


class World(RuleBasedStateMachine):
    """A core, a store that commits when told, and the runs that really go on."""

    @initialize()
    def begin(self) -> None:
        self.limits = Limits(max_concurrent_jobs=3, licenses={"hfss": 2})
        self.paused = False
        self.core = Core(HOST, self.limits)
        self.disk: dict[str, Job] = {}
        self.ended: dict[str, Job] = {}
        self.planned: list[tuple[Job, Limits]] = []
        self.started: set[tuple[str, int]] = set()
        self.now = 1000.0
        self.seq = 0

    # Committing, as the store does ----------------------------------------------------------------------

    def commit(self, change: Change | None) -> None:
        if change is None:
            return
        job = change.job
        before = self.disk[job.uid]
        assert not before.state.terminal, "a terminal state is never left"
        assert job.attempt >= before.attempt, "attempts only grow"
        self.disk[job.uid] = job
        self.core.apply(job)

    def live(self) -> list[Job]:
        return [job for job in self.disk.values() if not job.state.terminal]

    def pick(self, jobs: list[Job], number: int) -> Job | None:
        return jobs[number % len(jobs)] if jobs else None

    # Requests -------------------------------------------------------------------------------------------

    @rule(
        priority=st.integers(-2, 2),
        user=st.sampled_from(["ann", "bob"]),
        project=st.integers(0, 4),
        cores=st.integers(1, 12),
        memory=st.sampled_from([0, 300, 800]),
        licenses=st.integers(0, 3),
        held=st.booleans(),
        attempts=st.integers(1, 3),
        delay=st.sampled_from([0.0, 0.0, 20.0]),
        cluster=st.sampled_from([False, False, True]),
    )
    def submit(
        self,
        priority: int,
        user: str,
        project: int,
        cores: int,
        memory: int,
        licenses: int,
        held: bool,
        attempts: int,
        delay: float,
        cluster: bool,
    ) -> None:
        self.seq += 1
        job = make_job(
            self.seq,
            priority=priority,
            user=user,
            project=f"/p/{project}",
            cores=cores,
            memory_mib=memory,
            executor="slurm" if cluster else "local",
            licenses=(("hfss", licenses),) if licenses else (),
            held=held,
            not_before=self.now + delay if delay else 0.0,
            retry=RetryPolicy(max_attempts=attempts, reasons=frozenset({Reason.LICENSE})),
        )
        try:
            refuse_infeasible(job, self.limits, HOST)
        except Refused:
            return
        self.disk[job.uid] = job
        self.core.apply(job)

    @rule(number=picks, grace=st.sampled_from([None, 1.0]))
    def cancel(self, number: int, grace: float | None) -> None:
        job = self.pick(self.live(), number)
        if job is not None:
            self.commit(transitions.cancel(job, self.now, grace))

    @rule(number=picks, hold=st.booleans())
    def hold_or_release(self, number: int, hold: bool) -> None:
        job = self.pick(self.live(), number)
        if job is None:
            return
        try:
            self.commit(transitions.hold(job) if hold else transitions.release(job))
        except Refused as refused:
            assert job.open_attempt is not None or job.state is not State.QUEUED, refused

    @rule(number=picks, priority=st.integers(-3, 3))
    def set_priority(self, number: int, priority: int) -> None:
        job = self.pick(self.live(), number)
        if job is None:
            return
        try:
            self.commit(transitions.set_priority(job, priority))
        except Refused as refused:
            assert job.open_attempt is not None or job.state is not State.QUEUED, refused

    @rule(
        jobs=st.integers(0, 4),
        cores=st.sampled_from([0, 4, 8, 16]),
        memory=st.sampled_from([0, 500]),
        licenses=st.integers(0, 3),
        user_jobs=st.integers(0, 2),
        user_cores=st.sampled_from([0, 3, 6]),
        cluster_jobs=st.integers(0, 2),
    )
    def change_limits(
        self, jobs: int, cores: int, memory: int, licenses: int, user_jobs: int, user_cores: int, cluster_jobs: int
    ) -> None:
        self.limits = Limits(
            max_concurrent_jobs=jobs,
            max_cores=cores,
            max_memory_mib=memory,
            licenses={"hfss": licenses},
            max_cluster_jobs=cluster_jobs,
            users={"ann": UserLimits(max_running_jobs=user_jobs, max_cores=user_cores)},
        )
        self.core.limits = self.limits

    @rule()
    def pause_or_resume(self) -> None:
        self.paused = not self.paused
        self.core.paused = self.paused

    @rule(seconds=st.floats(0.1, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # Planning and starting ------------------------------------------------------------------------------

    @rule()
    def plan(self) -> None:
        before = self.eligible()
        chosen = self.core.plan(self.now)
        assert not (self.paused and chosen)
        for job in chosen:
            assert job.uid in before, "only a waiting job that may start is planned"
            self.planned.append((job, self.limits))
        self.check_order(chosen, before)

    def eligible(self) -> dict[str, Job]:
        planned = {job.uid for job, _ in self.planned}
        return {
            job.uid: job
            for job in self.live()
            if job.state is State.QUEUED
            and job.open_attempt is None
            and not job.held
            and job.not_before <= self.now
            and job.uid not in planned
        }

    def check_order(self, chosen: list[Job], before: dict[str, Job]) -> None:
        """Whoever stands before a chosen job in its lane and was not chosen waits for something of its own."""
        uids = {job.uid for job in chosen}
        for job in chosen:
            for other in before.values():
                if other.uid in uids or other.order > job.order or other.spec.executor != job.spec.executor:
                    continue
                reason = self.core.explain(other.uid, self.now).reason
                assert reason in {
                    Waiting.PROJECT_BUSY,
                    Waiting.USER_JOBS,
                    Waiting.USER_CORES,
                    Waiting.CORES,
                    Waiting.MEMORY,
                    Waiting.LICENSES,
                    Waiting.PROJECT_LOCKED,
                }, (other, job, reason)

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
        run = (job.uid, change.job.attempt)
        assert run not in self.started, "no attempt starts twice"
        self.started.add(run)
        self.commit(change)
        self.check_limits(self.disk[job.uid])

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

    def check_limits(self, new: Job) -> None:
        """At each start, all that is reserved of what the new run takes stays within the limits in force."""
        limits, spec = self.limits, new.spec
        held = [job for job in self.live() if job.open_attempt is not None]
        lane = [job for job in held if job.spec.executor == spec.executor]
        if spec.executor == "local":
            assert len(lane) <= limits.max_concurrent_jobs
            assert sum(min(job.spec.cores, HOST.cores) for job in lane) <= (limits.max_cores or HOST.cores)
            if spec.memory_mib:
                assert sum(job.spec.memory_mib for job in lane) <= (limits.max_memory_mib or HOST.memory_mib)
        elif limits.max_cluster_jobs:
            assert len(lane) <= limits.max_cluster_jobs
        if spec.licenses:
            assert sum(count for job in held for _, count in job.spec.licenses) <= limits.licenses["hfss"]
        caps, own = limits.of_user(new.user), [job for job in held if job.user == new.user]
        assert not caps.max_running_jobs or len(own) <= caps.max_running_jobs
        cores = sum(min(job.spec.cores, HOST.cores) for job in own if job.spec.executor == "local")
        assert not caps.max_cores or spec.executor != "local" or cores <= caps.max_cores

    # Ends and restarts ----------------------------------------------------------------------------------

    @rule(number=picks)
    def begins(self, number: int) -> None:
        job = self.pick([job for job in self.live() if job.open_attempt is not None], number)
        if job is not None:
            self.commit(transitions.started(job, job.attempt, self.now, 42, ("host",)))

    @rule(
        number=picks,
        what=st.sampled_from(["ok", "license", "exit", "never", "cancelled", "stale"]),
    )
    def ends(self, number: int, what: str) -> None:
        job = self.pick([job for job in self.live() if job.open_attempt is not None], number)
        if job is None:
            return
        outcomes = {
            "ok": (State.COMPLETED, Reason.NORMAL, True),
            "license": (State.FAILED, Reason.LICENSE, True),
            "exit": (State.FAILED, Reason.EXIT_CODE, True),
            "never": (State.QUEUED, Reason.NONE, False),
            "cancelled": (State.CANCELLED, Reason.CANCELLED, True),
            "stale": (State.COMPLETED, Reason.NORMAL, True),
        }
        state, reason, ran = outcomes[what]
        outcome = Outcome(state, reason, Evidence.EXIT_CODE, self.now, start_time=self.now, ran=ran)
        number = job.attempt - 1 if what == "stale" else job.attempt
        change = transitions.ended(job, number, outcome, self.now)
        assert (change is None) == (what == "stale"), "an end of another attempt changes nothing"
        self.commit(change)
        after = self.disk[job.uid]
        if what == "ok":
            assert after.state is State.COMPLETED
        elif job.cancel_time is not None and what != "stale":
            assert after.state is State.CANCELLED
        elif what == "license":
            tries = sum(1 for attempt in after.attempts if attempt.reason is not Reason.NONE)
            assert (after.state is State.QUEUED) == (tries < job.spec.retry.max_attempts)

    @rule(number=picks, what=st.sampled_from(["license", "exit", "never", "ok"]))
    def ends_after_cancel(self, number: int, what: str) -> None:
        job = self.pick([job for job in self.live() if job.open_attempt is not None], number)
        if job is not None:
            self.commit(transitions.cancel(job, self.now, None))
            self.ends(number, what)

    @rule()
    def restarts(self) -> None:
        """A new process, or a commit that failed: what is on disk is all there is."""
        self.planned.clear()
        self.core.reset([job for job in self.disk.values() if not job.state.terminal], self.limits, self.paused)

    # What always holds ----------------------------------------------------------------------------------

    @invariant()
    def core_is_what_is_on_disk(self) -> None:
        live = {job.uid: job for job in self.live()}
        assert self.core.jobs == live
        fresh = Core(HOST, self.limits)
        fresh.reset(live.values(), self.limits, self.paused)
        for job, _ in self.planned:
            self.fresh_take(fresh, job)
        assert vars(self.core.usage) == vars(fresh.usage)

    def fresh_take(self, fresh: Core, job: Job) -> None:
        if self.disk[job.uid].state is State.QUEUED and self.disk[job.uid].open_attempt is None:
            fresh.apply(replace(job, attempts=(*job.attempts, reserved_attempt(job))))

    @invariant()
    def one_run_per_project(self) -> None:
        keys = [job.spec.project_key for job in self.live() if job.open_attempt is not None]
        assert len(keys) == len(set(keys))

    @invariant()
    def every_waiting_job_says_why(self) -> None:
        for job in self.live():
            why = self.core.explain(job.uid, self.now)
            if job.state is State.QUEUED:
                assert why.reason is not Waiting.NONE
                assert why.detail
            waiting = [
                other
                for other in self.live()
                if other.state is State.QUEUED
                and other.open_attempt is None
                and other.uid not in {planned.uid for planned, _ in self.planned}
            ]
            if job in waiting:
                assert why.before == sum(other.order < job.order for other in waiting)


def reserved_attempt(job: Job) -> Attempt:
    change = transitions.reserve(replace(job, held=False, cancel_time=None), 0.0, "", "")
    assert change is not None
    return change.job.attempts[-1]


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
