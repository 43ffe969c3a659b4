"""The commands that have to do with clusters, against a service with a scheduler in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import Phase
from edbjobs_server.solver.demo import example_project
from support.memory_cluster import ClusterService

Run = Callable[..., subprocess.CompletedProcess[str]]
ON_CLUSTER = ("--scheduler", "slurm")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ClusterService]:
    with ClusterService(tmp_path, max_local_jobs=2) as running:
        yield running


@pytest.fixture
def edbjobs(service: ClusterService) -> Run:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "edbjobs", *arguments],
            env={**os.environ, "EDBJOBS_TARGET": service.target, "COLUMNS": "140"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done
        return done

    return run


@pytest.fixture
def project(tmp_path: Path) -> str:
    return str(example_project(tmp_path / "p"))


def parse_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def waiting(edbjobs: Run, name: str) -> Callable[[], bool]:
    def waits() -> bool:
        found = parse_json(edbjobs("show", name, "--json"))["waiting"]
        return found is not None and bool(found["message"] == "slurm job 1: Resources")

    return waits


def test_a_cluster_job_is_shown_with_its_id_and_waiting_reason(
    edbjobs: Run, service: ClusterService, project: str
) -> None:
    assert edbjobs("submit", project, "--id", "c1", *ON_CLUSTER, "--partition", "normal").stdout == "c1\n"
    service.until(waiting(edbjobs, "c1"))
    assert "slurm job 1: Resources" in edbjobs("list").stdout
    shown = edbjobs("show", "c1").stdout
    assert shown.startswith("c1  scheduled")
    assert "slurm job 1: Resources" in shown
    assert "slurm 1" in next(line for line in shown.splitlines() if line.startswith("runs on")).split("  ")
    service.job_starts(1, "1", "n1", "n2")
    service.scheduler.set("1", Phase.RUNNING, "RUNNING", nodes=("n1", "n2"))
    service.until(lambda: parse_json(edbjobs("show", "c1", "--json"))["state"] == "running")
    assert "slurm 1 on n1, n2" in edbjobs("show", "c1").stdout
    assert "running" in edbjobs("list").stdout
    with subprocess.Popen(
        [sys.executable, "-m", "edbjobs", "watch", "c1"],
        env={**os.environ, "EDBJOBS_TARGET": service.target},
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "c1: running: slurm 1\n"  # events name no nodes
        service.scheduler.set("1", Phase.ENDED, "NODE_FAIL", ending=Ending.NODE_FAIL, message="node n2 failed")
        assert "failed" in watch.stdout.read()
        assert watch.wait(30) == 1
    assert parse_json(edbjobs("show", "c1", "--json"))["outcome"]["reason"] == "node_fail"


def test_options_become_fields(edbjobs: Run, service: ClusterService, project: str) -> None:
    asked = (
        *("--partition", "normal", "--nodes", "2", "--tasks-per-node", "2", "--cores-per-node", "8"),
        *("--memory-per-node", "64GB", "--time-limit", "24:00:00", "--account", "proj1", "--qos", "high"),
        *("--constraint", "ib", "--gpus-per-node", "a100:2", "--exclusive"),
    )
    job = parse_json(edbjobs("submit", project, *ON_CLUSTER, *asked, "--json"))
    assert (job["scheduler"], job["config"]["scheduler"]) == ("slurm", "slurm")
    assert job["config"]["time_limit"] == 86_400
    assert job["config"]["scheduler_options"] == {
        "partition": "normal",
        "nodes": 2,
        "tasks_per_node": 2,
        "cores_per_node": 8,
        "memory_bytes_per_node": 64 * 1024**3,
        "account": "proj1",
        "qos": "high",
        "constraint": "ib",
        "gpus_per_node": 2,
        "gpu_type": "a100",
        "exclusive": True,
    }
    assert job["reservation"]["cores"] == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nodes", "2", "--partition", "normal"), "partition, nodes: only a cluster has these options"),
        (("--scheduler", "local", "--qos", "high"), "qos: only a cluster has these options"),
        ((*ON_CLUSTER, "--gpus-per-node", "many"), "--gpus-per-node 'many': expected a number"),
        ((*ON_CLUSTER, "--memory-per-node", "many"), "--memory-per-node 'many': expected a size"),
        ((*ON_CLUSTER, "--cores", "4"), "cores: is of the service's host"),
    ],
)
def test_invalid_cluster_options_are_refused_before_anything_is_sent(
    edbjobs: Run, project: str, options: tuple[str, ...], message: str
) -> None:
    assert message in edbjobs("submit", project, *options, code=2).stderr


def test_a_scheduler_that_the_service_does_not_have_is_refused(edbjobs: Run, project: str) -> None:
    done = edbjobs("submit", project, "--scheduler", "nonsense", "--json", code=1)
    error = parse_json(done)["error"]
    assert (error["reason"], list(error["fields"])) == ("NO_SCHEDULER", ["config.scheduler"])


def test_preview_shows_script_and_command(edbjobs: Run, project: str) -> None:
    done = edbjobs("preview", project, *ON_CLUSTER)
    assert "job-name=edb-" in done.stdout
    assert "submit " in done.stdout
    assert "-batchsolve" in done.stdout
    found = parse_json(edbjobs("preview", project, *ON_CLUSTER, "--json"))
    assert found["scheduler"] == "slurm"
    assert found["script"].startswith("#!/bin/bash\n")
    assert found["submit_command"].startswith("submit ")


def test_partitions(edbjobs: Run, service: ClusterService) -> None:
    lines = edbjobs("partitions").stdout.splitlines()
    assert lines[0].split("  ")[0] == "SCHEDULER"
    cells = [cell.strip() for cell in lines[1].split("  ") if cell.strip()]
    assert cells == ["slurm", "normal*", "up", "3 of 4", "24 of 32", "192.0 GiB of 256.0 GiB", "1-12:00:00"]
    assert lines[2].split()[-2:] == ["no", "limit"]
    (normal, _) = parse_json(edbjobs("partitions", *ON_CLUSTER, "--json"))
    assert (normal["name"], normal["cores_free"], normal["memory_total_bytes"]) == ("normal", 24, 256 * 2**30)
    assert "lsf is no cluster of this service" in edbjobs("partitions", "--scheduler", "lsf", code=1).stderr


def test_jobs_of_the_cluster(edbjobs: Run, service: ClusterService, project: str) -> None:
    uid = parse_json(edbjobs("submit", project, *ON_CLUSTER, "--json"))["uid"]
    service.until(lambda: service.scheduler.table)
    (ours,) = parse_json(edbjobs("cluster-jobs", "--mine", "--json"))
    assert (ours["scheduler_job_id"], ours["job_uid"], ours["reason"]) == ("1", uid, "Resources")
    assert "PENDING: Resources" in edbjobs("cluster-jobs").stdout
    assert [job["user"] for job in parse_json(edbjobs("cluster-jobs", "--partition", "closed", "--json"))] == ["bob"]
    assert edbjobs("cluster-jobs", "--user", "nobody").stdout == "no jobs\n"


def test_status_shows_whether_a_scheduler_answers_and_since_when(edbjobs: Run, service: ClusterService) -> None:
    service.until(lambda: "slurm memory 1 answers since 20" in edbjobs("status").stdout)
    service.scheduler.silent = "Unable to contact slurm controller"
    text = "does not answer since 20"
    service.until(lambda: text in edbjobs("status").stdout)
    assert "Unable to contact slurm controller" in edbjobs("status").stdout
    (slurm,) = [item for item in parse_json(edbjobs("status", "--json"))["schedulers"] if item["name"] == "slurm"]
    assert slurm["responding"] is False
    assert "slurm does not respond: Unable" in edbjobs("partitions", code=1).stderr
    assert "slurm does not answer: Unable" in edbjobs("partitions", *ON_CLUSTER, code=1).stderr
