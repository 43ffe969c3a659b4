"""A waiting job says why, in words and numbers, and how many come before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from edbjobs_server.core import transitions
from edbjobs_server.core.job import Job, RetryOptions
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.planner import Explanation
from edbjobs_server.core.states import Reason, Waiting
from support.core_jobs import Lab, changed, make_job, reserved, result, running


def test_a_job_that_does_not_wait_is_not_explained() -> None:
    lab = Lab([make_job(1)])
    lab.put(running(lab.jobs["job1"]))
    assert lab.why("job1") == Explanation(None)
    lab.end("job1")
    assert lab.why("job1") == Explanation(None)
    assert lab.core.explain("nobody", 0.0) == Explanation(None)


def test_a_job_on_its_way() -> None:
    lab = Lab([make_job(1)])
    starting = Explanation(Waiting.STARTING, "its resources are reserved and it is being started")
    assert lab.why("job1") == Explanation(Waiting.STARTING, "it is next", before=0)
    lab.plan()
    assert lab.why("job1") == starting
    lab.start()
    assert lab.why("job1") == starting


def test_a_job_that_is_being_ended() -> None:
    lab = Lab([make_job(1)])
    lab.put(changed(transitions.cancel(running(lab.jobs["job1"]), 50.0, None)))
    assert lab.why("job1") == Explanation(Waiting.CANCELLING, "its processes are being ended")
    lab.put(changed(transitions.unkillable(lab.jobs["job1"], 1, (7, 8))))
    assert lab.why("job1") == Explanation(Waiting.UNKILLABLE, "these processes cannot be ended: 7, 8")


# Waits of its own ---------------------------------------------------------------------------------------


def held(lab: Lab) -> None:
    lab.put(changed(transitions.hold(lab.jobs["job2"])))


def delayed(lab: Lab) -> None:
    lab.put(replace(lab.jobs["job2"], next_attempt_time=86_400.0 + 3661.0))


def retried(lab: Lab) -> None:
    job = running(replace(lab.jobs["job2"], spec=replace(lab.jobs["job2"].spec, retry=RetryOptions(max_attempts=2))))
    failed = result(Reason.LICENSE, message="none left")
    lab.put(changed(transitions.ended(job, 1, failed, 99.0)))


def same_project(lab: Lab) -> None:
    lab.put(running(make_job(5, project="/p/2")))


def capped(lab: Lab) -> None:
    lab.put(running(make_job(5, user="ann")), replace(lab.jobs["job2"], user="ann"))
    lab.core.limits = Limits(max_local_jobs=9, users={"ann": UserLimits(max_running_jobs=1)})


def too_big(lab: Lab) -> None:
    lab.put(make_job(2, cores=4))
    lab.core.limits = Limits(max_local_jobs=9, max_cores=2)


@pytest.mark.parametrize(
    ("cause", "reason", "detail"),
    [
        (held, Waiting.HELD, "held; release it to let it start"),
        (delayed, Waiting.NOT_BEFORE, "not before 1970-01-02 01:01:01 UTC"),
        (retried, Waiting.BACK_OFF, "attempt 1 ended LICENSE; the next starts 10 s later: none left"),
        (same_project, Waiting.PROJECT_BUSY, "job job5 works on the same project"),
        (capped, Waiting.USER_JOBS, "1 of 1 jobs of ann are running"),
        (too_big, Waiting.CORES, "needs 4 cores; the limit is 2"),
    ],
)
def test_a_wait_of_its_own_is_told_before_that_of_the_queue(
    cause: Callable[[Lab], None], reason: Waiting, detail: str
) -> None:
    lab = Lab([make_job(1), make_job(2), make_job(3)])
    cause(lab)
    lab.core.paused = True
    why = lab.why("job2")
    assert (why.reason, why.detail, why.before) == (reason, detail, 1)
    assert why.next_attempt_time == lab.jobs["job2"].next_attempt_time
    assert lab.why("job3").reason is Waiting.QUEUE_PAUSED


# Waits with others --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "reason", "detail"),
    [
        ("paused", Waiting.QUEUE_PAUSED, "the queue is paused"),
        ("draining", Waiting.DRAINING, "the service is stopping; jobs start again when it comes back"),
    ],
)
def test_a_queue_that_stands_still(flag: str, reason: Waiting, detail: str) -> None:
    lab = Lab([make_job(1)])
    assert lab.why("job1").reason is Waiting.STARTING
    setattr(lab.core, flag, True)
    assert lab.why("job1") == Explanation(reason, detail, before=0)


def test_who_stands_first_names_the_limit_and_the_others_name_who_stands_first() -> None:
    lab = Lab([make_job(number) for number in (1, 2, 3, 4)], Limits(max_local_jobs=1))
    assert lab.why("job2") == Explanation(Waiting.JOBS_BEFORE, "behind job job1", before=1)
    lab.start()
    full = "1 of 1 jobs are running"
    assert lab.why("job2") == Explanation(Waiting.JOB_LIMIT, full, before=0)
    assert lab.why("job3") == Explanation(Waiting.JOBS_BEFORE, f"behind job job2, which waits: {full}", before=1)
    assert lab.why("job4") == Explanation(Waiting.JOBS_BEFORE, f"behind job job2, which waits: {full}", before=2)


def test_who_waits_alone_stands_in_nobodys_way() -> None:
    lab = Lab([make_job(1, held=True), make_job(2, cores=99), make_job(3)], Limits(max_local_jobs=1, max_cores=4))
    lab.put(running(make_job(9)))
    assert lab.why("job3") == Explanation(Waiting.JOB_LIMIT, "1 of 1 jobs are running", before=2)


def test_executors_have_lines_of_their_own() -> None:
    jobs = [make_job(1), make_job(2, scheduler="slurm"), make_job(3, scheduler="slurm", project="/p/1"), make_job(4)]
    lab = Lab(jobs, Limits(max_local_jobs=0, max_cluster_jobs=1))
    lab.put(running(make_job(9, scheduler="slurm")))
    cluster = "1 of 1 jobs are with the cluster"
    assert lab.why("job1").reason is Waiting.JOB_LIMIT
    assert lab.why("job2") == Explanation(Waiting.CLUSTER_JOB_LIMIT, cluster, before=1)
    assert lab.why("job3") == Explanation(Waiting.JOBS_BEFORE, f"behind job job2, which waits: {cluster}", before=2)
    assert lab.why("job4").detail == "behind job job1, which waits: 0 of 0 jobs are running"


def test_a_job_whose_time_has_come_is_not_behind_those_after_it() -> None:
    lab = Lab([make_job(1, next_attempt_time=150.0), make_job(2)])
    lab.now = 151.0
    assert lab.why("job1") == Explanation(Waiting.STARTING, "it is next", before=0)
    lab = Lab([make_job(1, scheduler="slurm"), make_job(2, next_attempt_time=150.0)])
    lab.now = 151.0
    assert lab.why("job2") == Explanation(Waiting.STARTING, "it is next", before=1)


def plan_one_more(lab: Lab) -> None:
    lab.core.limits = Limits(max_local_jobs=2)
    lab.plan()


CHANGES: dict[str, Callable[[Lab], None]] = {
    "a job before": lambda lab: lab.put(make_job(9, priority=5)),
    "the first is held": lambda lab: lab.put(changed(transitions.hold(lab.jobs["job1"]))),
    "the first is cancelled": lambda lab: lab.put(changed(transitions.cancel(lab.jobs["job1"], 5.0, None))),
    "the first is deleted": lambda lab: lab.core.remove("u0001"),
    "its project is taken": lambda lab: lab.put(running(make_job(9, project="/p/1", scheduler="slurm"))),
    "its user is capped": lambda lab: lab.put(running(make_job(9, user="ann", scheduler="slurm"))),
    "limits": lambda lab: setattr(lab.core, "limits", Limits(max_local_jobs=1, max_cores=1)),
    "a priority": lambda lab: lab.put(changed(transitions.set_priority(lab.jobs["job3"], 5))),
    "a plan": plan_one_more,
}


def is_planned(lab: Lab, job: Job) -> bool:
    return job.open_attempt is None and lab.core.explain(job.uid, lab.now).detail.startswith("its resources")


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_remembered_is_forgotten_with_every_change(change: str) -> None:
    """Explaining one job remembers who stands first; the next answer is that of a core made anew."""
    limits = Limits(max_local_jobs=1, users={"ann": UserLimits(max_running_jobs=1)})
    lab = Lab([make_job(1, user="ann", cores=2), make_job(2), make_job(3)], limits)
    lab.put(running(make_job(8)))
    before = lab.why("job3").detail
    assert before == "behind job job1, which waits: 1 of 1 jobs are running"
    CHANGES[change](lab)
    assert lab.why("job3").detail != before
    anew = Lab(host=lab.core.host, limits=lab.core.limits)
    anew.core.reset(
        [reserved(job) if is_planned(lab, job) else job for job in lab.core.jobs.values()], anew.core.limits, False
    )
    assert lab.core.explain("u0003", lab.now) == anew.core.explain("u0003", lab.now)
