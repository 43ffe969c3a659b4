"""A service that stops: it reports that, ends watches and waits, and leaves runs running."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from edbjobs import BusyError, Client, ConnectError
from edbjobs._calls import job_ref
from edbjobs.v1 import (
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
    jobs_service_pb2_grpc,
    resources_service_pb2,
)
from edbjobs_server.solver.demo import example_project
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.service import DEADLINE, ServiceProcess

pb, S = jobs_messages_pb2, job_state_pb2
SERVICES = ("", "edbjobs.v1.JobsService", "edbjobs.v1.ResourcesService", "edbjobs.v1.ClusterService")
LONG_GRACE = "import edbjobs_server.service.app as app; app.GRACE_SECONDS = 300.0"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path, max_local_jobs=2) as running:
        yield running


def submit(service: ServiceProcess, name: str, demo: str = "seconds=0.1", hold: bool = False) -> job_pb2.Job:
    place = service.folder / name
    place.mkdir()
    config = job_config_pb2.JobConfig(project_path=str(example_project(place)), environment={"ANS_EDBJOBS_DEMO": demo})
    return service.jobs.SubmitJob(pb.SubmitJobRequest(job_id=name, config=config, hold=hold), timeout=10).job


def answer(error: BaseException) -> tuple[str, str]:
    """Code and reason of a refused call."""
    assert isinstance(error, grpc.Call)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return error.code().name, info.reason
    return error.code().name, ""


class Listener(threading.Thread):
    """Collects the messages of a stream, or one response, and its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.got: list[Any] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for message in self._call():
                self.got.append(message)
        except grpc.RpcError as error:
            self.error = error

    def has(self, number: int) -> None:
        """Wait for so many messages."""
        deadline = time.monotonic() + DEADLINE
        while len(self.got) < number:
            assert self.is_alive(), self.error
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ended(self) -> tuple[str, str]:
        """Wait for the end; return its code and reason."""
        self.join(DEADLINE)
        assert self.error is not None, self.got
        return answer(self.error)


def test_watchers_are_notified_of_the_stop_and_resume_after_it(service: ServiceProcess) -> None:
    submit(service, "held", hold=True)
    with grpc.insecure_channel(service.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        checks = [
            Listener(lambda name=name: health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60))  # type: ignore[misc]
            for name in SERVICES
        ]
        jobs = jobs_service_pb2_grpc.JobsServiceStub(channel)
        watch = Listener(lambda: jobs.WatchJobs(pb.WatchJobsRequest(from_oldest=True), timeout=60))
        for listener in (*checks, watch):
            listener.has(1)
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        assert watch.ended() == ("UNAVAILABLE", "DRAINING")
        for check in checks:
            check.join(DEADLINE)
            states = [message.status for message in check.got]
            assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert service.process.wait(DEADLINE) == 0
    last = watch.got[-1].position
    service.stop()
    service.start()
    service.jobs.ReleaseJob(pb.ReleaseJobRequest(job=job_ref("held")), timeout=10)
    request = pb.WatchJobsRequest(after=last)
    revisions: list[int] = []
    for message in service.jobs.WatchJobs(request, timeout=30):
        revisions += [event.revision for event in message.events]
        if any(event.job_change.job.state == S.JOB_STATE_COMPLETED for event in message.events):
            break
    assert revisions == list(range(last.revision + 1, last.revision + 1 + len(revisions)))


def test_waiting_calls_end_at_once(tmp_path: Path) -> None:
    """They do not last for the grace of open calls, which is five minutes here."""
    service = ServiceProcess(tmp_path, max_local_jobs=2)
    service.prelude = LONG_GRACE
    with service:
        submit(service, "held", hold=True)
        submit(service, "long", "seconds=60")
        jobs = service.jobs
        request = pb.WaitJobRequest(job=job_ref("held"), timeout=Duration(seconds=300))
        waiting = Listener(lambda: iter([jobs.WaitJob(request, timeout=200)]))
        tail = Listener(lambda: jobs.ReadLog(pb.ReadLogRequest(job=job_ref("long"), follow=True), timeout=200))
        watch = Listener(lambda: jobs.WatchJobs(pb.WatchJobsRequest(from_oldest=True), timeout=200))
        tail.has(1)
        watch.has(1)
        assert service.process is not None
        process = service.process
        process.send_signal(signal.SIGTERM)
        assert watch.ended() == ("UNAVAILABLE", "DRAINING")
        assert tail.ended() == ("UNAVAILABLE", "DRAINING")
        assert waiting.ended() == ("UNAVAILABLE", "DRAINING")
        assert process.wait(DEADLINE) == 0


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path)
    service.prelude = LONG_GRACE
    # A call that does not end by itself.
    service.prelude += """
import asyncio
from edbjobs_server.manager.status import ServiceStatus
async def sleep_on(self, *_): await asyncio.sleep(300)
ServiceStatus.set_paused = sleep_on
"""
    with service:
        resources = service.resources
        hanging = Listener(lambda: iter([resources.PauseQueue(resources_service_pb2.PauseQueueRequest(), timeout=200)]))
        with grpc.insecure_channel(service.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            check = Listener(lambda: health.Watch(health_pb2.HealthCheckRequest(), timeout=60))
            check.has(1)
            assert service.process is not None
            service.process.send_signal(signal.SIGTERM)
            check.has(2)
            assert check.got[-1].status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert service.process.poll() is None, "an open call has its grace"
        assert hanging.is_alive()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(DEADLINE) == 0
        hanging.join(DEADLINE)
        assert hanging.error is not None


def test_runs_go_on_and_nothing_more_starts(service: ServiceProcess) -> None:
    running = [submit(service, f"p{number}", "seconds=4") for number in range(2)]
    submit(service, "next")
    for job in running:
        wait_for_state(service, job, S.JOB_STATE_RUNNING)
    pids = [service.jobs.GetJob(pb.GetJobRequest(job=job_ref(job.uid))).job.attempts[0].pid for job in running]
    assert service.stop() == 0
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    for pid in pids:
        deadline = time.monotonic() + DEADLINE
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    service.start()
    for job, pid in zip(running, pids, strict=True):
        wait = pb.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=30))
        ended = service.jobs.WaitJob(wait, timeout=40).job
        assert (ended.state, ended.outcome.evidence) == (S.JOB_STATE_COMPLETED, S.EVIDENCE_SOLVER_LOG)
        assert [attempt.pid for attempt in ended.attempts] == [pid]
    wait = pb.WaitJobRequest(job=job_ref("next"), timeout=Duration(seconds=30))
    last = service.jobs.WaitJob(wait, timeout=40).job
    assert last.state == S.JOB_STATE_COMPLETED
    assert last.attempts[0].reserve_time.ToNanoseconds() >= ended.end_time.ToNanoseconds()


def wait_for_state(service: ServiceProcess, job: job_pb2.Job, state: S.JobState.ValueType) -> None:
    request = pb.WatchJobsRequest(from_oldest=True)
    request.filter.jobs.append(job_ref(job.uid))
    for message in service.jobs.WatchJobs(request, timeout=30):
        if any(event.job_change.job.state == state for event in message.events):
            return


def insist(client: Client, project: str, name: str) -> str:
    """Submit until it succeeds; the only errors in between are those of an unreachable service."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return client.submit(project, job_id=name, request_id=name, hold=True).id
        except (ConnectError, BusyError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_submits_through_restarts_fail_at_most_as_unavailable(service: ServiceProcess) -> None:
    """A call during the stop or the start, sent again, submits its job exactly once."""
    for number in range(3):
        submit(service, f"p{number}", hold=True)
    project = str(service.folder / "p0" / "patch_antenna.aedt")
    names: list[str] = []
    failures: list[BaseException] = []
    enough = threading.Event()

    def work(worker: int) -> None:
        try:
            with Client(service.target) as client:
                for number in range(100_000):
                    if enough.is_set():
                        return
                    names.append(insist(client, project, f"w{worker}-{number}"))
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(2):
        before = len(names)
        deadline = time.monotonic() + DEADLINE
        while len(names) < before + 20:
            assert not failures, failures
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert service.stop() == 0
        service.start()
    enough.set()
    for worker in workers:
        worker.join(DEADLINE)
    assert not failures
    listed: list[str] = []
    token = ""
    while True:
        page = service.jobs.ListJobs(pb.ListJobsRequest(page_size=1000, page_token=token), timeout=30)
        listed += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert sorted(listed) == sorted([*names, "p0", "p1", "p2"])
