"""Paths that hang, as on a network file system whose server is gone: only their own jobs wait."""

from __future__ import annotations

import time
from pathlib import Path

from edbjobs._calls import job_ref
from edbjobs.v1 import job_config_pb2, job_pb2, job_state_pb2, jobs_messages_pb2
from edbjobs_server.solver.demo import example_project
from google.protobuf.duration_pb2 import Duration
from support.service import DEADLINE, ServiceProcess

pb, S = jobs_messages_pb2, job_state_pb2
HUNG = 10

# Every look of the service at a project called "frozen-…" never comes back while the file `hang` is there.
PRELUDE = """
import os, threading, time
from edbjobs_server.solver import project_lock, verdict
def hang(module, name):
    real = getattr(module, name)
    def work(*args, **kwargs):
        while "frozen-" in repr((args, kwargs)) and os.path.exists({flag!r}):
            time.sleep(0.05)
        return real(*args, **kwargs)
    setattr(module, name, work)
hang(project_lock, "lock_state")
hang(verdict, "judge")
"""


def submit(service: ServiceProcess, name: str, demo: str = "seconds=0.1") -> job_pb2.Job:
    place = service.folder / "projects" / name
    config = job_config_pb2.JobConfig(project_path=str(example_project(place)), environment={"ANS_EDBJOBS_DEMO": demo})
    return service.jobs.SubmitJob(pb.SubmitJobRequest(job_id=name, config=config), timeout=30).job


def wait(service: ServiceProcess, name: str, seconds: int = 60) -> job_pb2.Job:
    answer = service.jobs.WaitJob(
        pb.WaitJobRequest(job=job_ref(name), timeout=Duration(seconds=seconds)), timeout=seconds + 30
    )
    assert answer.job.HasField("end_time"), answer.job
    return answer.job


def test_ten_hung_starts_delay_nobody_and_a_stop_ends(tmp_path: Path) -> None:
    flag = tmp_path / "hang"
    flag.touch()
    service = ServiceProcess(tmp_path, max_local_jobs=HUNG + 2, max_cores=64)
    service.prelude = PRELUDE.format(flag=str(flag))
    with service:
        hung = [submit(service, f"frozen-{number}") for number in range(HUNG)]
        assert wait(service, submit(service, "well").uid).state == S.JOB_STATE_COMPLETED
        for job in hung:
            found = service.jobs.GetJob(pb.GetJobRequest(job=job_ref(job.uid)), timeout=10).job
            assert found.state == S.JOB_STATE_QUEUED
            assert found.waiting.message
        started_at = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started_at < DEADLINE
        flag.unlink()
        service.start()
        for job in hung:
            assert wait(service, job.uid).state == S.JOB_STATE_COMPLETED


def test_a_result_that_hangs_keeps_no_cores_and_a_cancel_ends_it(tmp_path: Path) -> None:
    flag = tmp_path / "hang"
    service = ServiceProcess(tmp_path, max_local_jobs=1)
    service.prelude = PRELUDE.format(flag=str(flag))
    with service:
        hung = [submit(service, f"frozen-{number}", "seconds=1") for number in range(2)]
        follow = pb.WatchJobsRequest(from_oldest=True)
        for message in service.jobs.WatchJobs(follow, timeout=DEADLINE):
            if any(event.job_change.job.state == S.JOB_STATE_RUNNING for event in message.events):
                break
        flag.touch()
        well = submit(service, "well")
        assert wait(service, well.uid).state == S.JOB_STATE_COMPLETED, "the only place for a run was free again"
        first = service.jobs.GetJob(pb.GetJobRequest(job=job_ref(hung[0].uid)), timeout=10).job
        assert first.state == S.JOB_STATE_RUNNING, "it is not told to have ended before its result was read"
        service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(first.uid), abandon=True), timeout=DEADLINE)
        ended = wait(service, first.uid)
        assert (ended.state, ended.outcome.reason) == (S.JOB_STATE_FAILED, S.END_REASON_UNVERIFIED)
        assert "exit code 0" in ended.outcome.message
        service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(hung[1].uid)), timeout=DEADLINE)
        assert wait(service, hung[1].uid).state == S.JOB_STATE_CANCELLED
        assert service.stop() == 0
