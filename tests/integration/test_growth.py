"""Limits of growth: run folders, records in memory, thread hand-overs, file descriptors."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edbjobs._calls import job_ref
from edbjobs.v1 import job_config_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.manager import progress_tracker
from edbjobs_server.util.path_workers import PathWorkers
from edbjobs_server.util.timeouts import timeout
from support.manager_world import ANN, S, World
from support.service import ServiceProcess


async def test_run_folders_and_their_group_go_with_the_record(it: World) -> None:
    """Deleting the last job of a thousand removes the folder of the thousand too (G4)."""
    runs = it.folder / "state" / "runs"
    uids = [await it.submit(f"job{number}") for number in range(3)]
    folders = [Path((await it.ended(uid)).attempts[-1].run_directory) for uid in uids]
    for uid, folder in zip(uids[:2], folders, strict=False):
        await it.manager.delete(JobRef(uid=uid), ANN)
        assert not folder.exists()
    assert folders[2].is_dir()
    await it.manager.delete(JobRef(uid=uids[2]), ANN)
    assert not (runs / "000000").exists()


async def test_no_state_is_kept_of_ended_jobs(it: World) -> None:
    """A job that waits for a lock, or was cancelled while it did, leaves no state in memory (G4)."""
    path = it.project("locked")
    path.with_name("locked.aedt.lock").touch()
    uid = await it.submit("locked", project_path=str(path))
    await it.until(uid, lambda job: job.waiting.reason == S.WAITING_REASON_PROJECT_LOCKED)
    await it.manager.cancel(JobRef(uid=uid), ANN, None)
    await it.ended(await it.submit("other"))
    runs = it.manager._runs
    assert (runs._retry_states, runs._runs, runs._owners) == ({}, {}, {})
    assert (it.manager._core._deferred, it.manager._core._troubles, it.manager._core._gone) == ({}, {}, set())


async def test_all_running_logs_cost_one_hand_over(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many solves run, their logs are read by one thread in one go; waiting jobs cost nothing (G5)."""
    await it.manager.set_limits({"max_local_jobs": 8})
    waits = []
    for number in range(8):
        path = it.project(f"job{number}")
        wait = path.with_name(f"{path.name}.wait")
        wait.touch()
        waits.append(wait)
        uid = await it.submit(f"job{number}", project_path=str(path))
        await it.until(uid, lambda job: job.state == S.JOB_STATE_RUNNING)
    for number in range(20):
        await it.submit(f"waits{number}", hold=True)
    rounds: list[int] = []
    third = asyncio.Event()
    run = PathWorkers.run

    async def counted(self: PathWorkers, work: Callable[[], Any], *arguments: Any, **rest: Any) -> Any:
        owner = getattr(work, "__self__", None)
        if isinstance(owner, progress_tracker._Round):
            rounds.append(len(owner.solves))
            if len(rounds) == 3:
                third.set()
        return await run(self, work, *arguments, **rest)

    monkeypatch.setattr(PathWorkers, "run", counted)
    async with timeout(60.0):
        await third.wait()
    assert rounds[-1] == 8
    for wait in waits:
        wait.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_more_runs_than_the_soft_limit_of_descriptors_allows(tmp_path: Path) -> None:
    """The soft limit is raised for service and launcher, and solvers get the old one (G6)."""
    pb, count = jobs_messages_pb2, 60
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    solver = tmp_path / "ansysedt"
    solver.write_text('#!/bin/sh\nulimit -S -n > "$ANS_SEEN"\nwhile [ -e "$ANS_WAIT" ]; do sleep 0.1; done\n')
    solver.chmod(0o755)
    wait = tmp_path / "wait"
    wait.touch()
    service = ServiceProcess(tmp_path, max_local_jobs=count, max_cores=count, demo_solver=False, solvers=[str(solver)])
    service.prelude = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))"
    with service:
        uids = []
        for number in range(count):
            project = tmp_path / f"p{number}.aedt"
            project.touch()
            environment = {"ANS_SEEN": str(tmp_path / f"seen{number}"), "ANS_WAIT": str(wait)}
            config = job_config_pb2.JobConfig(project_path=str(project), environment=environment)
            uids.append(service.jobs.SubmitJob(pb.SubmitJobRequest(config=config), timeout=30).job.uid)
        running: set[str] = set()
        for message in service.jobs.WatchJobs(pb.WatchJobsRequest(from_oldest=True), timeout=100):
            running |= {
                event.job_change.job.uid
                for event in message.events
                if event.job_change.job.state == S.JOB_STATE_RUNNING
            }
            if running == set(uids):
                break
        wait.unlink()
        for uid in uids:
            job = service.jobs.WaitJob(pb.WaitJobRequest(job=job_ref(uid)), timeout=100).job
            assert job.state == S.JOB_STATE_COMPLETED, job
    assert {(tmp_path / f"seen{number}").read_text().strip() for number in range(count)} == {"64"}
