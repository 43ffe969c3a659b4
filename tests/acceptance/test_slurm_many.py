"""Many jobs at once on the true SLURM, the limit for them, and local runs beside them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from edbjobs.v1 import cluster_service_pb2, job_pb2, job_state_pb2, jobs_messages_pb2
from support.slurm_cluster import SlurmCluster
from support.slurm_service import DONE, LONG, SlurmService, end, eventually, state

pytestmark = pytest.mark.system

LOCAL = "local"
MANY = 200


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm"), extra_conf="KillWait=2") as running:
        yield running


@pytest.mark.timeout(240)
def test_two_hundred_at_once(tmp_path: Path, cluster: SlurmCluster) -> None:
    with SlurmService(tmp_path / "service", cluster) as service:
        requests = [service.request("seconds=0.1", batch="many", job_id=f"m{number}") for number in range(MANY)]
        started_at = time.monotonic()
        answer = service.jobs.SubmitJobs(jobs_messages_pb2.SubmitJobsRequest(requests=requests), timeout=60)
        assert len(answer.results) == MANY
        eventually("all have ended", lambda: ended(service), lambda count: count == MANY, 180)
        print(f"{MANY} jobs in {time.monotonic() - started_at:.1f} s")
        jobs = listed(service)
        assert Counter(end(job) for job in jobs) == {DONE: MANY}
        assert len({job.scheduler_job_id for job in jobs}) == MANY
        names = [file.name.rsplit("-", 2)[0] for file in service.witness.iterdir()]
        assert sorted(names) == sorted(job.id for job in jobs)
        lines = [line for file in service.witness.iterdir() for line in file.read_text().splitlines()]
        assert Counter(line.split()[0] for line in lines) == {"start": MANY, "end": MANY}
        assert Counter(len(service.story(job)) for job in jobs[::20]) == {5: MANY // 20}


def ended(service: SlurmService) -> int:
    terminal = [job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED]
    request = jobs_messages_pb2.ListJobsRequest(page_size=1, filter=jobs_messages_pb2.JobFilter(states=terminal))
    return int(service.jobs.ListJobs(request, timeout=10).total_size)


def listed(service: SlurmService) -> list[job_pb2.Job]:
    request = jobs_messages_pb2.ListJobsRequest(page_size=1000, view=job_pb2.JOB_VIEW_FULL)
    return list(service.jobs.ListJobs(request, timeout=30).jobs)


def test_the_limit_for_cluster_jobs_and_local_runs_beside_them(tmp_path: Path, cluster: SlurmCluster) -> None:
    with SlurmService(tmp_path / "service", cluster, max_cluster_jobs=2, max_local_jobs=1) as service:
        there = [service.submit(LONG) for _ in range(3)]
        for job in there[:2]:
            service.running(job)
        service.waits(there[2], "CLUSTER_JOB_LIMIT", "2 of 2")
        here = [service.submit(LONG, scheduler=LOCAL) for _ in range(2)]
        service.running(here[0])  # the cluster's jobs take none of the local slots, nor do they wait for those
        service.waits(here[1], "JOB_LIMIT")
        assert state(service.job(there[2])) == "QUEUED"
        service.cancel(there[0])
        service.running(there[2])
        for job in (*there[1:], *here):
            service.cancel(job)
        for job in (*there, *here):
            assert end(service.ended(job))[0] == "CANCELLED"


@pytest.mark.parametrize("first", ["local", "slurm"])
def test_one_project_is_never_worked_on_here_and_there_at_once(
    tmp_path: Path, cluster: SlurmCluster, first: str
) -> None:
    with SlurmService(tmp_path / "service", cluster) as service:
        project = str(service.project())
        kinds = [LOCAL, "slurm"]
        if first == "slurm":
            kinds.reverse()
        one = service.running(service.submit("seconds=5", project_path=project, scheduler=kinds[0]))
        two = service.submit("seconds=0.2", project_path=project, scheduler=kinds[1])
        service.waits(two, "PROJECT_BUSY")
        one, two = service.ended(one), service.ended(two)
        assert (end(one), end(two)) == (DONE, DONE)
        assert two.start_time.seconds >= one.end_time.seconds
        assert [job.scheduler for job in (one, two)] == (["slurm", "local"] if first == "slurm" else ["local", "slurm"])


def test_the_cluster_as_it_is(tmp_path: Path, cluster: SlurmCluster) -> None:
    with SlurmService(tmp_path / "service", cluster) as service:
        job = service.running(service.submit(LONG, cores_per_node=3, memory_bytes_per_node=512 << 20))
        found = service.cluster.ListPartitions(cluster_service_pb2.ListPartitionsRequest(), timeout=10).partitions
        by_name = {row.name: row for row in found}
        assert sorted(by_name) == ["closed", "normal", "short"]
        normal = by_name["normal"]
        assert (normal.is_default, normal.state, normal.scheduler) == (True, "up", "slurm")
        assert (normal.nodes_total, normal.nodes_used, normal.nodes_free) == (4, 1, 3)
        assert (normal.cores_total, normal.cores_used, normal.cores_free) == (32, 3, 29)
        assert (normal.memory_total_bytes, normal.memory_used_bytes) == (4 * 6000 << 20, 512 << 20)
        assert (normal.HasField("time_limit"), by_name["short"].time_limit.seconds) == (False, 300)
        assert by_name["closed"].state == "down"
        jobs = service.cluster.ListClusterJobs(cluster_service_pb2.ListClusterJobsRequest(), timeout=10).jobs
        mine = next(row for row in jobs if row.job_uid == job.uid)
        assert (mine.scheduler_job_id, mine.state) == (job.scheduler_job_id, "RUNNING")
        assert (mine.core_count, mine.node_count) == (3, 1)
        service.cancel(job)
        service.ended(job)
