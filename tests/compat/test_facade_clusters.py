"""The documented names that have to do with clusters, with a scheduler in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from edbjobs_pyedb import submit_job_on_scheduler
from edbjobs_pyedb.configuration import HFSSSimulationConfig, SchedulerOptions
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.service import JobManager, SchedulerManager
from edbjobs_server.executors.schedulers.base import Submission
from edbjobs_server.executors.schedulers.slurm import Slurm
from edbjobs_server.executors.schedulers.slurm.directives import directives
from edbjobs_server.gateway.documented.config import SchedulerType
from support.facade import config
from support.memory_cluster import ClusterService, MemorySlurm

DOCUMENTED_PARTITION = {
    "name",
    "nodes_total",
    "nodes_used",
    "cores_total",
    "cores_used",
    "memory_total_gb",
    "memory_used_gb",
}
DOCUMENTED_JOB = {"job_id", "partition", "user", "state", "nodes", "cpus", "memory_gb"}


class Written(MemorySlurm):
    """Writes SLURM's directives, and keeps what it was handed."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[Submission] = []

    def directives(self, allocation: Any) -> Any:
        return directives(allocation)

    def submit_command(self, submission: Submission) -> Any:
        return Slurm({}).submit_command(submission)

    async def submit(self, submission: Submission) -> str:
        assert submission.output.parent.is_dir(), "the run's folder is there before the run"
        self.handed.append(submission)
        return await super().submit(submission)


@pytest.fixture
def slurm() -> Iterator[Written]:
    scheduler = Written()
    with mock.patch("edbjobs_pyedb.cluster.make_scheduler", return_value=scheduler):
        yield scheduler


def cluster_config(folder: Path, scheduler: str = "slurm", **more: Any) -> HFSSSimulationConfig:
    made = config(folder, jobid="j1", scheduler_type=scheduler, ansys_edt_path="/opt/v252/AnsysEM/ansysedt", **more)
    made.scheduler_options = SchedulerOptions(
        queue="normal", nodes=2, cores_per_node=8, time="1-12:00:00", gpus=2, gpu_type="a100", account="proj1"
    )
    return made


def test_the_script_is_that_of_the_service(state: Path, tmp_path: Path) -> None:
    """Faults 25, 26: options were dropped, numbers and types in the wrong order, and bash could not read it."""
    made = cluster_config(tmp_path)
    text = made.generate_slurm_script()
    assert text == made.generate_scheduler_script()
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    asked = "\n".join(lines)
    for option in ("--nodes=2", "--partition=normal", "--time=1-12:00:00", "a100:2", "--account=proj1"):
        assert option in asked, asked
    assert "-batchsolve" in text
    assert made.project_path in text
    assert "/opt/v252/AnsysEM/ansysedt" in text
    assert f"{Path(made.project_path).parent}/j1_slurm" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_every_scheduler_has_its_script(state: Path, tmp_path: Path) -> None:
    made = cluster_config(tmp_path)
    made.scheduler_options = SchedulerOptions(nodes=2, cores_per_node=8)
    text = made.generate_lsf_script()
    assert "#BSUB " in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    made.scheduler_type = SchedulerType.LSF
    assert made.generate_scheduler_script() == text
    made.scheduler_type = SchedulerType.PBS
    assert "#PBS " in made.generate_scheduler_script()


@pytest.mark.parametrize("scheduler", ["none", "local", "windows_hpc"])
def test_a_script_wants_a_scheduler_that_is_there(state: Path, tmp_path: Path, scheduler: str) -> None:
    with pytest.raises(JobManagerError) as error:
        cluster_config(tmp_path, scheduler).generate_scheduler_script()
    assert error.value.reason == "NO_SCHEDULER"


def test_what_a_scheduler_cannot_be_asked_is_named(state: Path, tmp_path: Path) -> None:
    made = cluster_config(tmp_path)
    made.scheduler_options.queue = "a; touch evil"
    with pytest.raises(JobManagerError) as error:
        made.generate_slurm_script()
    assert list(error.value.fields) == ["config.scheduler_options.queue"]


def test_an_id_is_made_once(state: Path, tmp_path: Path) -> None:
    made = cluster_config(tmp_path)
    made.jobid = None
    assert made.generate_slurm_script() == made.generate_slurm_script()
    assert made.jobid is not None


@pytest.mark.parametrize("method", ["submit_to_scheduler", "run_simulation"])
def test_a_job_is_handed_over(state: Path, tmp_path: Path, slurm: Written, method: str) -> None:
    made = cluster_config(tmp_path)
    done = getattr(made, method)()
    assert (done.returncode, done.stdout, done.stderr) == (0, "Submitted batch job 1\n", "")
    assert done.args[0] == "sbatch"
    (handed,) = slurm.handed
    assert handed.script == Path(made.project_path).parent / "j1_slurm.sh"
    assert handed.script.read_text() == made.generate_slurm_script()
    assert handed.cwd == handed.script.parent / "j1_slurm"
    with pytest.raises(JobManagerError, match="was submitted before") as error:
        made.submit_to_scheduler()
    assert error.value.reason == "FOLDER_EXISTS"


def test_the_script_is_written_to_the_given_path(state: Path, tmp_path: Path, slurm: Written) -> None:
    made = cluster_config(tmp_path)
    made.submit_to_scheduler("scripts/mine.sh")
    assert slurm.handed[0].script == Path(made.project_path).parent / "scripts" / "mine.sh"


def test_a_refusal_is_a_return_code_and_may_be_mended(state: Path, tmp_path: Path, slurm: Written) -> None:
    slurm.refuses = "sbatch: error: invalid partition specified: normal"
    made = cluster_config(tmp_path)
    done = made.submit_to_scheduler()
    assert (done.returncode, done.stdout) == (1, "")
    assert slurm.refuses in done.stderr
    slurm.refuses = ""
    assert made.submit_to_scheduler().returncode == 0


def test_a_submit_without_an_answer_is_never_made_twice(state: Path, tmp_path: Path, slurm: Written) -> None:
    slurm.swallows = "timed out"
    made = cluster_config(tmp_path)
    for reason in ("SCHEDULER_UNREACHABLE", "FOLDER_EXISTS"):
        with pytest.raises(JobManagerError) as error:
            made.submit_to_scheduler()
        assert error.value.reason == reason
    assert len(slurm.table) == 1


def test_no_scheduler_named_means_the_one_that_answers(state: Path, tmp_path: Path, slurm: Written) -> None:
    with mock.patch("edbjobs_pyedb.cluster.installed", return_value=["slurm"]):
        assert cluster_config(tmp_path, "none").submit_to_scheduler().returncode == 0
        slurm.silent = "controller down"
        made = cluster_config(tmp_path / "b", "none")
        with pytest.raises(JobManagerError, match=r"no scheduler answers on this host.*controller down") as error:
            made.submit_to_scheduler()
    assert error.value.reason == "NO_SCHEDULER"


async def test_in_a_running_loop_too(state: Path, tmp_path: Path, slurm: Written) -> None:
    assert cluster_config(tmp_path).submit_to_scheduler().returncode == 0


async def test_what_is_on_the_cluster(state: Path, slurm: Written) -> None:
    manager = SchedulerManager(SchedulerType.SLURM)
    partitions = await manager.get_partitions()
    assert [item["name"] for item in partitions] == ["normal", "closed"]
    assert partitions[0].keys() >= DOCUMENTED_PARTITION
    (job,) = await manager.get_jobs()
    assert job.keys() >= DOCUMENTED_JOB
    assert (job["job_id"], job["user"], job["cpus"]) == ("9000", "bob", 16)
    slurm.silent = "controller down"
    with pytest.raises(JobManagerError, match="controller down") as error:
        await manager.get_partitions()
    assert error.value.reason == "SCHEDULER_UNREACHABLE"


# With a service of its own -----------------------------------------------------------------------------------


def test_jobs_without_a_scheduler_go_to_the_detected_cluster(tmp_path: Path) -> None:
    with ClusterService(tmp_path) as service:
        handler = service.handler
        # At once: what is not known yet is waited for, not taken for nothing.
        job_id = handler.submit_job(config(tmp_path / "a", jobid="detected"))
        assert handler.scheduler_type is SchedulerType.SLURM
        service.until(lambda: handler.manager.jobs[job_id].status == "scheduled")
        assert handler.manager.jobs[job_id].scheduler_job_id == "1"
        handler.submit_job(config(tmp_path / "b", jobid="here", scheduler_type="local"))
        assert handler.wait_until_done("here") == "completed"


def test_a_manager_is_told_where_its_jobs_go(tmp_path: Path) -> None:
    with ClusterService(tmp_path) as service:
        manager: JobManager = service.handler.manager
        manager.scheduler_type = SchedulerType.LOCAL
        service.handler.submit_job(config(tmp_path / "a", jobid="here"))
        assert service.handler.wait_until_done("here") == "completed"


def test_the_command_submits_to_the_cluster_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault 33: it never named a scheduler."""
    with ClusterService(tmp_path) as service:
        port = service.url.rpartition(":")[2]
        project = config(tmp_path / "a").project_path
        line = ["--port", port, "--project-path", project, "--partition", "normal", "--nodes", "2", "--run-limit", "30"]
        monkeypatch.setattr(sys, "argv", ["submit_job_on_scheduler", "--host", "127.0.0.1", *line])
        submit_job_on_scheduler.main()
        job_id = capsys.readouterr().out.split()[-1]
        service.until(lambda: service.handler.manager.jobs[job_id].status == "scheduled")
        job = service.handler.manager.jobs[job_id]
        assert job.config.scheduler_type is SchedulerType.SLURM
        options = job.config.scheduler_options
        assert (options.queue, options.nodes, options.time) == ("normal", 2, "1-06:00:00")
