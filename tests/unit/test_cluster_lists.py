"""Partitions and jobs of one cluster, or of all: which schedulers were asked, and when."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from edbjobs.v1.cluster_service_pb2 import ListClusterJobsRequest, ListPartitionsRequest
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.runs import Reachability
from edbjobs_server.executors.schedulers.base import ClusterJob, Partition, Unreachable
from edbjobs_server.manager.clusters import Clusters
from support.core_jobs import HOST


class Fake:
    """A scheduler that answers from memory, or not at all."""

    def __init__(self, name: str, error: str = "") -> None:
        self.name = name
        self.error = error

    async def partitions(self) -> Sequence[Partition]:
        self._answer()
        return [Partition(f"{self.name}-1", "up", cores_total=4, cores_used=0), Partition("all", "up", time_limit=60)]

    async def jobs(self) -> Sequence[ClusterJob]:
        self._answer()
        return [ClusterJob("1", "x", "ann", "all", "R", nodes=("n[1-2]", "m")), ClusterJob("2", "y", "bob", "all", "Q")]

    def _answer(self) -> None:
        if self.error:
            raise Unreachable(self.error)


def clusters(*schedulers: Fake, responding: bool = True) -> Clusters:
    executors: Any = {
        item.name: SimpleNamespace(name=item.name, scheduler=item, reach=Reachability(item.name, responding, 5.0, "1"))
        for item in schedulers
    }
    return Clusters(executors, Planner(HOST, Limits()), chosen=True)


async def test_no_scheduler_named_are_all() -> None:
    found = await clusters(Fake("slurm"), Fake("pbs")).partitions(ListPartitionsRequest())
    assert [(item.scheduler, item.name) for item in found.partitions] == [
        ("slurm", "slurm-1"),
        ("slurm", "all"),
        ("pbs", "pbs-1"),
        ("pbs", "all"),
    ]
    assert [(item.name, item.responding) for item in found.schedulers] == [("slurm", True), ("pbs", True)]
    assert found.HasField("update_time")


async def test_numbers_that_are_not_known_are_absent() -> None:
    first, second = (await clusters(Fake("slurm")).partitions(ListPartitionsRequest())).partitions
    assert (first.cores_total, first.HasField("cores_used"), first.cores_used) == (4, True, 0)
    assert not first.HasField("memory_used_bytes")
    assert (first.HasField("time_limit"), second.time_limit.seconds) == (False, 60)


async def test_what_one_does_not_answer_is_missing() -> None:
    found = await clusters(Fake("slurm", "no controller"), Fake("pbs")).partitions(ListPartitionsRequest())
    assert {item.scheduler for item in found.partitions} == {"pbs"}
    slurm, pbs = found.schedulers
    assert (slurm.name, slurm.responding) == ("slurm", False)
    assert "no controller" in slurm.error
    assert (pbs.responding, pbs.error) == (True, "")


async def test_one_that_is_named_and_does_not_answer_is_an_error() -> None:
    with pytest.raises(Refused) as refused:
        await clusters(Fake("slurm", "no controller"), Fake("pbs")).jobs(ListClusterJobsRequest(scheduler="slurm"))
    assert refused.value.reason == "SCHEDULER_UNREACHABLE"
    with pytest.raises(Refused) as refused:
        await clusters(Fake("slurm"), responding=False).partitions(ListPartitionsRequest(scheduler="slurm"))
    assert refused.value.reason == "SCHEDULER_UNREACHABLE"


async def test_one_that_is_not_there_is_an_error_and_none_is_an_empty_list() -> None:
    with pytest.raises(Refused) as refused:
        await clusters(Fake("slurm")).jobs(ListClusterJobsRequest(scheduler="lsf"))
    assert (refused.value.reason, refused.value.fields) == ("NO_SCHEDULER", {"scheduler": "one of slurm"})
    found = await clusters().jobs(ListClusterJobsRequest())
    assert (list(found.jobs), list(found.schedulers), found.HasField("update_time")) == ([], [], False)


async def test_the_time_is_the_oldest() -> None:
    it = clusters(Fake("slurm"), Fake("pbs"))
    before = (await it.jobs(ListClusterJobsRequest(scheduler="slurm"))).update_time
    both = (await it.jobs(ListClusterJobsRequest())).update_time
    assert both == before, "the answer of slurm is used again"


async def test_jobs_by_partition_and_user_in_pages() -> None:
    it = clusters(Fake("slurm"), Fake("pbs"))
    (ann,) = (await it.jobs(ListClusterJobsRequest(scheduler="pbs", user="ann", partition="all"))).jobs
    assert (ann.scheduler, ann.scheduler_job_id, list(ann.nodes)) == ("pbs", "1", ["n[1-2]", "m"])
    assert not (await it.jobs(ListClusterJobsRequest(partition="none"))).jobs
    request, found = ListClusterJobsRequest(page_size=3), []
    while True:
        page = await it.jobs(request)
        found += [(job.scheduler, job.scheduler_job_id) for job in page.jobs]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert found == [("slurm", "1"), ("slurm", "2"), ("pbs", "1"), ("pbs", "2")]
