"""Background work of the service: events of gates, removal of old records, and the rebuild of a lost store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edbjobs._calls import job_ref
from edbjobs.v1 import (
    event_pb2,
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
    resources_service_pb2,
)
from edbjobs_server.solver.demo import example_project
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from support.service import DEADLINE, ServiceProcess

pb, S = jobs_messages_pb2, job_state_pb2


def submit(service: ServiceProcess, name: str, demo: str = "seconds=0.1", hold: bool = False) -> job_pb2.Job:
    place = service.folder / "projects" / name
    config = job_config_pb2.JobConfig(project_path=str(example_project(place)), environment={"ANS_EDBJOBS_DEMO": demo})
    return service.jobs.SubmitJob(pb.SubmitJobRequest(job_id=name, config=config, hold=hold), timeout=10).job


def wait(service: ServiceProcess, name: str) -> job_pb2.Job:
    request = pb.WaitJobRequest(job=job_ref(name), timeout=Duration(seconds=60))
    answer = service.jobs.WaitJob(request, timeout=70)
    assert answer.job.HasField("end_time"), answer.job
    return answer.job


def get(service: ServiceProcess, name: str) -> job_pb2.Job:
    return service.jobs.GetJob(pb.GetJobRequest(job=job_ref(name)), timeout=10).job


def event(service: ServiceProcess, kind: str, uid: str = "", after: int = 0) -> event_pb2.WatchEvent:
    """Wait for a change of a job, or of the queue, old or new."""
    request = pb.WatchJobsRequest(after=event_pb2.Position(revision=after), include_service_changes=True)
    for message in service.jobs.WatchJobs(request, timeout=60):
        for found in message.events:
            job_change = event_pb2.JobChangeType.Name(found.job_change.type).removeprefix("JOB_CHANGE_TYPE_")
            queue_change = event_pb2.QueueChangeType.Name(found.queue_change.type).removeprefix("QUEUE_CHANGE_TYPE_")
            if kind in (job_change, queue_change) and found.job_change.job.uid == uid:
                return found
    raise AssertionError("the watch ended")


def test_a_gate_that_stays_closed_is_an_event(tmp_path: Path) -> None:
    settings = {"min_free_disk_bytes": 900_000 << 30, "gate_event_seconds": 0.5, "telemetry_seconds": 0.1}
    with ServiceProcess(tmp_path, **settings) as service:
        submit(service, "kept")
        shut = event(service, "GATE_CLOSED")
        assert "disk" in shut.message
        assert "900000 GiB" in shut.message
        kept = get(service, "kept")
        assert (kept.state, kept.waiting.reason) == (S.JOB_STATE_QUEUED, S.WAITING_REASON_DISK_GATE)
        queue = service.resources.GetQueue(resources_service_pb2.GetQueueRequest(), timeout=10).queue
        assert "disk" in queue.blocked_message
        service.resources.UpdateLimits(
            resources_service_pb2.UpdateLimitsRequest(remove_mask=FieldMask(paths=["min_free_disk_bytes"])),
            timeout=10,
        )
        opened = event(service, "GATE_OPENED", after=shut.revision)
        assert "open again" in opened.message
        assert wait(service, "kept").state == S.JOB_STATE_COMPLETED


def files(*roots: Path) -> set[Path]:
    return {path for root in roots for path in root.rglob("*")}


def test_retention_removes_run_folders_and_nothing_else(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, max_local_jobs=1)
    runs = service.state_dir / "runs"
    with service:
        ended = [submit(service, f"p{number}") for number in range(4)]
        for job in ended:
            wait(service, job.uid)
        service.jobs.DeleteJob(pb.DeleteJobRequest(job=job_ref(ended[3].uid)), timeout=10)
        folders = {job.uid: Path(get(service, job.uid).attempts[-1].run_directory) for job in ended[:3]}
        running = submit(service, "going-on", "seconds=60")
        started = event(service, "STARTED", running.uid)
        submit(service, "waiting", hold=True)
    own = runs / "000000" / "not-ours"
    own.mkdir()
    (own / "record").write_text("somebody's own")
    before = files(runs, tmp_path / "projects")
    service.settings["retention_jobs"] = 1
    with service:
        for job in ended[:2]:
            gone = event(service, "DELETED", job.uid)
            assert "its time is over" in gone.message
        service.jobs.CancelJob(
            pb.CancelJobRequest(job=job_ref(running.uid), grace_period=Duration(seconds=1)), timeout=10
        )
        page = service.jobs.ListJobs(pb.ListJobsRequest(), timeout=10)
        assert [job.id for job in page.jobs] == ["p2", "going-on", "waiting"]
        wait(service, running.uid)
    assert service.stop() == 0
    missing = before - files(runs, tmp_path / "projects")
    removed = {folders[job.uid] for job in ended[:2]}
    expected = {path for path in before if removed & {path, *path.parents}}
    solver = Path(started.job_change.job.config.project_path)
    assert missing - {solver.with_name(f"{solver.name}.lock"), solver.with_name(f"{solver.name}.q")} == expected


def test_a_corrupt_store_is_rebuilt_from_the_runs(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, max_local_jobs=2)
    service.start()
    submit(service, "done")
    done = wait(service, "done")
    running = submit(service, "going-on", "seconds=15")
    submit(service, "held", hold=True)
    event(service, "STARTED", running.uid)
    pid = get(service, running.uid).attempts[0].pid
    service.kill()
    for name in ("store.db", "store.db-wal"):
        file = service.state_dir / name
        file.write_bytes(b"\0" * 100 + os.urandom(file.stat().st_size))
    (tmp_path / "service.out").unlink()
    process = service.launch()
    assert process.wait(DEADLINE) == 2
    (line,) = service.output().strip().splitlines()
    assert "doctor --rebuild" in line
    command = [sys.executable, "-m", "edbjobs", "doctor", "--rebuild", "--state-dir", str(service.state_dir)]
    rebuilt = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment(service))
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "2 jobs in the new store, 1 of them with a run that has not ended" in rebuilt.stdout
    service.process = None
    with service:
        found = get(service, done.uid)
        assert (found.id, found.state, found.outcome.exit_code) == ("done", S.JOB_STATE_COMPLETED, 0)
        adopted = wait(service, running.uid)
        assert (adopted.state, adopted.outcome.evidence) == (S.JOB_STATE_COMPLETED, S.EVIDENCE_SOLVER_LOG), (
            adopted.outcome.message
        )
        assert [attempt.pid for attempt in adopted.attempts] == [pid]
        submit(service, "after")
        assert wait(service, "after").state == S.JOB_STATE_COMPLETED
        listed = [job.id for job in service.jobs.ListJobs(pb.ListJobsRequest(), timeout=10).jobs]
        assert listed == ["done", "going-on", "after"], "a job that never ran left no record"


def environment(service: ServiceProcess) -> dict[str, str]:
    return {**os.environ, "EDBJOBS_RUNTIME_DIR": str(service.runtime_dir), "XDG_CONFIG_HOME": str(service.folder)}
