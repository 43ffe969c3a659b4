"""What a cluster costs: commands and processor time while jobs wait or run there, and how soon an end is known.

It brings a SLURM of its own: several nodes on this machine, whose jobs do nothing or only sleep.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from edbjobs._calls import job_ref
from edbjobs.v1 import cluster_service_pb2, event_pb2, job_config_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs_server.solver.demo import example_project
from support.service import ServiceProcess
from support.slurm_cluster import SlurmCluster
from support.slurm_service import BEGIN_ALLOWED

from bench.service import projects, service
from bench.table import Row

NUMBERS = (1, 1000, 5000)
RUNNING = (1, 40)  # few: on this machine alone each has a demo solver, a batch script and a slurmstepd that reads /proc
POLL_SECONDS = 30.0
WATCH_SECONDS = 95.0  # three polls
QUIET_SECONDS = 40.0  # after the last submit: the hurried questions are over
ENDS = 12
_COMMANDS = ("sbatch", "squeue", "scontrol", "sacct", "sinfo", "scancel")


def cost(folder: Path) -> Iterator[Row]:
    """Commands a minute and processor time with jobs that wait on the cluster."""
    for number in NUMBERS:
        place = folder / str(number)
        place.mkdir()
        with _cluster(place) as (cluster, log), _service(place, cluster) as running:
            _submit(running, projects(place / "p", number), begin="now+1days")
            _wait_until_with(cluster, number, "PENDING")
            rows = _watched(running, log, f"{number:,} jobs waiting on the cluster")
        yield from rows


def running(folder: Path) -> Iterator[Row]:
    """Commands a minute and processor time with jobs that run on the cluster, their logs growing."""
    for number in RUNNING:
        place = folder / str(number)
        place.mkdir()
        with (
            _cluster(place, cpus=max(RUNNING) // 4) as (cluster, log),
            _service(place, cluster, demo_solver=True) as service,
        ):
            paths = [example_project(place / "p" / str(job)) for job in range(number)]
            _submit(service, paths, demo="seconds=3600")
            _wait_until_with(cluster, number, "RUNNING")
            rows = _watched(service, log, f"{number:,} jobs running on the cluster")
        yield from rows


def delays(folder: Path) -> Iterator[Row]:
    """From a submit to SCHEDULED, and from the true start and end of the program to their events."""
    script = f'date +%s.%N >"{folder}/$$.started"; sleep 1; date +%s.%N >"{folder}/$$.ended"'
    with _cluster(folder) as (cluster, _), _service(folder, cluster, script) as running:
        handed: list[float] = []
        start_delays: list[float] = []
        ended: list[float] = []
        for path in projects(folder / "p", ENDS):
            before = time.time()
            (uid,) = _submit(running, [path])
            times = _events(running, uid)
            handed.append(times[event_pb2.JOB_CHANGE_TYPE_SCHEDULED] - before)
            start_delays.append(times[event_pb2.JOB_CHANGE_TYPE_STARTED] - _newest(folder, "started"))
            ended.append(max(times.values()) - _newest(folder, "ended"))
        bare = [_bare_submit(cluster) for _ in range(ENDS)]
    floor = statistics.median(bare) * 1e3
    yield Row("submit to SCHEDULED", statistics.median(handed) * 1e3, "ms", "", floor, "sbatch alone")
    yield Row("true start to its event", statistics.median(start_delays), "s", "")
    yield Row("true end to its event", statistics.median(ended), "s", "")


def _watched(service: ServiceProcess, log: Path, jobs: str) -> tuple[Row, Row]:
    """Count commands and processor time over some polls, once all is calm."""
    time.sleep(QUIET_SECONDS)
    asked, spent, started_at = _lines(log), _spent(service), time.perf_counter()
    time.sleep(WATCH_SECONDS)
    minutes = (time.perf_counter() - started_at) / 60
    commands = (_lines(log) - asked) / minutes
    share = (_spent(service) - spent) / (minutes * 60) * 100
    return (
        Row(f"commands a minute with {jobs}", commands, "a minute", "one poll in 30 s"),
        Row(f"processor time with {jobs}", share, "% of a core", ""),
    )


@contextmanager
def _cluster(folder: Path, cpus: int = 8) -> Iterator[tuple[SlurmCluster, Path]]:
    """Run a cluster of four nodes whose commands are counted."""
    log, shims = folder / "commands", folder / "shims"
    shims.mkdir()
    log.touch()
    with SlurmCluster(folder / "slurm", cpus=cpus, extra_conf="MaxJobCount=20000") as cluster:
        for name in _COMMANDS:
            true = shutil.which(name, path=cluster.env["PATH"])
            shim = shims / name
            shim.write_text(f'#!/bin/sh\necho {name} >>"{log}"\nexec {true} "$@"\n')
            shim.chmod(0o755)
        yield cluster, log


@contextmanager
def _service(folder: Path, cluster: SlurmCluster, script: str = "", **more: Any) -> Iterator[ServiceProcess]:
    path = os.pathsep.join([str(folder / "shims"), cluster.env["PATH"]])
    settings: dict[str, Any] = {
        "scheduler": "slurm",
        "shared_dir": str(folder / "shared"),
        "cluster_poll_seconds": POLL_SECONDS,
        **more,
    }
    with service(
        folder / "s", prelude=BEGIN_ALLOWED, script=script, environment={**cluster.env, "PATH": path}, **settings
    ) as running:
        yield running


def _submit(running: ServiceProcess, paths: list[Path], begin: str = "", demo: str = "") -> list[str]:
    """Hand jobs to the cluster; `demo` controls the demo solver; without it the solver of the measure is run."""
    options = job_config_pb2.SchedulerOptions(extra={"begin": begin} if begin else None)
    solvers = running.cluster.ListSolvers(cluster_service_pb2.ListSolversRequest()).solvers
    solver = next(item.path for item in solvers if item.demo is bool(demo))
    requests = [
        pb.SubmitJobRequest(
            config=job_config_pb2.JobConfig(
                project_path=str(path),
                scheduler="slurm",
                scheduler_options=options,
                aedt_path=solver,
                environment={"ANS_EDBJOBS_DEMO": demo} if demo else None,
            )
        )
        for path in paths
    ]
    uids: list[str] = []
    for first in range(0, len(requests), 1000):
        answer = running.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=requests[first : first + 1000]))
        uids += [item.response.job.uid for item in answer.results]
    return uids


def _bare_submit(cluster: SlurmCluster) -> float:
    started_at = time.perf_counter()
    cluster.run("sbatch", "--hold", "--wrap", "true", "--output", os.devnull)
    return time.perf_counter() - started_at


def _wait_until_with(cluster: SlurmCluster, number: int, state: str) -> None:
    end = time.monotonic() + 600
    while cluster.run("squeue", "-h", "-o", "%T").split().count(state) < number:
        assert time.monotonic() < end, "the jobs did not get to the cluster"
        time.sleep(0.5)


def _events(running: ServiceProcess, uid: str) -> dict[int, float]:
    """Times of a job's events, when they were published, up to its end."""
    times: dict[int, float] = {}
    request = pb.WatchJobsRequest(from_oldest=True, filter=pb.JobFilter(jobs=[job_ref(uid)]))
    for message in running.jobs.WatchJobs(request, timeout=60):
        for event in message.events:
            times[event.job_change.type] = event.time.seconds + event.time.nanos / 1e9
            if event.job_change.job.HasField("end_time"):
                return times
    raise AssertionError("the watch ended before the job")


def _newest(folder: Path, kind: str) -> float:
    paths = sorted(folder.glob(f"*.{kind}"), key=lambda path: path.stat().st_mtime)
    return float(re.sub(r"\s", "", paths[-1].read_text()))


def _lines(log: Path) -> int:
    return log.read_text().count("\n")


def _spent(running: ServiceProcess) -> float:
    """Processor time of the service and of all commands it has run."""
    assert running.process is not None
    times = psutil.Process(running.process.pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system
