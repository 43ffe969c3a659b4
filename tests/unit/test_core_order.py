"""Higher priority first, then first come first served; a job that does not fit blocks those behind it."""

from __future__ import annotations

from typing import Any

import pytest
from edbjobs_server.core import transitions
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.states import Waiting
from support.core_jobs import MIB, Lab, changed, make_job

ONE_OF_ANN = {"ann": UserLimits(max_running_jobs=1)}

ANN_THREE_CORES = {"ann": UserLimits(max_cores=3)}


def plan(limits: dict[str, Any], *jobs: dict[str, Any]) -> list[int]:
    """Plan jobs 1, 2, 3, ...; tells the numbers of the chosen ones in order of start."""
    lab = Lab([make_job(number, **values) for number, values in enumerate(jobs, 1)], Limits(**limits))
    return [int(job_id.removeprefix("job")) for job_id in lab.plan()]


@pytest.mark.parametrize(
    ("priorities", "order"),
    [
        ([0, 0, 0], [1, 2, 3]),
        ([-1, 0, 1], [3, 2, 1]),
        ([0, -1, 5, -1, 5], [3, 5, 1, 2, 4]),
        ([1_000_000, -1_000_000], [1, 2]),
    ],
)
def test_higher_priority_first_and_first_come_first_served_within(priorities: list[int], order: list[int]) -> None:
    assert plan({"max_local_jobs": 9}, *({"priority": priority} for priority in priorities)) == order


@pytest.mark.parametrize(
    ("limits", "jobs", "chosen"),
    [
        # no more than there is room for
        ({"max_local_jobs": 2}, [{}, {}, {}], [1, 2]),
        ({"max_local_jobs": 0}, [{}, {"scheduler": "slurm"}], [2]),
        ({"max_cluster_jobs": 1}, [{"scheduler": "slurm"}, {"scheduler": "slurm"}, {}], [1, 3]),
        # the first that does not fit blocks those behind it: no backfill
        ({}, [{"cores": 6}, {"cores": 4}, {"cores": 1}], [1]),
        ({}, [{"memory_mib": 600}, {"memory_mib": 600}, {}], [1]),
        ({"licenses": {"hfss": 1}}, [{"licenses": (("hfss", 1),)}, {"licenses": (("hfss", 1),)}, {}], [1]),
        # but not those of another executor
        ({}, [{"cores": 6}, {"cores": 4}, {"scheduler": "slurm"}], [1, 3]),
        ({"max_cluster_jobs": 1}, [{"scheduler": "slurm"}, {"scheduler": "slurm"}, {"scheduler": "pbs"}, {}], [1, 4]),
        # one at a time of each project, wherever it runs
        ({}, [{"project": "/a"}, {"project": "/a"}, {"project": "/b"}], [1, 3]),
        ({}, [{"project": "/a", "scheduler": "slurm"}, {"project": "/a"}], [1]),
        ({}, [{"project": "/a"}, {"project": "/a", "scheduler": "slurm"}], [1]),
        # held, or not yet: stepped over
        ({}, [{"held": True}, {"next_attempt_time": 101.0}, {"next_attempt_time": 100.0}, {}], [3, 4]),
        # a user at the cap is stepped over
        ({"users": ONE_OF_ANN}, [{"user": "ann"}, {"user": "ann"}, {"user": "bob"}], [1, 3]),
        (
            {"users": {"ann": UserLimits(max_cores=3)}},
            [{"user": "ann", "cores": 2}] * 2 + [{"user": "ann"}] * 2,
            [1, 3],
        ),
        # so is what limits lowered later can never let run
        ({"max_cores": 4}, [{"cores": 5}, {"cores": 4}], [2]),
        ({"max_memory_bytes": 400 * MIB}, [{"cores": 4}, {"cores": 5, "memory_mib": 500}, {}], [1, 3]),
        ({"max_memory_bytes": 400 * MIB}, [{"memory_mib": 500}, {}], [2]),
        ({"licenses": {"hfss": 1}}, [{"licenses": (("hfss", 2),)}, {}], [2]),
        # of a project whose first job waits alone, the next takes its place, in the order of the queue
        (
            {"users": ONE_OF_ANN, "max_local_jobs": 3},
            [
                {"user": "ann"},
                {"user": "ann", "project": "/a"},
                {"user": "bob", "project": "/b"},
                {"user": "bob", "project": "/a"},
                {"user": "bob", "project": "/c"},
            ],
            [1, 3, 4],
        ),
        ({"max_cores": 4}, [{"cores": 5, "project": "/a"}, {"project": "/a", "scheduler": "slurm"}], [2]),
        # a job that blocks its executor leaves its project to others
        ({"max_local_jobs": 0}, [{"project": "/a"}, {"project": "/a", "scheduler": "slurm"}], [2]),
    ],
)
def test_who_starts(limits: dict[str, Any], jobs: list[dict[str, Any]], chosen: list[int]) -> None:
    assert plan({"max_local_jobs": 9, **limits}, *jobs) == chosen


@pytest.mark.parametrize(
    ("jobs", "chosen"),
    [
        # executors share licenses: they are given out in order ...
        ([{"scheduler": "slurm", "licenses": (("hfss", 2),), "priority": 1}, {"licenses": (("hfss", 2),)}], [1]),
        # ... and kept for the jobs that wait for them
        (
            [
                {"scheduler": "slurm", "licenses": (("hfss", 1),)},
                {"scheduler": "slurm", "licenses": (("hfss", 2),)},
                {"licenses": (("hfss", 1),)},
                {},
            ],
            [1],
        ),
        (
            [
                {"scheduler": "slurm", "licenses": (("hfss", 1),)},
                {"scheduler": "slurm", "licenses": (("hfss", 2),)},
                {},
                {"licenses": (("hfss", 1),)},
            ],
            [1, 3],
        ),
        (
            [
                {"scheduler": "slurm", "licenses": (("free", 1), ("hfss", 1))},
                {"scheduler": "slurm", "licenses": (("free", 1), ("hfss", 2))},
                {"licenses": (("free", 1),)},
            ],
            [1, 3],
        ),
    ],
)
def test_licenses_are_shared_by_all_executors(jobs: list[dict[str, Any]], chosen: list[int]) -> None:
    assert plan({"max_local_jobs": 9, "licenses": {"hfss": 2}}, *jobs) == chosen


def test_a_license_is_kept_for_a_job_that_comes_before_with_another_executor() -> None:
    lab = Lab(
        [
            make_job(1, scheduler="slurm", licenses=(("hfss", 1),)),
            make_job(2, scheduler="slurm", licenses=(("hfss", 2),)),
            make_job(3, licenses=(("hfss", 1),)),
        ],
        Limits(max_local_jobs=9, licenses={"hfss": 2}),
    )
    assert lab.start() == ["job1"]
    assert lab.why("job2").detail == "needs 2 of license hfss; 1 of 2 are reserved"
    assert lab.why("job3").reason is Waiting.LICENSES
    assert lab.why("job3").detail == "license hfss is kept for job job2, which comes before"
    lab.end("job1")
    assert lab.start() == ["job2"]
    lab.end("job2")
    assert lab.start() == ["job3"]


def test_what_waits_starts_when_there_is_room() -> None:
    lab = Lab([make_job(number) for number in (1, 2, 3)], Limits(max_local_jobs=1))
    assert lab.start() == ["job1"]
    assert lab.start() == []
    lab.end("job1")
    assert lab.start() == ["job2"]


def test_jobs_of_one_project_run_one_after_another() -> None:
    lab = Lab([make_job(number, project="/a") for number in (1, 2, 3)])
    for job_id in ("job1", "job2", "job3"):
        assert lab.start() == [job_id]
        assert lab.start() == []
        lab.end(job_id)


def test_another_priority_changes_the_place() -> None:
    lab = Lab([make_job(1), make_job(2, project="/a"), make_job(3, project="/a")], Limits(max_local_jobs=1))
    lab.put(changed(transitions.set_priority(lab.jobs["job3"], 1)))
    assert lab.start() == ["job3"]
    assert lab.core.waiting_by_priority() == {0: 2}


def test_two_runs_on_one_project_free_it_when_the_second_ends() -> None:
    """The store allows no second run, yet a core made from one that holds it goes on and starts no third."""
    lab = Lab([make_job(1, project="/a")])
    lab.start()
    other = Lab([make_job(2, project="/a")])
    other.start()
    lab.put(other.jobs["job2"], make_job(3, project="/a"))
    lab.end("job2")
    assert lab.start() == []
    lab.end("job1")
    assert lab.start() == ["job3"]
