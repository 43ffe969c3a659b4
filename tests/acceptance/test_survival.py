"""The service is killed again and again in the middle of its work, and nothing is lost, doubled or missed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
from edbjobs._calls import job_ref
from edbjobs.v1 import (
    cluster_service_pb2,
    event_pb2,
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
    jobs_service_pb2_grpc,
)
from edbjobs_server.solver.demo import example_project
from support.service import ServiceProcess

JOBS = 20
KILLS = 5
TERMINAL = {job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED}


class Watcher(threading.Thread):
    """Watches over restarts: after each cut it goes on after the last revision it has seen."""

    def __init__(self, service: ServiceProcess) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.events: list[event_pb2.WatchEvent] = []
        self.cuts = 0
        self.errors: list[str] = []
        self.position: event_pb2.Position | None = None
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            try:
                with grpc.insecure_channel(self.service.target) as channel:
                    self.watch(channel)
            except (grpc.RpcError, OSError, ValueError) as error:
                if isinstance(error, grpc.Call) and error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.errors.append(str(error))
                    return
                self.cuts += 1
                time.sleep(0.02)

    def watch(self, channel: grpc.Channel) -> None:
        request = jobs_messages_pb2.WatchJobsRequest(
            after=self.position, from_oldest=self.position is None, include_service_changes=True
        )
        for message in jobs_service_pb2_grpc.JobsServiceStub(channel).WatchJobs(request, timeout=120):
            self.events.extend(message.events)
            self.position = message.position
            if self.done.is_set():
                return

    def ended(self) -> int:
        return len({event.job_change.job.uid for event in self.events if event.job_change.job.state in TERMINAL})


def submit_all(service: ServiceProcess, folder: Path, witness: Path) -> list[job_pb2.Job]:
    jobs = []
    for number in range(JOBS):
        place = folder / f"p{number}"
        place.mkdir()
        project = example_project(place)
        environment = {"ANS_EDBJOBS_DEMO": "seconds=1.2", "ANS_EDBJOBS_DEMO_WITNESS": str(witness)}
        request = jobs_messages_pb2.SubmitJobRequest(
            request_id=f"r{number}",
            config=job_config_pb2.JobConfig(project_path=str(project), environment=environment),
        )
        jobs.append(service.jobs.SubmitJob(request, timeout=10).job)
    return jobs


def running_pids(service: ServiceProcess) -> dict[str, int]:
    running = jobs_messages_pb2.JobFilter(states=[job_state_pb2.JOB_STATE_RUNNING])
    request = jobs_messages_pb2.ListJobsRequest(page_size=100, filter=running, view=job_pb2.JOB_VIEW_FULL)
    return {job.uid: job.attempts[-1].pid for job in service.jobs.ListJobs(request, timeout=10).jobs}


def wait_until_running(service: ServiceProcess, wanted: int, left: int) -> dict[str, int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = running_pids(service)
        if len(found) >= min(wanted, left):
            return found
        time.sleep(0.02)
    raise AssertionError(f"{wanted} jobs should run")


def test_kill_nine_loses_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    dice = random.Random(seed)
    witness = tmp_path / "witness"
    witness.mkdir()
    service = ServiceProcess(tmp_path, max_local_jobs=4, max_cores=4)
    with service:
        watcher = Watcher(service)
        watcher.start()
        jobs = submit_all(service, tmp_path, witness)
        before: dict[str, int] = {}
        for _ in range(KILLS):
            before.update(wait_until_running(service, 4, JOBS - watcher.ended()))
            time.sleep(dice.uniform(0.0, 0.4))  # the moment of the kill, not a wait for something
            service.again()
        deadline = time.monotonic() + 60
        while watcher.ended() < JOBS:
            assert time.monotonic() < deadline, f"{watcher.ended()} of {JOBS} jobs ended"
            assert not watcher.errors, watcher.errors
            time.sleep(0.05)
        after = {
            job.uid: service.jobs.GetJob(jobs_messages_pb2.GetJobRequest(job=job_ref(job.uid))).job for job in jobs
        }
        last = service.cluster.GetSystemStatus(cluster_service_pb2.GetSystemStatusRequest()).position.revision
        while watcher.position is None or watcher.position.revision < last:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        watcher.done.set()
    check_jobs(after, before)
    check_witness(witness, after)
    check_events(watcher, last)


def check_jobs(after: dict[str, job_pb2.Job], before: dict[str, int]) -> None:
    """All jobs ended rightly, and those that ran at a kill kept their process."""
    for job in after.values():
        assert job.state == job_state_pb2.JOB_STATE_COMPLETED, job
        assert job.outcome.evidence == job_state_pb2.EVIDENCE_SOLVER_LOG
        assert sum(attempt.HasField("start_time") for attempt in job.attempts) == 1
    assert len(before) >= 4
    for uid, pid in before.items():
        assert pid in {attempt.pid for attempt in after[uid].attempts}


def check_witness(witness: Path, after: dict[str, job_pb2.Job]) -> None:
    """Each job's solver was started once and ended once, as the solvers themselves tell."""
    count: Counter[tuple[str, str]] = Counter()
    for file in witness.iterdir():
        for line in file.read_text().splitlines():
            what, name = line.split()[:2]
            count[(name.rsplit("-", 2)[0], what)] += 1
    assert count == Counter({(job.id, what): 1 for job in after.values() for what in ("start", "end")})


def check_events(watcher: Watcher, last: int) -> None:
    """The watcher has every revision once and in order, though it was cut off."""
    assert watcher.cuts >= KILLS
    assert [event.revision for event in watcher.events] == list(range(1, last + 1))
