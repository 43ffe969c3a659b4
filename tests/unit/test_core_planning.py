"""What planning holds back, gives back and remembers: limits, time, gates, restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from edbjobs_server.core import transitions
from edbjobs_server.core.admission import Block
from edbjobs_server.core.deadlines import Deadlines
from edbjobs_server.core.gates import HostLoad
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.states import Reason, State, Waiting
from edbjobs_server.core.transitions import Change
from support.core_jobs import MIB, Lab, changed, make_job, reserved, result, running

LOCKED = Block(Waiting.PROJECT_LOCKED, "somebody has it open", own=True)


def lab_of(count: int, max_local_jobs: int = 9) -> Lab:
    return Lab([make_job(number) for number in range(1, count + 1)], Limits(max_local_jobs))


# Planned starts -----------------------------------------------------------------------------------------


def test_a_planned_start_holds_what_it_needs() -> None:
    lab = lab_of(2, max_local_jobs=1)
    assert lab.plan() == ["job1"]
    assert lab.plan() == []
    assert lab.core.usage.jobs == 1


def test_a_start_that_does_not_come_about_gives_back_what_it_held() -> None:
    lab = lab_of(2, max_local_jobs=1)
    lab.plan()
    lab.core.release(lab.jobs["job1"].uid)
    assert lab.core.usage.jobs == 0
    assert lab.plan() == ["job1"], "and stands where it stood"


def test_running_jobs_are_those_that_hold_resources() -> None:
    lab = lab_of(3, max_local_jobs=2)
    assert lab.core.running() == []
    assert lab.plan() == ["job1", "job2"]
    lab.put(running(lab.jobs["job1"]))
    assert [job.state for job in lab.core.running()] == [State.RUNNING, State.QUEUED]
    lab.core.release(lab.jobs["job2"].uid)
    assert [job.id for job in lab.core.running()] == ["job1"]


def test_only_a_planned_start_is_given_back() -> None:
    lab = lab_of(2, max_local_jobs=1)
    lab.start()
    for job in lab.jobs.values():
        lab.core.release(job.uid)
        lab.core.defer(job.uid, 200.0, LOCKED)
    assert lab.core.usage.jobs == 1
    assert lab.why("job2").reason is Waiting.JOB_LIMIT


def raise_priority(job: Job) -> Change | None:
    return transitions.set_priority(job, 7)


@pytest.mark.parametrize("change", [transitions.hold, raise_priority])
def test_a_change_of_a_planned_job_shows_when_its_start_is_given_back(change: Callable[[Job], Change | None]) -> None:
    lab = lab_of(1)
    lab.plan()
    job = changed(change(lab.jobs["job1"]))
    lab.put(job)
    assert lab.core.usage.jobs == 1
    assert lab.plan() == []
    lab.core.release(job.uid)
    assert lab.core.usage.jobs == 0
    assert lab.core.queued_by_priority() == {job.priority: 1}
    assert lab.plan() == ([] if job.held else ["job1"])


def test_a_planned_job_that_is_cancelled_or_deleted_leaves_nothing() -> None:
    lab = lab_of(2, max_local_jobs=1)
    lab.plan()
    lab.put(changed(transitions.cancel(lab.jobs["job1"], 5.0, None)))
    lab.core.release(lab.jobs["job1"].uid)
    assert lab.core.usage.jobs == 0
    lab.core.remove(lab.jobs["job2"].uid)
    lab.core.remove("nobody")
    assert lab.core.jobs == {}
    assert lab.plan() == []


# Time ---------------------------------------------------------------------------------------------------


def test_a_deferred_start_is_left_alone_until_its_time() -> None:
    lab = lab_of(2, max_local_jobs=1)
    lab.plan()
    lab.core.defer(lab.jobs["job1"].uid, 105.0, LOCKED)
    assert lab.core.next_wake() == 105.0
    assert lab.why("job1").reason is Waiting.PROJECT_LOCKED
    assert lab.why("job1").detail == "somebody has it open"
    assert lab.start() == ["job2"], "it holds nothing meanwhile and blocks nobody"
    lab.end("job2")
    lab.now = 104.9
    assert lab.plan() == []
    lab.now = 105.0
    assert lab.plan() == ["job1"]
    assert lab.core.next_wake() is None


def test_a_change_of_a_deferred_job_ends_its_wait() -> None:
    lab = lab_of(1)
    lab.plan()
    lab.core.defer(lab.jobs["job1"].uid, 105.0, LOCKED)
    lab.put(changed(transitions.set_priority(lab.jobs["job1"], 1)))
    assert lab.core.next_wake() is None
    assert lab.plan() == ["job1"]


def test_a_time_given_by_the_user_holds_through_all_changes() -> None:
    lab = Lab([make_job(1, next_attempt_time=150.0, held=True)])
    lab.put(changed(transitions.set_priority(lab.jobs["job1"], 1)))
    assert lab.core.next_wake() == 150.0
    lab.put(changed(transitions.release(lab.jobs["job1"])))
    assert lab.plan() == []
    lab.now = 150.0
    assert lab.plan() == ["job1"]


def test_a_held_job_stays_when_its_time_comes_and_starts_when_released() -> None:
    lab = Lab([make_job(1, next_attempt_time=150.0, held=True)])
    lab.now = 160.0
    assert lab.plan() == []
    lab.put(changed(transitions.release(lab.jobs["job1"])))
    assert lab.plan() == ["job1"]


def test_a_job_that_is_gone_wakes_nobody() -> None:
    lab = Lab([make_job(1, next_attempt_time=150.0)])
    lab.put(changed(transitions.cancel(lab.jobs["job1"], 5.0, None)))
    assert lab.core.next_wake() is None


def test_deadlines_come_due_in_order_and_can_be_moved() -> None:
    deadlines = Deadlines()
    for uid, time in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("b", 9.0), ("d", 2.0)):
        deadlines.set(uid, time)
    deadlines.drop("d")
    deadlines.drop("nobody")
    assert deadlines.first() == 2.0
    assert deadlines.pop_due(3.0) == ["c", "a"]
    assert deadlines.pop_due(8.9) == []
    assert deadlines.pop_due(9.0) == ["b"]
    assert deadlines.first() is None


# Stopping and beginning anew ----------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["paused", "draining"])
def test_nothing_starts_while_the_queue_is_paused_or_the_service_stops(flag: str) -> None:
    lab = lab_of(1)
    setattr(lab.core, flag, True)
    assert lab.plan() == []
    setattr(lab.core, flag, False)
    assert lab.plan() == ["job1"]


def test_what_comes_due_during_a_pause_starts_after_it() -> None:
    lab = Lab([make_job(1, next_attempt_time=101.0)])
    lab.core.paused, lab.now = True, 102.0
    assert lab.plan() == []
    assert lab.core.next_wake() is None, "or the planner would not sleep"
    lab.core.paused = False
    assert lab.plan() == ["job1"]


def test_a_new_beginning_keeps_only_what_is_committed() -> None:
    lab = lab_of(4, max_local_jobs=2)
    lab.start()
    lab.end("job1")
    lab.plan()
    lab.core.reset([job for job in lab.jobs.values() if not job.state.terminal], Limits(max_local_jobs=3), True)
    assert lab.core.paused
    assert lab.core.usage.jobs == 1, "the planned start is forgotten, the run is not"
    lab.core.paused = False
    assert lab.plan() == ["job3", "job4"], "under the new limits"


def test_lowered_limits_end_nothing_and_start_nothing() -> None:
    lab = lab_of(4, max_local_jobs=3)
    lab.start()
    lab.core.limits = Limits(max_local_jobs=1)
    for job_id in ("job1", "job2", "job3"):
        assert lab.start() == []
        lab.end(job_id)
    assert lab.start() == ["job4"]


# Counting -----------------------------------------------------------------------------------------------


def counts(**values: int) -> dict[str, int]:
    return {"queued": 0, "held": 0, "starting": 0, "scheduled": 0, "running": 0, **values}


def test_counts() -> None:
    scheduled = make_job(6, scheduler="slurm", priority=9)
    jobs = [make_job(1), make_job(2, priority=-1), make_job(3, held=True), make_job(4), make_job(5), scheduled]
    lab = Lab(jobs, Limits(max_local_jobs=2))
    assert lab.core.counts() == counts(queued=6, held=1)
    assert lab.core.queued_by_priority() == {-1: 1, 0: 4, 9: 1}
    assert lab.start() == ["job6", "job1", "job4"]
    lab.put(running_as(State.SCHEDULED, lab.jobs["job6"]))
    assert lab.core.counts() == counts(queued=5, held=1, starting=2, scheduled=1)
    assert lab.core.queued_by_priority() == {-1: 1, 0: 4}
    assert lab.core.waiting_by_priority() == {-1: 1, 0: 2}
    lab.put(running_as(State.RUNNING, lab.jobs["job6"]))
    assert lab.core.counts() == counts(queued=5, held=1, starting=2, running=1)
    for job_id in ("job1", "job4", "job6"):
        lab.end(job_id)
    lab.put(changed(transitions.release(lab.jobs["job3"])))
    assert lab.core.counts() == counts(queued=3)


def test_why_nothing_starts_on_this_host() -> None:
    lab = Lab([make_job(1)], Limits())
    assert lab.core.blocked_text(lab.now) == ""
    for name in ("max_local_jobs", "max_cores", "max_memory_bytes"):
        lab.core.limits = Limits(**{name: 0})  # type: ignore[arg-type]
        assert lab.core.blocked_text(lab.now) == f"the limit {name} is 0"
    lab.core.limits = Limits(max_cpu_percent=80)
    assert lab.core.blocked_text(lab.now) == "the host has not been sampled yet"
    lab.core.paused = True
    assert lab.core.blocked_text(lab.now) == "the queue is paused"
    lab.core.store_error = "disk full"
    assert "disk full" in lab.core.blocked_text(lab.now)
    lab.core.draining = True
    assert "stopping" in lab.core.blocked_text(lab.now)


def test_a_users_cores_count_on_clusters_too() -> None:
    jobs = [make_job(1, user="ann", cores=3, scheduler="slurm"), make_job(2, user="ann", cores=3, scheduler="local")]
    lab = Lab(jobs, Limits(users={"ann": UserLimits(max_cores=5)}))
    assert lab.start() == ["job1"]
    assert lab.why("job2").detail == "needs 3 cores; ann uses 3 of 5"
    lab.end("job1")
    assert lab.start() == ["job2"]


def running_as(state: State, job: Job) -> Job:
    return make_job(job.seq, state=state, scheduler="slurm", attempts=job.attempts)


# Gates --------------------------------------------------------------------------------------------------


def gated(count: int = 16, foreign: float = 0.0, **spec: int) -> Lab:
    """Jobs on an eight-core host where nothing starts above 80 % or with less than 1 GiB free."""
    limits = Limits(max_cores=99, max_memory_bytes=9999 * MIB, max_cpu_percent=80, min_free_memory_bytes=1024 * MIB)
    lab = Lab([make_job(number, **spec) for number in range(1, count + 1)], limits)
    lab.core.load = HostLoad(foreign_cpu_percent=foreign, cpu_count=8, memory_available_bytes=3000 * MIB)
    return lab


@pytest.mark.parametrize(
    ("foreign", "spec", "count"),
    [
        (0.0, {"cores": 1}, 7),  # the seventh sees 75 %, an eighth would see 87.5 %
        (50.0, {"cores": 1}, 3),
        (79.0, {"cores": 8}, 1),  # the asking job is not counted, or this one could never start
        (81.0, {"cores": 1}, 0),
        (0.0, {"cores": 1, "memory_mib": 700}, 3),  # 3000, 2300, 1600, then 900 MiB
    ],
)
def test_sixteen_starts_in_one_second_see_each_other(foreign: float, spec: dict[str, int], count: int) -> None:
    lab = gated(16, foreign, **spec)
    assert len(lab.plan()) == count
    assert lab.plan() == []


def test_a_shut_gate_stops_local_starts_only_and_says_so() -> None:
    lab = gated(2, 90.0)
    lab.put(make_job(9, scheduler="slurm"))
    assert lab.plan() == ["job9"]
    assert lab.why("job1").reason is Waiting.CPU_GATE
    assert lab.why("job2").detail.startswith("behind job job1, which waits: processors: 90 % used by others")
    assert lab.core.gate_block(lab.now) is not None


def test_before_the_first_sample_nothing_passes_a_gate() -> None:
    lab = gated(1)
    lab.core.load = None
    assert lab.plan() == []
    lab.core.limits = Limits()
    assert lab.plan() == ["job1"]


def test_a_start_counts_for_a_minute_from_when_the_solver_began() -> None:
    lab = gated(2, cores=8)
    assert lab.plan() == ["job1"]
    lab.now = 130.0
    job = reserved(lab.jobs["job1"], 129.0)
    lab.put(changed(transitions.started(job, 1, 130.0, 42, ())))
    lab.now = 189.9
    assert lab.plan() == []
    lab.now = 190.0
    assert lab.plan() == ["job2"]


def test_a_run_that_ended_counts_no_longer() -> None:
    lab = gated(2, cores=8)
    assert lab.start() == ["job1"]
    lab.end("job1")
    assert lab.plan() == ["job2"]


@pytest.mark.parametrize("defer", [True, False])
def test_a_start_that_did_not_come_about_does_not_shut_the_gate(defer: bool) -> None:
    lab = gated(1, cores=8)
    for _ in range(5):
        assert lab.plan() == ["job1"], "what was given back loads nothing"
        if defer:
            lab.core.defer("u0001", lab.now + 5.0, LOCKED)
        else:
            lab.core.release("u0001")
        lab.now += 5.0


def test_a_restart_remembers_what_has_just_begun() -> None:
    lab = gated(3, cores=8)
    old, new = running(lab.jobs["job1"], 11.0), reserved(lab.jobs["job2"], 99.0)
    lab.core.reset([old, new, lab.jobs["job3"]], lab.core.limits, False)
    assert lab.plan() == []
    lab.now = 159.0
    assert lab.plan() == ["job3"]


def test_a_retry_frees_everything_until_its_time() -> None:
    lab = Lab([make_job(1, user="ann"), make_job(2, user="ann")], Limits(default_user=UserLimits(max_running_jobs=1)))
    assert lab.start() == ["job1"]
    never = result(Reason.NOT_STARTED, ran=False)
    lab.put(changed(transitions.ended(lab.jobs["job1"], 1, never, 100.0)))
    assert lab.core.usage.jobs == 0
    assert lab.start() == ["job1"]
    assert lab.jobs["job1"].attempt_count == 2
