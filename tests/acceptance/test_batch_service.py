"""What does not depend on the batch system: what its commands are given, how often they are run, what jobs get."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from edbjobs.v1 import cluster_service_pb2, jobs_messages_pb2
from support.batch_service import LSF, OLD_LSF, PBS, QUICK, WITHHELD, BatchService
from support.slurm_service import DONE, LONG, TO_STARTED, end, eventually, program


@pytest.fixture(scope="module", params=[PBS, LSF, OLD_LSF], ids=["pbs", "lsf", "old lsf"])
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[BatchService]:
    folder = tmp_path_factory.mktemp("batch")
    solver = program(
        folder / "env",
        'env -0 >"$ANS_EDBJOBS_DEMO_WITNESS/env.new"',
        'cd "$ANS_EDBJOBS_DEMO_WITNESS"',
        "mv env.new env",
    )
    fake = request.param.start(folder / "fake", {"n1": 16, "n2": 16})
    try:
        with BatchService(folder / "service", request.param, fake, solvers=[str(solver)]) as running:
            yield running
    finally:
        fake.stop()


def test_no_command_is_given_secrets_or_habits(service: BatchService) -> None:
    service.ended(service.submit())
    commands = service.commands()
    assert {call["argv"][0] for call in commands} >= {service.kind.poll[0], service.kind.submit[0]}
    for call in commands:
        assert not WITHHELD.keys() & call["env"].keys()
        assert "t0ken" not in str(call["env"])
        assert str(Path(sys.prefix, "bin")) not in call["env"]["PATH"].split(":")
        assert (call["env"]["LC_ALL"], call["env"]["LANG"]) == ("C", "C")


def test_the_environment_of_a_job(service: BatchService) -> None:
    """It has the language of the service and not that of the command that submitted it, and nothing of its own."""
    language = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    service.ended(service.submit(aedt_path=str(service.settings["solvers"][0]), job_id="env"))
    words = (service.witness / "env").read_text().split("\0")
    found = dict(word.split("=", 1) for word in words if word)
    assert found["ANS_EDBJOBS_DEMO"]
    assert not [name for name in found if name.startswith("EDBJOBS") or (name in WITHHELD)]
    assert "t0ken" not in str(found)
    assert str(Path(sys.prefix, "bin")) not in found["PATH"].split(":")
    assert {name: found[name] for name in ("LANG", "LC_ALL") if name in found} == language


def test_what_is_written_is_for_the_account_alone(service: BatchService) -> None:
    job = service.ended(service.submit())
    folder = service.run_folder(job)
    above = [folder, *folder.parents]
    own = above[: above.index(Path(service.settings["shared_dir"])) + 1]
    assert {oct(path.stat().st_mode & 0o777) for path in own} == {"0o700"}
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    report = set() if service.kind is PBS else {"scheduler.out"}  # which LSF itself writes, with a mode of its own
    assert {name for name, mode in modes.items() if mode & 0o077} <= report
    assert {"script", "claim", "start", "beat", "exit", "stdout", "stderr", "scheduler.out"} <= modes.keys()
    assert not [name for name in modes if name.startswith(".")]
    usual = os.umask(0)
    os.umask(usual)
    log = Path(job.config.project_path).with_suffix(".aedtresults")
    assert log.stat().st_mode & 0o777 == 0o777 & ~usual


def test_one_question_is_for_all_jobs(service: BatchService) -> None:
    jobs = [service.submit(LONG) for _ in range(12)]
    for job in jobs:
        service.running(job)
    service.polled()
    begin = time.time()
    service.polled(5)
    window = [call for call in service.commands() if call["time"] >= begin]
    spent = time.time() - begin
    asked = Counter(tuple(call["argv"][:3]) for call in window)
    most = spent / QUICK["interval"] + 2
    assert all(count <= most for count in asked.values()), asked
    assert len(asked) <= 2, asked
    for job in jobs:
        service.cancel(job, 0)
    for job in jobs:
        assert end(service.ended(job)) == ("CANCELLED", "CANCELLED", "SCHEDULER")


def test_fifty_at_once(service: BatchService) -> None:
    requests = [service.request("seconds=0.1") for _ in range(50)]
    answer = service.jobs.SubmitJobs(jobs_messages_pb2.SubmitJobsRequest(requests=requests), timeout=30)
    jobs = [service.ended(result.response.job) for result in answer.results]
    assert [end(job) for job in jobs] == [DONE] * 50
    assert len({job.scheduler_job_id for job in jobs}) == 50
    assert [service.seen("start", job) for job in jobs] == [1] * 50
    assert [len(service.its_jobs(job)) for job in jobs] == [1] * 50
    assert service.story(jobs[-1]) == [*TO_STARTED, "COMPLETED"]


def test_queues_are_told(service: BatchService) -> None:
    before = len(service.commands())
    found = [service.cluster.ListPartitions(cluster_service_pb2.ListPartitionsRequest(), timeout=20) for _ in range(5)]
    queues = {queue.name: queue for queue in found[0].partitions}
    assert queues["small"].time_limit.seconds == 600
    default = queues["workq" if service.kind is PBS else "normal"]
    assert (default.is_default, default.state, default.scheduler) == (True, "up", service.kind.name)
    assert (default.nodes_total, default.cores_total) == (2, 32)
    asked = Counter(tuple(call["argv"][:2]) for call in service.commands()[before:])
    names = [("pbsnodes", "-a"), ("qstat", "-Q")] if service.kind is PBS else [("bqueues", "-l"), ("bhosts", "-w")]
    assert [asked[name] for name in names] == [1, 1]


def test_jobs_of_the_cluster_are_told(service: BatchService) -> None:
    job = service.running(service.submit(LONG, cores_per_node=2))

    def told() -> dict[str, tuple[str, str, int, str]]:
        jobs = service.cluster.ListClusterJobs(cluster_service_pb2.ListClusterJobsRequest(), timeout=20).jobs
        return {
            item.scheduler_job_id: (item.job_uid, item.partition, item.core_count, ",".join(item.nodes))
            for item in jobs
        }

    queue = "workq" if service.kind is PBS else "normal"
    wanted = (job.uid, queue, 2, "n1")
    eventually("it is told", told, lambda now: now.get(job.scheduler_job_id) == wanted)
    service.cancel(job, 0)
    service.ended(job)
