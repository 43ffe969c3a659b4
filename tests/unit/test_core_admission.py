"""What can never run is refused, what does not fit waits, and both say it in numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from edbjobs_server.core.admission import Usage, fit_block, need_of, refuse_infeasible, user_block
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.states import Waiting
from support.core_jobs import HOST, MIB, make_job

ANN_MAY = {"ann": UserLimits(max_running_jobs=2, max_cores=4, max_priority=3)}


@pytest.mark.parametrize(
    ("limits", "job", "fields"),
    [
        ({}, {"cores": 8, "memory_mib": 1000}, []),
        ({}, {"cores": 9, "memory_mib": 5000}, []),
        ({}, {"licenses": (("hfss", 99),)}, []),
        ({"max_local_jobs": 0}, {}, []),
        ({"max_cores": 4}, {"cores": 4}, []),
        ({"max_cores": 4}, {"cores": 5}, ["config.cores"]),
        ({"max_cores": 16}, {"cores": 12}, []),
        ({"max_memory_bytes": 500 * MIB}, {"memory_mib": 500}, []),
        ({"max_memory_bytes": 500 * MIB}, {"memory_mib": 501}, ["config.memory_bytes"]),
        ({"max_cores": 4, "max_memory_bytes": 500 * MIB}, {"cores": 9, "memory_mib": 900, "scheduler": "slurm"}, []),
        ({"licenses": {"hfss": 2}}, {"licenses": (("hfss", 2), ("other", 9))}, []),
        ({"licenses": {"hfss": 2}}, {"licenses": (("hfss", 3),)}, ["config.licenses"]),
        ({"licenses": {"hfss": 0}}, {"licenses": (("hfss", 1),), "scheduler": "slurm"}, []),
        ({"max_cores": 0, "max_memory_bytes": 0, "default_user": UserLimits(0, 0)}, {"memory_mib": 1}, []),
        ({"users": ANN_MAY}, {"cores": 5}, []),
        ({"users": ANN_MAY}, {"cores": 4, "user": "ann"}, []),
        ({"users": ANN_MAY}, {"cores": 5, "user": "ann"}, ["config.cores"]),
        ({"users": ANN_MAY}, {"cores": 4, "user": "ann", "scheduler": "slurm"}, []),
        ({"users": ANN_MAY}, {"cores": 5, "user": "ann", "scheduler": "slurm"}, ["config.cores"]),
        ({"users": {"ann": UserLimits(max_cores=8)}}, {"cores": 99, "user": "ann"}, []),
        ({"default_user": UserLimits(max_cores=1)}, {"cores": 2, "user": "anybody"}, ["config.cores"]),
        ({"default_user": UserLimits(max_cores=1), "users": ANN_MAY}, {"cores": 2, "user": "ann"}, []),
        (
            {"max_cores": 1, "max_memory_bytes": MIB, "licenses": {"hfss": 1}},
            {"cores": 2, "memory_mib": 2, "licenses": (("hfss", 2),)},
            ["config.cores", "config.licenses", "config.memory_bytes"],
        ),
    ],
)
def test_only_limits_above_0_make_a_job_infeasible(
    limits: dict[str, Any], job: dict[str, Any], fields: list[str]
) -> None:
    if not fields:
        refuse_infeasible(make_job(1, **job), Limits(**limits), HOST)
        return
    with pytest.raises(Refused) as refused:
        refuse_infeasible(make_job(1, **job), Limits(**limits), HOST)
    assert refused.value.reason == "INFEASIBLE"
    assert sorted(refused.value.fields) == fields


def test_all_that_is_infeasible_is_said_at_once() -> None:
    limits = Limits(max_cores=4, users=ANN_MAY, licenses={"beta": 1, "hfss": 2})
    job = make_job(1, cores=6, user="ann", licenses=(("beta", 2), ("hfss", 3)))
    with pytest.raises(Refused) as refused:
        refuse_infeasible(job, limits, HOST)
    assert refused.value.fields == {
        "config.cores": "6 cores asked for, the limit is 4; 6 cores asked for, the limit of user ann is 4",
        "config.licenses": "2 of license beta asked for, the limit is 1; 3 of license hfss asked for, the limit is 2",
    }
    for text in refused.value.fields.values():
        assert text in refused.value.message


@pytest.mark.parametrize(
    ("priority", "user", "wrong"),
    [
        (0, "bob", ""),
        (1_000_000, "bob", ""),
        (-1_000_000, "ann", ""),
        (3, "ann", ""),
        (4, "ann", "priority 4 is above the ceiling 3 of user ann"),
        (1_000_001, "bob", "priority 1000001 is not between -1,000,000 and 1,000,000"),
        (-1_000_001, "ann", "priority -1000001 is not between -1,000,000 and 1,000,000"),
    ],
)
def test_priorities(priority: int, user: str, wrong: str) -> None:
    job, limits = make_job(1, priority=priority, user=user), Limits(users=ANN_MAY)
    if not wrong:
        refuse_infeasible(job, limits, HOST)
        return
    with pytest.raises(Refused) as refused:
        refuse_infeasible(job, limits, HOST)
    assert (refused.value.reason, refused.value.message) == ("INVALID_PRIORITY", wrong)
    assert refused.value.fields == {"priority": wrong}


@pytest.mark.parametrize(
    ("asked", "counted"),
    [
        ({"cores": 3, "memory_mib": 20}, (True, 3, 20)),
        ({"cores": 99, "memory_mib": 99_999}, (True, 8, 1000)),
        ({"cores": 99, "memory_mib": 99_999, "scheduler": "slurm"}, (False, 99, 0)),
    ],
)
def test_more_than_the_host_has_counts_as_all_of_it(asked: dict[str, Any], counted: tuple[bool, int, int]) -> None:
    need = need_of(make_job(1, **asked), HOST)
    assert (need.local, need.cores, need.memory_bytes // MIB) == counted


BUSY = [
    {"cores": 3, "memory_mib": 300, "licenses": (("hfss", 2),), "user": "ann"},
    {"cores": 1, "memory_mib": 100, "user": "bob"},
    {"scheduler": "slurm", "cores": 64, "licenses": (("hfss", 1),), "user": "bob"},
]


def busy() -> Usage:
    """Two local runs, one with the cluster: 4 cores, 400 MiB, 3 of hfss."""
    usage = Usage()
    for number, values in enumerate(BUSY):
        usage.add(need_of(make_job(number, **values), HOST))
    return usage


@pytest.mark.parametrize(
    ("limits", "job", "reason", "own", "detail"),
    [
        ({"max_local_jobs": 3}, {}, None, False, ""),
        ({"max_local_jobs": 2}, {}, Waiting.JOB_LIMIT, False, "2 of 2 jobs are running"),
        ({"max_local_jobs": 0}, {}, Waiting.JOB_LIMIT, False, "2 of 0 jobs are running"),
        ({"max_local_jobs": None}, {}, None, False, ""),
        ({"max_local_jobs": 0}, {"scheduler": "slurm"}, None, False, ""),
        (
            {"max_cluster_jobs": 0},
            {"scheduler": "slurm"},
            Waiting.CLUSTER_JOB_LIMIT,
            False,
            "1 of 0 jobs are with the cluster",
        ),
        ({"max_cores": 0}, {}, Waiting.CORES, True, "needs 1 cores; the limit is 0"),
        ({"max_memory_bytes": 0}, {}, Waiting.MEMORY, True, "needs 0 MiB; the limit is 0"),
        (
            {"licenses": {"hfss": 0}},
            {"licenses": (("hfss", 1),)},
            Waiting.LICENSES,
            True,
            "needs 1 of license hfss; the limit is 0",
        ),
        ({"max_local_jobs": 0, "max_cluster_jobs": 2}, {"scheduler": "slurm"}, None, False, ""),
        (
            {"max_cluster_jobs": 1},
            {"scheduler": "slurm"},
            Waiting.CLUSTER_JOB_LIMIT,
            False,
            "1 of 1 jobs are with the cluster",
        ),
        ({}, {"cores": 4}, None, False, ""),
        ({}, {"cores": 5}, Waiting.CORES, False, "needs 5 cores; 4 of 8 are reserved"),
        ({}, {"cores": 99}, Waiting.CORES, False, "needs 8 cores; 4 of 8 are reserved"),
        ({"max_cores": 12}, {"cores": 8}, None, False, ""),
        ({"max_cores": 5}, {"cores": 1}, None, False, ""),
        ({"max_cores": 5}, {"cores": 2}, Waiting.CORES, False, "needs 2 cores; 4 of 5 are reserved"),
        ({"max_cores": 5}, {"cores": 6}, Waiting.CORES, True, "needs 6 cores; the limit is 5"),
        (
            {"max_local_jobs": 2, "max_cores": 5},
            {"cores": 6},
            Waiting.CORES,
            True,
            "needs 6 cores; the limit is 5",
        ),
        ({}, {"memory_mib": 600}, None, False, ""),
        ({}, {"memory_mib": 601}, Waiting.MEMORY, False, "needs 601 MiB; 400 of 1000 MiB are reserved"),
        ({"max_memory_bytes": 500 * MIB}, {"memory_mib": 100}, None, False, ""),
        (
            {"max_memory_bytes": 500 * MIB},
            {"memory_mib": 101},
            Waiting.MEMORY,
            False,
            "needs 101 MiB; 400 of 500 MiB are reserved",
        ),
        (
            {"max_memory_bytes": 500 * MIB},
            {"memory_mib": 501},
            Waiting.MEMORY,
            True,
            "needs 501 MiB; the limit is 500",
        ),
        ({"licenses": {"hfss": 4}}, {"licenses": (("hfss", 1),)}, None, False, ""),
        ({"licenses": {"other": 0}}, {"licenses": (("hfss", 99),)}, None, False, ""),
        (
            {"licenses": {"hfss": 4}},
            {"licenses": (("hfss", 2),)},
            Waiting.LICENSES,
            False,
            "needs 2 of license hfss; 3 of 4 are reserved",
        ),
        (
            {"licenses": {"hfss": 4}},
            {"licenses": (("hfss", 5),), "scheduler": "slurm"},
            Waiting.LICENSES,
            True,
            "needs 5 of license hfss; the limit is 4",
        ),
    ],
)
def test_what_does_not_fit(
    limits: dict[str, Any], job: dict[str, Any], reason: Waiting | None, own: bool, detail: str
) -> None:
    limits = {"max_local_jobs": 9, **limits}
    block = fit_block(need_of(make_job(9, **job), HOST), busy(), Limits(**limits), HOST)
    found = (block.reason, block.own, block.detail) if block is not None else (None, False, "")
    assert found == (reason, own, detail)


@pytest.mark.parametrize(
    ("caps", "job", "reason", "detail"),
    [
        ({}, {"cores": 8}, None, ""),
        ({"max_running_jobs": 3}, {}, None, ""),
        ({"max_running_jobs": 2}, {}, Waiting.USER_JOBS, "2 of 2 jobs of bob are running"),
        ({"max_running_jobs": 2}, {"scheduler": "slurm"}, Waiting.USER_JOBS, "2 of 2 jobs of bob are running"),
        ({"max_running_jobs": 0}, {}, Waiting.USER_JOBS, "2 of 0 jobs of bob are running"),
        ({"max_cores": 0}, {}, Waiting.USER_CORES, "needs 1 cores; bob uses 65 of 0"),
        ({"max_cores": 67}, {"cores": 2}, None, ""),
        ({"max_cores": 67}, {"cores": 3}, Waiting.USER_CORES, "needs 3 cores; bob uses 65 of 67"),
        ({"max_cores": 67}, {"cores": 3, "scheduler": "slurm"}, Waiting.USER_CORES, "needs 3 cores; bob uses 65 of 67"),
    ],
)
def test_limits_of_a_user(caps: dict[str, int], job: dict[str, Any], reason: Waiting | None, detail: str) -> None:
    limits = Limits(users={"bob": UserLimits(**caps)}, default_user=UserLimits(max_running_jobs=1))
    block = user_block(need_of(make_job(9, user="bob", **job), HOST), busy(), limits)
    found = (block.reason, block.detail) if block is not None else (None, "")
    assert found == (reason, detail)
    assert block is None or block.own


def test_what_is_given_back_leaves_nothing() -> None:
    usage = busy()
    for number, values in enumerate(BUSY):
        usage.add(need_of(make_job(number, **values), HOST), -1)
    assert vars(usage) == vars(Usage())
    assert not usage.user_jobs, "users who have nothing are forgotten"


def test_the_sites_limit_of_cluster_jobs_counts_0_as_well() -> None:
    need = need_of(make_job(9, scheduler="slurm"), HOST)
    for most, waits in ((None, False), (2, False), (1, True), (0, True)):
        assert (fit_block(need, busy(), Limits(), replace(HOST, max_cluster_jobs=most)) is not None) is waits
