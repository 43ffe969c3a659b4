"""A job manager in the test's own process: a real store, real local runs, and a solver that takes no time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edbjobs.v1 import job_config_pb2, job_pb2, job_state_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.limits import Host
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.executors.base import Executor
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.local.linux import processes
from edbjobs_server.executors.local.linux.executor import LocalExecutor
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.manager.service_info import ServiceInfo
from edbjobs_server.manager.submission import Rules
from edbjobs_server.solver.releases import Release
from edbjobs_server.store import Store
from edbjobs_server.telemetry.host import HostSampler

ANN = Principal("ann", Role.ADMIN)

pb, S = jobs_messages_pb2, job_state_pb2
TERMINAL = frozenset({S.JOB_STATE_COMPLETED, S.JOB_STATE_FAILED, S.JOB_STATE_CANCELLED})
DEADLINE = 30.0

# Writes the log of a normal solve; then waits for a file `<project>.wait` to go away, if there is one.
SOLVER = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -jobid ] && id=$2; shift; done
stem=${1##*/}; stem=${stem%.aedt}
mkdir -p "$1.batchinfo"
stamp=$(LC_ALL=C date '+%I:%M:%S %p  %b %d, %Y')
{
  echo "Starting Batch Run: $stamp"
  echo "[info] Project:$stem, Design:a (HFSS), Normal completion of simulation on server: Local Machine. ($stamp)"
  echo "Stopping Batch Run: $stamp"
} >> "$1.batchinfo/$stem-$id.log"
echo x >> "$1.ran"
while [ -e "$1.wait" ]; do sleep 0.02; done
"""


class World:
    """One manager on one state folder; may be closed and opened again.

    Parameters
    ----------
    folder : Path
        Gets state and projects.
    **options
        Of `JobManager`.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.options = options
        self.clusters: dict[str, ClusterExecutor] = {}
        self.manager: JobManager
        self.solver = folder / "solver"
        if not self.solver.exists():
            self.solver.write_text(SOLVER)
            self.solver.chmod(0o755)

    async def open(self) -> JobManager:
        state = self.folder / "state"
        store = await asyncio.to_thread(Store.open, state)
        local = LocalExecutor(state / "runs", linger=0.2)
        executors: dict[str, Executor] = {local.name: local, **self.clusters}
        rules = Rules(
            releases=(Release("2025.2", "252", self.solver, "settings"),),
            schedulers=frozenset(executors),
            host=Host(cores=8, memory_bytes=8192 << 20),
            clusters={name: executor.scheduler for name, executor in self.clusters.items()},
            policy=ClusterPolicy(shared_dir=self.folder),
        )
        boot = processes.here().boot
        about = ServiceInfo(state, "ann")
        self.manager = JobManager(
            store, executors, rules, dict(os.environ), boot, HostSampler(state), about, **self.options
        )
        await self.manager.open({"max_local_jobs": 2})
        return self.manager

    async def close(self) -> None:
        await self.manager.close()

    def project(self, name: str) -> Path:
        path = self.folder / "projects" / f"{name}.aedt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("$begin 'AnsoftProject'\n$end 'AnsoftProject'\n")
        return path

    async def submit(self, name: str, **fields: Any) -> str:
        """Submit a job on a project of its own; returns the uid."""
        hold = fields.pop("hold", False)
        path = fields.pop("project_path", None) or str(self.project(name))
        config = job_config_pb2.JobConfig(project_path=path, **fields)
        accepted = await self.manager.submit(pb.SubmitJobRequest(job_id=name, config=config, hold=hold), ANN)
        return accepted.job.uid

    async def get(self, uid: str) -> job_pb2.Job:
        return await self.manager.get(JobRef(uid=uid))

    async def ended(self, uid: str) -> job_pb2.Job:
        """Wait for the end of a job."""
        end = time.monotonic() + DEADLINE
        while True:  # a failed commit ends the wait early
            job = await self.manager.wait(JobRef(uid=uid), 5.0)
            if job.HasField("end_time"):
                return job
            assert time.monotonic() < end, f"{job.id}: {S.JobState.Name(job.state)}, {job.waiting.message}"

    async def until(self, uid: str, true: Callable[[job_pb2.Job], object]) -> job_pb2.Job:
        """Wait until something holds of a job."""
        end = time.monotonic() + DEADLINE
        while not true(job := await self.get(uid)):
            assert time.monotonic() < end, f"waited too long: {job}"
            await asyncio.sleep(0.02)
        return job

    def runs_of(self, name: str) -> int:
        """Count how often the solver ran on a project."""
        ran = self.folder / "projects" / f"{name}.aedt.ran"
        return len(ran.read_text().splitlines()) if ran.exists() else 0


@asynccontextmanager
async def world(folder: Path, **options: Any) -> AsyncIterator[World]:
    it = World(folder, **options)
    await it.open()
    try:
        yield it
    finally:
        await it.close()
