"""The present program takes over the state folder of version 1: its history, its queue, and a run that goes on.

The folder is committed under ``state-v1``; ``state-v1/make.py`` tells how it was made.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edbjobs._calls import job_ref
from edbjobs.v1 import (
    cluster_service_pb2,
    event_pb2,
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
    resource_pb2,
    resources_service_pb2,
)
from edbjobs_server.executors.local import record
from edbjobs_server.executors.local.linux import processes
from edbjobs_server.solver.demo import example_project
from edbjobs_server.store import Store, StoreError, database
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from support.service import DEADLINE, ServiceProcess

pb, S = jobs_messages_pb2, job_state_pb2
V1 = Path(__file__).parent / "state-v1"
NEWEST = max(database.migrations())
MADE_AT = "/tmp/edbjobs-v1"  # paths in it begin so
STATES = {
    "good": S.JOB_STATE_COMPLETED,
    "bad": S.JOB_STATE_FAILED,
    "stopped": S.JOB_STATE_CANCELLED,
    "running": S.JOB_STATE_RUNNING,
    "waiting": S.JOB_STATE_QUEUED,
}

# What the launcher of version 1 does in a supervisor; the test puts the claim in place.
SUPERVISE = """
import json, os, resource, signal, sys
sys.path.insert(0, sys.argv[1])
from edbjobs_server.executors.local.linux import launcher, processes, supervisor
assert "launcher.zip" in supervisor.__file__
request = json.loads(sys.stdin.readline())
launcher._lead_session()
signal.pthread_sigmask(signal.SIG_BLOCK, (*supervisor.SIGNALS, *supervisor.IGNORED))
print(os.getpid(), processes.own_ticks(), flush=True)
sys.stdin.readline()
file = os.open(request["folder"] + "/record", os.O_WRONLY | os.O_APPEND)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
host = supervisor.Host(processes.here().facts(), os.open(os.devnull, os.O_WRONLY), limits)
one = supervisor.Supervisor(request, file, host)
one.start()
one.follow()
one.write_end()
"""


@dataclass
class Upgrade:
    """A copy of the state of version 1, and the service to be started on it."""

    service: ServiceProcess
    place: Path

    @property
    def store(self) -> Path:
        return self.service.state_dir / "store.db"

    def jobs(self) -> dict[str, job_pb2.Job]:
        whole = pb.ListJobsRequest(view=job_pb2.JOB_VIEW_FULL)
        return {job.id: job for job in self.service.jobs.ListJobs(whole, timeout=10).jobs}

    def wait(self, name: str) -> job_pb2.Job:
        request = pb.WaitJobRequest(job=job_ref(name), timeout=Duration(seconds=60))
        answer = self.service.jobs.WaitJob(request, timeout=70)
        assert answer.job.HasField("end_time"), answer.job
        return answer.job

    def events(self) -> list[event_pb2.WatchEvent]:
        events: list[event_pb2.WatchEvent] = []
        request = pb.WatchJobsRequest(from_oldest=True, include_service_changes=True)
        for message in self.service.jobs.WatchJobs(request, timeout=30):
            events += message.events
            if message.caught_up:
                return events
        raise AssertionError("never caught up")

    def refused(self) -> str:
        """Start the service, which must refuse; gives its one line."""
        (self.service.folder / "service.out").unlink(missing_ok=True)
        process = self.service.launch()
        assert process.wait(DEADLINE) == 2
        self.service.process = None
        lines = self.service.output().strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]


@pytest.fixture
def v1(tmp_path: Path) -> Iterator[Upgrade]:
    """Copy the state; what it says of open jobs is moved to the copy's place, as if it had been made there."""
    service = ServiceProcess(tmp_path, max_local_jobs=1)
    shutil.copytree(V1 / "state", service.state_dir)
    for name in ("running", "waiting"):
        example_project(tmp_path / name)
    edit_jobs(service.state_dir / "store.db", lambda text: moved(text, tmp_path))
    yield Upgrade(service, tmp_path)
    service.stop()


def moved(text: str, place: Path) -> str:
    """Give the new place of the state and of the open jobs' projects."""
    for part in ("state", "running", "waiting"):
        text = text.replace(f"{MADE_AT}/{part}/", f"{place}/{part}/")
    return text


def edit_jobs(store: Path, change: Callable[[str], str]) -> None:
    with sqlite3.connect(store) as connection:
        rows = connection.execute("SELECT project_path, project_key, job, rest, attempts, seq FROM jobs").fetchall()
        for path, key, *parts, seq in rows:
            texts = [change(json_format.MessageToJson(job_pb2.Job.FromString(part))) for part in parts]
            edited = [json_format.Parse(text, job_pb2.Job()).SerializeToString(deterministic=True) for text in texts]
            connection.execute(
                "UPDATE jobs SET project_path = ?, project_key = ?, job = ?, rest = ?, attempts = ? WHERE seq = ?",
                (change(path), change(key), *edited, seq),
            )
    connection.close()


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep other test processes out: each copy of the state has the same run, and processes are found by its name."""
    with (tmp_path_factory.getbasetemp().parent / "upgrade.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def going_on(alone: None, v1: Upgrade, request: pytest.FixtureRequest) -> Iterator[Upgrade]:
    """Bring the run that goes on to life: a supervisor of version 1 and a solver, on record as if always there.

    Its parameter is how many seconds it takes.
    """
    told = json.loads((V1 / "running.json").read_text())
    folder = v1.place / told["folder"]
    claim = record.read(str(folder)).claim
    assert claim is not None
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SUPERVISE, str(V1 / "launcher.zip")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            program = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "edbjobs-demo-solver")
            tell(process, json.dumps(request_of(v1.place, folder, claim, [program, *told["argv"]], request.param)))
            assert process.stdout is not None
            pid, ticks = map(int, process.stdout.readline().split())
            claim.update(processes.here().facts(), pid=pid, ticks=ticks)
            (folder / record.NAME).write_text(f"\n{json.dumps(claim)}\n")
            tell(process, "go")
            adopt_on_record(v1, folder)
            yield v1
        finally:
            process.kill()
            processes.kill(processes.of_run(f"{claim['uid']}.{claim['attempt']}", None, processes.table()))


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def adopt_on_record(v1: Upgrade, folder: Path) -> None:
    """Have the store tell of the process that runs now, and of this boot."""
    deadline = time.monotonic() + DEADLINE
    while (start := record.read(str(folder)).start) is None or not start["pid"]:
        assert time.monotonic() < deadline, (folder / record.NAME).read_text()
        time.sleep(0.01)
    old = record.read(str(V1 / "state" / folder.relative_to(v1.service.state_dir))).start
    assert old is not None
    edit_jobs(v1.store, lambda text: text.replace(f'"pid": "{old["pid"]}"', f'"pid": "{start["pid"]}"'))
    with sqlite3.connect(v1.store) as connection:
        connection.execute("UPDATE jobs SET boot_ids = ? WHERE state = ?", (processes.boot_id(), STATES["running"]))
    connection.close()


def request_of(place: Path, folder: Path, claim: dict[str, Any], argv: list[str], seconds: int) -> dict[str, Any]:
    """Make what a launcher of version 1 is asked."""
    return {
        "name": f"{folder.parent.name}/{folder.name}",
        "folder": str(folder),
        **{name: claim[name] for name in ("seq", "uid", "attempt", "keep", "info")},
        "argv": [moved(part, place) for part in argv],
        "cwd": str(place / "running"),
        "env": {
            "PATH": os.environ["PATH"],
            "ANS_EDBJOBS_DEMO": f"seconds={seconds}",
            "EDBJOBS_RUN": f"{claim['uid']}.{claim['attempt']}",
        },
        "limit": None,
        "grace": 30.0,
        "linger": 10.0,
        "unkillable": 60.0,
    }


def on_record(store: Path) -> tuple[str, int, int]:
    """Return store id, last revision, and last number of a job."""
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    (found,) = connection.execute("SELECT store_id, revision, last_seq FROM service").fetchall()
    connection.close()
    return found[0], found[1], found[2]


def again(name: str, demo: str) -> pb.SubmitJobRequest:
    """Make the very request that a job of the folder was made by; its project is not there any more."""
    config = job_config_pb2.JobConfig(
        project_path=f"{MADE_AT}/{name}/patch_antenna.aedt",
        environment={"ANS_EDBJOBS_DEMO": demo},
        labels={"made": "v1"},
    )
    return pb.SubmitJobRequest(job_id=name, request_id=f"request-{name}", user="alice", config=config)


@pytest.mark.parametrize("going_on", [60], indirect=True)
def test_history_goes_on(going_on: Upgrade) -> None:
    store_id, revision, last_seq = on_record(going_on.store)
    going_on.service.start()
    status = going_on.service.cluster.GetSystemStatus(cluster_service_pb2.GetSystemStatusRequest())
    assert status.position.store_id == store_id
    assert status.limits.max_cores == 3
    jobs = going_on.jobs()
    assert {name: job.state for name, job in jobs.items()} == STATES
    assert jobs["good"].outcome.evidence == S.EVIDENCE_SOLVER_LOG
    assert (jobs["bad"].outcome.reason, jobs["bad"].outcome.exit_code) == (S.END_REASON_EXIT_CODE, 3)
    assert jobs["waiting"].waiting.reason == S.WAITING_REASON_JOB_LIMIT
    events = going_on.events()
    assert [event.revision for event in events[:revision]] == list(range(1, revision + 1))
    repeated = going_on.service.jobs.SubmitJob(again("good", "seconds=0.1"))
    assert repeated.existed
    assert repeated.job.uid == jobs["good"].uid
    hold = again("good", "seconds=0.2")
    hold.request_id, hold.hold = "another", True
    hold.config.project_path = jobs["waiting"].config.project_path
    added = going_on.service.jobs.SubmitJob(hold).job
    assert added.uid != jobs["good"].uid
    assert added.revision > revision
    assert on_record(going_on.store)[2] == last_seq + 1


@pytest.mark.parametrize("going_on", [12], indirect=True)
def test_a_run_that_goes_on_is_adopted_and_its_end_recorded(going_on: Upgrade) -> None:
    _, revision, _ = on_record(going_on.store)
    going_on.service.start()
    before = going_on.jobs()["running"]
    assert Path(f"/proc/{before.attempts[0].pid}").exists()
    ended = going_on.wait("running")
    assert (ended.state, ended.outcome.evidence) == (S.JOB_STATE_COMPLETED, S.EVIDENCE_SOLVER_LOG), (
        ended.outcome.message
    )
    assert [attempt.pid for attempt in ended.attempts] == [before.attempts[0].pid]
    waiting = going_on.wait("waiting")
    assert waiting.state == S.JOB_STATE_COMPLETED
    assert waiting.attempts[0].reserve_time.ToNanoseconds() >= ended.end_time.ToNanoseconds()
    assert [event.revision for event in going_on.events()][-1] > revision
    revisions = [event.revision for event in going_on.events()]
    assert revisions == list(range(1, len(revisions) + 1))
    request = pb.ReadLogRequest(job=job_ref("running"), stream=pb.LOG_STREAM_STDOUT)
    assert b"Normal completion" in b"".join(piece.data for piece in going_on.service.jobs.ReadLog(request))


@pytest.mark.parametrize("going_on", [60], indirect=True)
def test_a_run_that_goes_on_can_be_cancelled(going_on: Upgrade) -> None:
    going_on.service.start()
    pid = going_on.jobs()["running"].attempts[0].pid
    going_on.service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref("running"), grace_period=Duration(seconds=5)))
    ended = going_on.wait("running")
    assert (ended.state, ended.outcome.reason) == (S.JOB_STATE_CANCELLED, S.END_REASON_CANCELLED)
    assert not Path(f"/proc/{pid}").exists()


def test_a_run_of_another_host_is_left_alone(v1: Upgrade) -> None:
    """As it was committed the run belongs to another machine: nothing is concluded from not seeing it here."""
    v1.service.start()
    assert v1.jobs()["running"].state == S.JOB_STATE_RUNNING
    resources = v1.service.resources
    resources.UpdateLimits(resources_service_pb2.UpdateLimitsRequest(limits=resource_pb2.Limits(max_local_jobs=2)))
    assert v1.wait("waiting").state == S.JOB_STATE_COMPLETED
    assert v1.jobs()["running"].state == S.JOB_STATE_RUNNING


def test_a_newer_store_is_refused_in_one_line(v1: Upgrade) -> None:
    with sqlite3.connect(v1.store) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = v1.store.read_bytes()
    line = v1.refused()
    assert "newer edbjobs (schema 99" in line
    assert "--state-dir" in line
    assert v1.store.read_bytes() == before


ANOTHER_STEP = """
from edbjobs_server.store import database
known = database.migrations
database.migrations = lambda: {**known(), max(known()) + 1: STEP}
""".strip()


def with_another_step(step: str) -> str:
    """Give the service a further schema."""
    return ANOTHER_STEP.replace("STEP", repr(step))


def test_an_upgrade_of_the_schema_keeps_a_copy(v1: Upgrade) -> None:
    old = on_record(v1.store)
    v1.service.prelude = with_another_step("ALTER TABLE jobs ADD COLUMN added TEXT NOT NULL DEFAULT 'new';")
    v1.service.start()
    assert {name: job.state for name, job in v1.jobs().items()} == STATES
    assert v1.service.stop() == 0
    with sqlite3.connect(v1.store) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (NEWEST + 1,)
        assert connection.execute("SELECT DISTINCT added FROM jobs").fetchall() == [("new",)]
    connection.close()
    (copy,) = v1.service.state_dir.glob(f"store.db.schema{NEWEST}-*")
    assert on_record(copy) == old
    assert copy.stat().st_mode & 0o777 == 0o600
    v1.service.prelude = ""
    assert f"newer edbjobs (schema {NEWEST + 1}" in v1.refused(), "the program of before does not open it"
    shutil.copy(copy, v1.store)  # and with the copy put back it goes on
    v1.service.start()
    assert {name: job.state for name, job in v1.jobs().items()} == STATES


def test_an_upgrade_that_fails_changes_nothing(v1: Upgrade, monkeypatch: pytest.MonkeyPatch) -> None:
    old = on_record(v1.store)
    known = database.migrations()
    step = "ALTER TABLE jobs ADD COLUMN added TEXT; INSERT INTO no_such_table VALUES (1);"
    monkeypatch.setattr(database, "migrations", lambda: {**known, NEWEST + 1: step})
    with pytest.raises(StoreError, match="no_such_table"):
        Store.open(v1.service.state_dir)
    monkeypatch.undo()
    assert on_record(v1.store) == old
    v1.service.start()
    assert {name: job.state for name, job in v1.jobs().items()} == STATES
