"""Ten thousand waiting jobs cost no more to plan or to explain than a few, whatever it is they wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits, UserLimits
from support.core_jobs import MIB, Lab, make_job, running

COUNT = 10_000


def projects(number: int) -> Job:
    return make_job(number)


def one_project(number: int) -> Job:
    return make_job(number, project="/p")


def one_capped_user(number: int) -> Job:
    return make_job(number, user="ann", cores=1 + number % 4)


def all_users_capped(number: int) -> Job:
    return make_job(number, user=f"user{number % 100}")


def too_big(number: int) -> Job:
    return make_job(number, memory_mib=900)


def best(work: Callable[[], object], tries: int = 7) -> float:
    """Shortest time in seconds: the others were held up by somebody else's work."""
    times = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.parametrize("kind", [projects, one_project, one_capped_user, all_users_capped, too_big])
def test_planning_and_explaining_do_not_depend_on_the_number_of_waiting_jobs(kind: Callable[[int], Job]) -> None:
    caps = {user: UserLimits(max_running_jobs=1) for user in ("ann", *(f"user{number}" for number in range(100)))}
    lab = Lab(map(kind, range(COUNT)), Limits(max_local_jobs=4, max_memory_bytes=800 * MIB, users=caps))
    lab.put(running(make_job(COUNT, user="ann", project="/p")))
    for number in range(100):
        lab.put(running(make_job(COUNT + 1 + number, user=f"user{number}", scheduler="slurm")))
    page = [f"job{number}" for number in range(COUNT - 1000, COUNT)]

    def change_and_plan() -> None:
        for job in lab.core.plan(lab.now):
            lab.core.release(job.uid)

    assert best(change_and_plan) < 0.005
    assert best(lab.core.counts) < 0.0005
    assert best(lab.core.queued_by_priority) < 0.0005
    assert best(lambda: [lab.why(job_id) for job_id in page]) < 0.1
