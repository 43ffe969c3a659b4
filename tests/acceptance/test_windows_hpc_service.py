"""The service on Windows HPC, over TLS to a head node that is made from Microsoft's documents and runs nothing.

The test plays the node: it writes what the batch script would write, and has the demo solver solve the project.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from edbjobs._calls import job_ref
from edbjobs.v1 import cluster_pb2, cluster_service_pb2, event_pb2, job_config_pb2, job_pb2, jobs_messages_pb2
from edbjobs_server.solver.demo import example_project
from google.protobuf.duration_pb2 import Duration
from support.batch_service import QUICK, quick
from support.fake_hpcpack import PASSWORD, USER, FakeHpcPack
from support.hpc_runs import SHARE, SOLVER, Node
from support.service import ServiceProcess
from support.slurm_service import BY_SOMEBODY, DONE, TIMEOUT, TO_STARTED, end, eventually, state

HEAD = "windows_hpc"


class HeadNode:
    """A fake head node that answers from a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.fake = FakeHpcPack(folder)

    def __enter__(self) -> HeadNode:
        self._thread.start()
        self._do(self.fake.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self.fake.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Cut every connection for a while."""
        self.fake.trouble("GET", ".*", lambda: "cut", times=10**9)
        self.fake.trouble("POST", ".*", lambda: "cut", times=10**9)
        try:
            yield
        finally:
            self.fake.calm()


class HpcService(ServiceProcess):
    """A service that hands jobs to a head node; its nodes see the folder ``shared`` as `SHARE`."""

    def __init__(self, folder: Path, head: HeadNode) -> None:
        self.shared = folder / "shared ü"
        self.shared.mkdir(parents=True)
        self.secret = folder / "credentials"
        self.head = head
        self.node = Node(head.fake, self.shared)
        self.password(PASSWORD)
        settings = {"scheduler": HEAD, "hpc_url": head.fake.url, "hpc_credentials": str(self.secret)}
        more = {"hpc_ca": str(head.fake.ca_file), "hpc_solvers": [str(SOLVER)], "cluster_poll_seconds": 1}
        super().__init__(folder, shared_dir=str(self.shared / "runs"), **settings, **more)
        site = folder / "site.toml"
        site.write_text(f"[path_map]\n{json.dumps(str(self.shared), ensure_ascii=False)} = '{SHARE}'\n")
        policy = f"app.load_site_policy = partial(site_policy.load_site_policy, Path({str(site)!r}))"
        imports = (
            "from pathlib import Path\nfrom edbjobs_server.config import site_policy\n"
            "from edbjobs_server.service import app"
        )
        self.prelude = "\n".join((quick(HEAD, 3.0, {**QUICK, "confirm": 1.0, "stale": 2.0}), imports, policy))

    def password(self, text: str) -> None:
        """Write the file with user and password."""
        self.secret.touch(mode=0o600)
        self.secret.write_text(f"{USER}\n{text}\n", encoding="utf-8")

    def __enter__(self) -> HpcService:
        self.start()
        self.answering(True)
        return self

    def answering(self, expected: bool) -> cluster_pb2.SchedulerStatus:
        """Wait until the service says that the head node answers, or does not."""

        def ask() -> cluster_pb2.SchedulerStatus:
            request = cluster_service_pb2.GetSystemStatusRequest()
            schedulers = self.cluster.GetSystemStatus(request, timeout=10).schedulers
            return next(scheduler for scheduler in schedulers if scheduler.name == HEAD)

        found: cluster_pb2.SchedulerStatus = eventually("it answers", ask, lambda now: now.responding is expected)
        return found

    # Jobs ------------------------------------------------------------------------------------------------

    def request(self, project: Path | None = None, **values: Any) -> jobs_messages_pb2.SubmitJobRequest:
        """Make a request."""
        path = project or example_project(self.shared / "it's a board" / str(time.monotonic_ns()))
        number = "windows_hpc"
        request_id = values.pop("request_id", "")
        config = job_config_pb2.JobConfig(project_path=str(path), **{"scheduler": number, **values})
        return jobs_messages_pb2.SubmitJobRequest(config=config, request_id=request_id)

    def submit(self, project: Path | None = None, **values: Any) -> job_pb2.Job:
        """Submit a job."""
        return self.jobs.SubmitJob(self.request(project, **values), timeout=10).job

    def until(self, job: job_pb2.Job, what: str, wanted: Any) -> job_pb2.Job:
        """Wait until something holds of a job."""
        request = jobs_messages_pb2.GetJobRequest(job=job_ref(job.uid))
        found: job_pb2.Job = eventually(what, lambda: self.jobs.GetJob(request, timeout=10).job, wanted)
        return found

    def scheduled(self, job: job_pb2.Job) -> job_pb2.Job:
        """Wait until the head node has a job."""
        return self.until(job, "it is handed over", lambda now: bool(now.scheduler_job_id))

    def running(self, job: job_pb2.Job) -> job_pb2.Job:
        """Have a node begin a job, and wait until the service knows."""
        self.node.job_starts(self.scheduled(job).scheduler_job_id)
        return self.until(job, "it runs", lambda now: state(now) == "RUNNING")

    def ended(self, job: job_pb2.Job) -> job_pb2.Job:
        """Wait for the end of a job."""
        request = jobs_messages_pb2.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=int(TIMEOUT)))
        answer = self.jobs.WaitJob(request, timeout=TIMEOUT + 5)
        assert answer.job.HasField("end_time"), f"{answer.job}\n{self.output()[-3000:]}"
        return answer.job

    def cancel(self, job: job_pb2.Job) -> None:
        """Cancel a job."""
        self.jobs.CancelJob(jobs_messages_pb2.CancelJobRequest(job=job_ref(job.uid)), timeout=10)

    def story(self, job: job_pb2.Job) -> list[str]:
        """Return the events of a job that has ended, without progress."""
        request = jobs_messages_pb2.WatchJobsRequest(
            from_oldest=True, filter=jobs_messages_pb2.JobFilter(jobs=[job_ref(job.uid)])
        )
        found: list[str] = []
        for message in self.jobs.WatchJobs(request, timeout=30):
            found += [event_pb2.JobChangeType.Name(event.job_change.type) for event in message.events]
            if message.caught_up:
                break
        return [name.removeprefix("JOB_CHANGE_TYPE_") for name in found]

    def solve(self, job: job_pb2.Job, demo: str = "seconds=0.1") -> int:
        """Have the demo solver solve a job's project, as the program of the node would; gives its exit code."""
        script = self.node.script(self.scheduled(job).scheduler_job_id)
        name = re.search(r"\('-jobid'\)\s+\('([^']+)'\)", script)
        assert name is not None, script
        argv = [sys.executable, "-m", "edbjobs_server.solver.demo", "-jobid", name[1], "-ng", "-batchsolve"]
        env = {**os.environ, "ANS_EDBJOBS_DEMO": demo}
        return subprocess.run(
            [*argv, job.config.project_path], env=env, stdout=subprocess.DEVNULL, timeout=30
        ).returncode


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadNode]:
    with HeadNode(tmp_path_factory.mktemp("head")) as running:
        yield running
    assert running.fake.violations == []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, head: HeadNode) -> Iterator[HpcService]:
    with HpcService(tmp_path_factory.mktemp("service") / "s", head) as running:
        yield running


# Ends -----------------------------------------------------------------------------------------------------


def test_success_is_proven_by_the_log(service: HpcService) -> None:
    job = service.running(service.submit(scheduler_options={"cores_per_node": 4}))
    service.node.ends(job.scheduler_job_id, service.solve(job))
    job = service.ended(job)
    assert end(job) == DONE
    assert (job.outcome.exit_code, list(job.attempts[0].nodes), job.scheduler) == (0, ["CN001"], HEAD)
    assert service.story(job) == [*TO_STARTED, "COMPLETED"]
    asked = service.head.fake.jobs[int(job.scheduler_job_id)]
    assert asked.job["Name"] == f"edb-{job.id}-{job.uid[-16:]}-1"
    assert str(service.shared) not in service.node.script(job.scheduler_job_id)
    assert str(service.shared) not in str(asked.tasks)


def test_exit_code_0_without_a_log_proves_less(service: HpcService) -> None:
    job = service.running(service.submit())
    service.node.ends(job.scheduler_job_id, 0)
    job = service.ended(job)
    assert end(job) == ("COMPLETED", "NORMAL", "EXIT_CODE")
    assert "no log of this run" in job.outcome.message


@pytest.mark.parametrize("code", [3, -1073741819])
def test_an_exit_code(service: HpcService, code: int) -> None:
    job = service.running(service.submit())
    service.node.ends(job.scheduler_job_id, code)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "EXIT_CODE")
    assert job.outcome.exit_code == code
    assert service.story(job) == [*TO_STARTED, "FAILED"]


@pytest.mark.parametrize("started", [False, True], ids=["it waits", "it runs"])
def test_somebody_cancels_it(service: HpcService, started: bool) -> None:
    job = service.running(service.submit()) if started else service.scheduled(service.submit())
    service.head.fake.cancel(job.scheduler_job_id)
    job = service.ended(job)
    assert end(job) == BY_SOMEBODY
    assert "maintenance" in job.outcome.message
    assert job.HasField("start_time") is started


@pytest.mark.parametrize("started", [False, True], ids=["it waits", "it runs"])
def test_we_cancel_it(service: HpcService, started: bool) -> None:
    job = service.running(service.submit()) if started else service.scheduled(service.submit())
    service.cancel(job)
    job = service.ended(job)
    assert end(job) == ("CANCELLED", "CANCELLED", "SCHEDULER" if started else "SERVICE")
    its = service.head.fake.jobs[int(job.scheduler_job_id)]
    eventually("the head node has ended it", lambda: its.job["State"], lambda now: now == "Canceled")
    assert service.story(job)[-2:] == ["CANCEL_REQUESTED", "CANCELLED"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [("-2147218987", "TIMEOUT"), ("-2147218984", "NODE_FAIL"), ("-2147218978", "PREEMPTED")],
)
def test_the_head_node_ends_it(service: HpcService, number: str, reason: str) -> None:
    job = service.running(service.submit())
    service.head.fake.end(job.scheduler_job_id, "Failed", ErrorMessage="Fehler", ErrorCode=number)
    job = service.ended(job)
    assert end(job) == ("FAILED", reason, "SCHEDULER")
    assert "Fehler" in job.outcome.message


# Submits --------------------------------------------------------------------------------------------------


def test_a_refused_submit(service: HpcService) -> None:
    answer = web.json_response("Die Knotengruppe ist nicht vorhanden.", status=400)
    service.head.fake.trouble("POST", r"/jobs/\d+/submit", lambda: answer)
    job = service.ended(service.submit())
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert "Die Knotengruppe ist nicht vorhanden" in job.outcome.message
    assert service.story(job) == ["QUEUED", "STARTING", "FAILED"]


def test_a_submit_that_was_not_answered_but_happened(service: HpcService) -> None:
    service.head.fake.trouble("POST", r"/jobs/\d+/submit", lambda: "cut", when="after")
    before = set(service.head.fake.jobs)
    job = service.running(service.submit())
    service.node.ends(job.scheduler_job_id, service.solve(job))
    job = service.ended(job)
    assert (end(job), job.attempt_count) == (DONE, 1)
    assert set(service.head.fake.jobs) - before == {int(job.scheduler_job_id)}


def test_a_project_that_the_nodes_do_not_see(service: HpcService, tmp_path: Path) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        service.submit(example_project(tmp_path / "elsewhere"))
    assert "below no folder that the nodes see" in str(refused.value.details())


# The head node is away, the service is killed -----------------------------------------------------------


def test_away_while_a_job_runs_and_ends(service: HpcService) -> None:
    job = service.running(service.submit())
    with service.head.away():
        status = service.answering(False)
        assert (bool(status.error), bool(status.version)) == (True, True)
        service.node.ends(job.scheduler_job_id, service.solve(job))
        local = service.submit(scheduler="local", aedt_path=stand_in(service))
        assert end(service.ended(local)) == DONE
        waiting = service.submit()
        service.until(waiting, "it waits", lambda now: "since" in now.waiting.message)
        assert state(service.until(job, "it is told", bool)) == "RUNNING"
    assert end(service.ended(job)) == DONE
    waiting = service.running(waiting)
    service.node.ends(waiting.scheduler_job_id, service.solve(waiting))
    assert end(service.ended(waiting)) == DONE


def stand_in(service: HpcService) -> str:
    solvers = service.cluster.ListSolvers(cluster_service_pb2.ListSolversRequest(), timeout=10).solvers
    return next(solver.path for solver in solvers if solver.demo)


def test_a_password_that_is_wrong_and_put_right(service: HpcService) -> None:
    job = service.running(service.submit())
    service.password("wr0ng wört")
    try:
        assert "401" in service.answering(False).error
    finally:
        service.password(PASSWORD)
    service.node.ends(job.scheduler_job_id, 3)
    assert end(service.ended(job)) == ("FAILED", "EXIT_CODE", "EXIT_CODE")
    logs = "".join(path.read_text(errors="replace") for path in service.state_dir.rglob("*.log*"))
    for end_in_output in (service.output(), logs):
        assert "wr0ng" not in end_in_output
        assert PASSWORD not in end_in_output


@pytest.mark.parametrize("when", ["it waits", "it runs", "it ends", "it is forgotten"])
def test_the_service_is_killed_while(service: HpcService, when: str) -> None:
    job = service.scheduled(service.submit())
    if when != "it waits":
        service.running(job)
    service.kill()
    if when in ("it ends", "it is forgotten"):
        service.node.ends(job.scheduler_job_id, 3)
    if when == "it is forgotten":
        service.head.fake.purge(job.scheduler_job_id)
    service.start()
    if when == "it waits":
        service.running(job)
    if when in ("it waits", "it runs"):
        service.node.ends(job.scheduler_job_id, 3)
    job = service.ended(job)
    assert end(job) == ("FAILED", "EXIT_CODE", "EXIT_CODE")
    assert job.outcome.exit_code == 3
    assert service.story(job) == [*TO_STARTED, "FAILED"]


@pytest.mark.parametrize(("point", "attempts"), [("cluster.before_submit", 2), ("cluster.after_submit", 1)])
def test_the_service_is_killed_at(service: HpcService, point: str, attempts: int) -> None:
    before = set(service.head.fake.jobs)
    request = service.request(request_id=point)
    job = service.running(service.dies_at(point, request, lambda: service.answering(True)))
    service.node.ends(job.scheduler_job_id, service.solve(job))
    job = service.ended(job)
    assert (end(job), job.attempt_count) == (DONE, attempts)
    assert set(service.head.fake.jobs) - before == {int(job.scheduler_job_id)}


# What there is --------------------------------------------------------------------------------------------


def test_node_groups_and_jobs_are_told(service: HpcService) -> None:
    job = service.running(service.submit())
    queues = service.cluster.ListPartitions(cluster_service_pb2.ListPartitionsRequest(), timeout=20).partitions
    groups = {queue.name: (queue.nodes_total, queue.cores_total) for queue in queues}
    assert groups["ComputeNodes"] == (2, 24)
    assert groups["Big"] == (1, 16)
    assert {queue.scheduler for queue in queues} == {HEAD}
    jobs = service.cluster.ListClusterJobs(cluster_service_pb2.ListClusterJobsRequest(), timeout=20).jobs
    assert [list(item.nodes) for item in jobs if item.job_uid == job.uid] == [["CN001"]]
    service.cancel(job)
    service.ended(job)


def test_solvers_of_the_nodes_are_told(service: HpcService) -> None:
    """Beside those of this host, which Windows' nodes cannot run."""
    found = service.cluster.ListSolvers(cluster_service_pb2.ListSolversRequest(), timeout=20).solvers
    assert {(item.scheduler, item.demo) for item in found} == {("", True), (HEAD, False)}
    (theirs,) = [item for item in found if item.scheduler]
    assert (theirs.path, theirs.source_name) == (str(SOLVER), "hpc_solvers")
    assert theirs.source == cluster_pb2.SOLVER_SOURCE_SETTINGS
