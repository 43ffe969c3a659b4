"""Makes the state folder of version 1 that lies beside this file; run once, with the service of that version.

::

    cd tests && ../.venv/bin/python acceptance/state-v1/make.py

The service is killed with -9 while one job runs and one waits, and the run is killed as well: a test brings it back
to life with ``launcher.zip``, the launcher and supervisor of that version. What tells of the host is replaced.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

HERE = Path(__file__).parent
PLACE = Path("/tmp/edbjobs-v1")  # the state's paths begin with it
HOST, BOOT, PIDNS = "workstation", "00000000-0000-0000-0000-000000000001", "pid:[1]"

sys.path.insert(0, str(HERE.parents[1]))

import edbjobs_server  # noqa: E402
from edbjobs._calls import job_ref  # noqa: E402
from edbjobs.v1 import (  # noqa: E402
    event_pb2,
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
    resource_pb2,
    resources_service_pb2,
)
from edbjobs_server.executors.local.linux import processes  # noqa: E402
from edbjobs_server.solver.demo import example_project  # noqa: E402
from support.service import ServiceProcess  # noqa: E402

pb = jobs_messages_pb2


def request(name: str, demo: str, **values: Any) -> pb.SubmitJobRequest:
    """Make the request of a job; its project need not be there."""
    config = job_config_pb2.JobConfig(
        project_path=str(PLACE / name / "patch_antenna.aedt"),
        environment={"ANS_EDBJOBS_DEMO": demo},
        labels={"made": "v1"},
    )
    return pb.SubmitJobRequest(job_id=name, request_id=f"request-{name}", user="alice", config=config, **values)


ENDED = {
    "good": ("seconds=0.1", job_state_pb2.JOB_STATE_COMPLETED),
    "bad": ("seconds=0.1,fail=exit", job_state_pb2.JOB_STATE_FAILED),
    "stopped": ("seconds=60", job_state_pb2.JOB_STATE_CANCELLED),
}


def main() -> None:
    """Make the folder anew."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    for name in (*ENDED, "running", "waiting"):
        example_project(PLACE / name)
    service = ServiceProcess(PLACE, max_local_jobs=1, max_cores=4)
    service.start()
    for name, (demo, _) in ENDED.items():
        service.jobs.SubmitJob(request(name, demo))
        if name == "stopped":
            until_running(service, name)
            service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(name), grace_period=Duration(seconds=1)))
        assert service.jobs.WaitJob(pb.WaitJobRequest(job=job_ref(name))).job.state == ENDED[name][1]
    going_on = request("running", "seconds=60")
    argv = service.jobs.PreviewJob(pb.PreviewJobRequest(request=going_on)).argv
    service.jobs.SubmitJob(going_on)
    service.jobs.SubmitJob(request("waiting", "seconds=0.1", priority=3))
    service.resources.UpdateLimits(resources_service_pb2.UpdateLimitsRequest(limits=resource_pb2.Limits(max_cores=3)))
    job = until_running(service, "running")
    service.kill()
    processes.kill(processes.of_run(f"{job.uid}.1", (job.attempts[0].pid, 0), processes.table()))
    run = Path(job.attempts[-1].run_directory)
    keep(run, ["running-" + run.name.replace(".", "-") if part == "running-0-1" else part for part in argv[1:]])


def until_running(service: ServiceProcess, name: str) -> job_pb2.Job:
    """Wait until a job's start is on record and its log is started."""
    deadline = time.monotonic() + 30
    while True:
        job = service.jobs.GetJob(pb.GetJobRequest(job=job_ref(name))).job
        if job.state == job_state_pb2.JOB_STATE_RUNNING and job.progress.HasField("last_pass"):
            return job
        assert time.monotonic() < deadline
        time.sleep(0.05)


def keep(run: Path, argv: list[str]) -> None:
    """Copy what belongs to the state, without this host's own."""
    target = HERE / "state"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PLACE / "state" / "runs", target / "runs", ignore=shutil.ignore_patterns("launcher.log"))
    for file in target.glob("runs/*/*/*"):
        file.write_text(neutral(file.read_text()))
    record = target / run.relative_to(PLACE / "state") / "record"
    lines = [line for line in record.read_text().splitlines() if '"t": "end"' not in line]
    record.write_text("\n".join(lines) + "\n")
    copy_store(PLACE / "state" / "store.db", target / "store.db")
    (HERE / "running.json").write_text(json.dumps({"argv": argv, "folder": str(run.relative_to(PLACE))}, indent=1))
    with zipfile.ZipFile(HERE / "launcher.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in launcher_files():
            bundle.write(Path(edbjobs_server.__path__[0], name), f"edbjobs_server/{name}")


def launcher_files() -> list[str]:
    """Return the files that a launcher loads."""
    code = "import sys, edbjobs_server.executors.local.linux.launcher; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    ours = [importlib.import_module(name) for name in loaded if name.partition(".")[0] == "edbjobs_server"]
    return sorted(str(Path(str(module.__file__)).relative_to(edbjobs_server.__path__[0])) for module in ours)


def neutral(text: str) -> str:
    """Replace what tells of this host."""
    here = processes.here()
    programs = os.path.dirname(os.path.abspath(sys.executable))
    for own, other in ((platform.node(), HOST), (here.boot, BOOT), (here.pidns, PIDNS), (programs, "/opt/edbjobs/bin")):
        text = text.replace(own, other)
    return text


def copy_store(source: Path, target: Path) -> None:
    """Copy a killed service's store; it stays marked as not cleanly stopped."""
    with sqlite3.connect(source) as old:
        old.execute("VACUUM INTO ?", (str(target),))
    with sqlite3.connect(target) as connection:
        parts: list[tuple[str, str, Any]] = [("jobs", column, job_pb2.Job) for column in ("job", "rest", "attempts")]
        for table, column, kind in (*parts, ("events", "event", event_pb2.WatchEvent)):
            for row, data in connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
                message = json_format.Parse(neutral(json_format.MessageToJson(kind.FromString(data))), kind())
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (bytes_of(message), row))
        connection.execute("UPDATE jobs SET boot_ids = replace(boot_ids, ?, ?)", (processes.boot_id(), BOOT))
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    os.chmod(target, 0o600)


def bytes_of(message: Any) -> bytes:
    """Serialise as the store does."""
    return bytes(message.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
