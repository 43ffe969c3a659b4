"""A job on the true SLURM through every endpoint, watched from elsewhere: over TCP, with a token, by stock clients."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import socketio
from edbjobs.v1 import event_pb2, jobs_messages_pb2, jobs_service_pb2_grpc
from edbjobs.v1.job_ref_pb2 import JobRef
from support.facade import BACKEND
from support.slurm_cluster import SlurmCluster
from support.slurm_service import SlurmService
from support.web import until

pytestmark = pytest.mark.system

TO_STARTED = ["QUEUED", "STARTING", "SCHEDULED", "STARTED"]
HEARD = ["job_queued", "job_scheduled", "job_started", "job_completed"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmService]:
    folder = tmp_path_factory.mktemp("endpoints")
    endpoints: dict[str, Any] = {"grpc": "0.0.0.0:0", "http": "0.0.0.0:0"}  # where everybody needs the token
    with (
        SlurmCluster(folder / "slurm", extra_conf="KillWait=2") as cluster,
        SlurmService(folder / "service", cluster, cluster_poll_seconds=30, **endpoints) as running,
    ):
        yield running


class Watcher:
    """A second client: it has the addresses and the token, and none of the service's files."""

    def __init__(self, service: SlurmService) -> None:
        self.url = f"http://127.0.0.1:{service.endpoint['http'].rpartition(':')[2]}"
        self.target = f"127.0.0.1:{service.endpoint['grpc'].rpartition(':')[2]}"
        token = (service.state_dir / "token").read_text().strip()
        self.bearer = {"Authorization": f"Bearer {token}"}
        self.heard: list[tuple[str, dict[str, Any], float]] = []
        self.events: list[tuple[event_pb2.WatchEvent, float]] = []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        client = socketio.AsyncClient(reconnection=False)
        client.on("*", self._hear)
        await client.connect(self.url, headers=self.bearer)
        reading = asyncio.create_task(self._read())
        try:
            yield self
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await client.disconnect()

    async def _hear(self, name: str, data: dict[str, Any]) -> None:
        self.heard.append((name, data, time.time()))

    async def _read(self) -> None:
        metadata = tuple((name.lower(), value) for name, value in self.bearer.items())
        async with grpc.aio.insecure_channel(self.target) as channel:
            request = jobs_messages_pb2.WatchJobsRequest(from_oldest=True)
            async for message in jobs_service_pb2_grpc.JobsServiceStub(channel).WatchJobs(request, metadata=metadata):
                self.events += [(event, time.time()) for event in message.events]

    async def rest(self, path: str, post: Any = None, status: int = 200) -> Any:
        async with (
            aiohttp.ClientSession(headers=self.bearer) as http,
            http.request("POST" if post else "GET", self.url + path, json=post) as response,
        ):
            assert response.status == status, await response.text()
            return await response.json()

    def changes(self, name: str) -> list[tuple[event_pb2.JobChange, float]]:
        """Return the changes of a job, and when each was received."""
        return [(event.job_change, at) for event, at in self.events if event.job_change.job.id == name]

    async def completed(self, name: str) -> dict[str, Any]:
        """Wait until the job has completed at each endpoint, and check what each reported."""

        async def look() -> Any:
            ended = event_pb2.JOB_CHANGE_TYPE_COMPLETED in [change.type for change, _ in self.changes(name)]
            heard = any(told == "job_completed" and data["job_id"] == name for told, data, _ in self.heard)
            return ended and heard

        await until(look, 40)
        names = [event_pb2.JobChangeType.Name(change.type) for change, _ in self.changes(name)]
        assert [found.removeprefix("JOB_CHANGE_TYPE_") for found in names] == [*TO_STARTED, "COMPLETED"]
        heard = [(told, data) for told, data, _ in self.heard if data.get("job_id") == name]
        assert [told for told, _ in heard if told in HEARD] == HEARD
        job = dict(await self.rest(f"/jobs/{name}"))
        number = job["scheduler_job_id"]
        assert next(data for told, data in heard if told == "job_scheduled")["scheduler_job_id"] == number
        assert (job["status"], job["evidence"], job["executor"]) == ("completed", "solver_log", "slurm")
        return job


@pytest.fixture
async def watcher(service: SlurmService) -> AsyncIterator[Watcher]:
    async with Watcher(service).watching() as made:
        yield made


async def run(*argv: str, **environ: str) -> str:
    """Run a command as a user does; gives what it printed."""

    def work() -> str:
        env = {**os.environ, **environ}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    return await asyncio.to_thread(work)


async def test_nobody_gets_in_without_the_token(watcher: Watcher) -> None:
    watcher.bearer = {}
    await watcher.rest("/jobs", status=401)


async def test_the_command_line(service: SlurmService, watcher: Watcher) -> None:
    cli = (sys.executable, "-m", "edbjobs")
    own = {"EDBJOBS_RUNTIME_DIR": str(service.runtime_dir)}
    options = ("--scheduler", "slurm", "--partition", "short", "--cores-per-node", "2", "--memory-per-node", "256MB")
    demo = ("--set", "environment.ANS_EDBJOBS_DEMO=seconds=0.5")
    told = await run(*cli, "submit", str(service.project()), "--id", "by-command", *options, *demo, "--wait", **own)
    assert told.startswith("by-command: completed")
    job = await watcher.completed("by-command")
    line = service.slurm.run("squeue", "-h", "-t", "all", "-j", job["scheduler_job_id"], "-o", "%P %C %m %T")
    assert line == "short 2 256M COMPLETED"
    rows = json.loads(await run(*cli, "partitions", "--json", **own))
    assert {row["name"] for row in rows} == {"normal", "short", "closed"}
    assert "no jobs" in (await run(*cli, "cluster-jobs", **own)).lower()


async def test_rest(service: SlurmService, watcher: Watcher) -> None:
    config = {
        "project_path": str(service.project()),
        "jobid": "by-rest",
        "scheduler_type": "slurm",
        "environment": {"ANS_EDBJOBS_DEMO": "seconds=7"},
        "scheduler_options": {"nodes": 2, "cores_per_node": 3},
    }
    answer = await watcher.rest("/jobs/submit", {"config": config})
    assert answer["job_id"] == "by-rest"

    async def runs() -> Any:
        return (await watcher.rest("/jobs/by-rest"))["status"] == "running"

    await until(runs)

    async def seen() -> Any:  # an answer serves all who ask within 5 s
        rows = await watcher.rest("/scheduler/partitions")
        row = next(row for row in rows if row["name"] == "normal")
        return row if row["nodes_used"] else None

    normal = await until(seen)
    assert [normal[key] for key in ("nodes_total", "nodes_used", "cores_total", "cores_used")] == [4, 2, 32, 6]
    assert normal["memory_total_gb"] == pytest.approx(4 * 6000 / 1024, abs=0.1)
    status = await watcher.rest("/api/scheduler_type")
    assert status["scheduler_type"] == "slurm"
    await watcher.completed("by-rest")
    started = next(data for told, data, _ in watcher.heard if told == "job_started" and data["job_id"] == "by-rest")
    assert len(started["nodes"]) == 2


async def test_the_documented_command(service: SlurmService, watcher: Watcher) -> None:
    """It names no scheduler: the service has SLURM."""
    host, _, port = watcher.url.removeprefix("http://").rpartition(":")
    told = await run(
        sys.executable,
        "-m",
        f"{BACKEND}.submit_job_on_scheduler",
        *("--host", host, "--port", port, "--project-path", str(service.project())),
        *("--partition", "normal", "--cores-per-node", "2"),
        EDBJOBS_TOKEN=watcher.bearer["Authorization"].removeprefix("Bearer "),
    )
    job = await watcher.completed(told.split()[-1])
    line = service.slurm.run("squeue", "-h", "-t", "all", "-j", job["scheduler_job_id"], "-o", "%P %C %T")
    assert line == "normal 2 COMPLETED"


async def test_how_soon_it_is_told(service: SlurmService, watcher: Watcher) -> None:
    """SLURM is asked every 30 s only; the run's own news make it known in seconds."""
    config = {"project_path": str(service.project()), "jobid": "timed", "scheduler_type": "slurm"}
    started_at = time.time()
    await watcher.rest("/jobs/submit", {"config": config | {"environment": {"ANS_EDBJOBS_DEMO": "seconds=3"}}})
    await watcher.completed("timed")
    at = {change.type: when for change, when in watcher.changes("timed")}
    request = jobs_messages_pb2.GetJobRequest(job=JobRef(id="timed"))
    folder = Path(service.jobs.GetJob(request).job.attempts[-1].run_directory)
    record = {name: (folder / name).stat().st_mtime for name in ("start", "exit")}
    scheduled = at[event_pb2.JOB_CHANGE_TYPE_SCHEDULED] - started_at
    start = at[event_pb2.JOB_CHANGE_TYPE_STARTED] - record["start"]
    end = at[event_pb2.JOB_CHANGE_TYPE_COMPLETED] - record["exit"]
    print(f"submit -> SCHEDULED {scheduled:.2f} s, start -> event {start:.2f} s, end -> event {end:.2f} s")
    assert scheduled < 5
    assert start < 10
    assert end < 10
