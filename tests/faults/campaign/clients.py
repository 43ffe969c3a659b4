"""Clients that go on through every fault and write down what they were answered."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from edbjobs._calls import job_ref
from edbjobs.v1 import event_pb2, job_config_pb2, job_pb2, jobs_messages_pb2, jobs_service_pb2_grpc
from edbjobs_server.solver.demo import example_project
from faults.campaign.checker import TERMINAL
from faults.campaign.evidence import REQUEST_LABEL, Evidence, Submit
from google.protobuf.duration_pb2 import Duration

pb = jobs_messages_pb2
AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # gRPC's own answer to a call that comes while the service stops
}
# What a cut in the middle of a frame looks like, depending on where it falls.
CUT = {*AWAY, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
OWN_ERROR = "an error inside the service"
ANSWER_SECONDS = 60.0
PAUSE = 0.05  # between tries while the service is away
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class Watcher(threading.Thread):
    """Keeps every event; after each cut it goes on after the last revision it has."""

    def __init__(self, target: str, evidence: Evidence) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._evidence = evidence
        self._store_id = ""
        self._stopping = threading.Event()
        self.revision = 0
        self.cuts = 0
        self.latest: dict[str, job_pb2.Job] = {}

    def live(self) -> list[job_pb2.Job]:
        """Jobs that have not ended, as far as it has heard."""
        return [job for job in list(self.latest.values()) if job.state not in TERMINAL]

    def ended(self) -> int:
        """Number of jobs that have ended."""
        return sum(job.state in TERMINAL for job in list(self.latest.values()))

    def stop(self) -> None:
        """Stop when the next message comes, or the stream ends."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                with grpc.insecure_channel(self._target, options=OPTIONS) as channel:
                    self._watch(jobs_service_pb2_grpc.JobsServiceStub(channel))
            except grpc.RpcError as error:
                if _code(error) not in CUT or OWN_ERROR in str(error):
                    self._evidence.watch_errors.append(str(error))
                    return
                self.cuts += 1
                self._stopping.wait(PAUSE)

    def _watch(self, jobs: jobs_service_pb2_grpc.JobsServiceStub) -> None:
        request = pb.WatchJobsRequest(
            after=event_pb2.Position(revision=self.revision, store_id=self._store_id),
            include_service_changes=True,
            heartbeat_interval=Duration(seconds=1),
        )
        for message in jobs.WatchJobs(request, timeout=60):
            self._store_id = message.position.store_id
            for event in message.events:
                self._take(event)
            self.revision = message.position.revision
            if self._stopping.is_set():
                return

    def _take(self, event: event_pb2.WatchEvent) -> None:
        self._evidence.events.append(event)
        if event.HasField("job_change"):
            job = event.job_change.job
            self.latest[job.uid] = job


class Feeder(threading.Thread):
    """Keeps the queue filled, repeats each submit until it is answered, and now and then cancels a job."""

    def __init__(self, target: str, folder: Path, evidence: Evidence, watcher: Watcher, depth: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._folder = folder
        self._evidence = evidence
        self._watcher = watcher
        self._depth = depth
        self._dice = random.Random(seed)
        self._enough = threading.Event()
        self._deadline = float("inf")
        self.failure = ""

    def enough(self) -> None:
        """Submit no more; the service stays from now on, so what is still unanswered must be soon."""
        self._deadline = time.monotonic() + ANSWER_SECONDS
        self._enough.set()

    def run(self) -> None:
        with grpc.insecure_channel(self._target, options=OPTIONS) as channel:
            jobs = jobs_service_pb2_grpc.JobsServiceStub(channel)
            number = 0
            while not self._enough.is_set():
                known = {submit.uid for submit in self._evidence.submits}
                if len(known) - self._watcher.ended() < self._depth:
                    number += 1
                    self._submit(jobs, f"r{number}")
                elif self._dice.random() < 0.1:
                    self._cancel(jobs)
                else:
                    self._enough.wait(PAUSE)

    def _submit(self, jobs: jobs_service_pb2_grpc.JobsServiceStub, request_id: str) -> None:
        """Submit until there is an answer, and once in a while again after it."""
        place = self._folder / request_id
        place.mkdir()
        good = self._dice.random() < 0.85
        demo = f"seconds={self._dice.choice([0.1, 0.4, 0.8, 1.5])}" + ("" if good else ",fail=exit")
        request = pb.SubmitJobRequest(
            request_id=request_id,
            priority=self._dice.choice([0, 0, 0, 5, -5]),
            config=job_config_pb2.JobConfig(
                project_path=str(example_project(place)),
                environment={"ANS_EDBJOBS_DEMO": demo, "ANS_EDBJOBS_DEMO_WITNESS": str(self._folder / "witness")},
                labels={REQUEST_LABEL: request_id},
                cancel_grace_period=Duration(seconds=2),
            ),
        )
        for _ in range(self._dice.choice([1, 1, 2])):
            answer = self._insist(lambda: jobs.SubmitJob(request, timeout=10))
            if answer is not None:
                self._evidence.submits.append(Submit(request_id, answer.job.uid, good))

    def _cancel(self, jobs: jobs_service_pb2_grpc.JobsServiceStub) -> None:
        live = self._watcher.live()
        if not live:
            return
        uid, grace = self._dice.choice(live).uid, self._dice.choice([0, 1])
        self._evidence.cancels[uid] = max(float(grace), self._evidence.cancels.get(uid, 0.0))
        request = pb.CancelJobRequest(job=job_ref(uid), grace_period=Duration(seconds=grace))
        try:
            jobs.CancelJob(request, timeout=10)
        except grpc.RpcError as error:
            if _code(error) not in {*AWAY, grpc.StatusCode.FAILED_PRECONDITION}:  # it may have ended meanwhile
                self.failure = str(error)

    def _insist(self, call: Callable[[], pb.SubmitJobResponse]) -> pb.SubmitJobResponse | None:
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                if _code(error) not in AWAY or time.monotonic() > self._deadline:
                    self.failure = str(error)
                    return None
                time.sleep(PAUSE)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    return error.code()
