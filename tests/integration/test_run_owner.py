"""Runs after changes from outside: links are moved, executors are missing, jobs are deleted."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.planner import Planner
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.poll_timing import PollTiming
from edbjobs_server.executors.cluster.run_folders import RunFolders
from edbjobs_server.executors.cluster.script import Scripts, SiteLines
from edbjobs_server.executors.local.linux.executor import LocalExecutor
from edbjobs_server.manager import run_steps, runs
from edbjobs_server.manager.run_task import RunTask
from edbjobs_server.manager.runs import Runs
from edbjobs_server.solver import project, project_lock
from edbjobs_server.util.backoff import Backoff
from support.manager_world import ANN, S, World
from support.memory_cluster import MemorySlurm


def delay(seconds: float) -> Callable[[Backoff], float]:
    """Replace `Backoff.next`: always the same delay."""

    def next_delay(self: Backoff) -> float:
        self.count += 1
        return seconds

    return next_delay


async def release(it: World, uid: str) -> None:
    await it.manager.release(JobRef(uid=uid), ANN)


# Links that are moved while a job waits (A4) ------------------------------------------------------------------


async def test_the_submitted_project_runs(it: World) -> None:
    real, other = it.project("real"), it.project("other")
    link = it.folder / "link.aedt"
    link.symlink_to(real)
    uid = await it.submit("job", project_path=str(link), hold=True)
    link.unlink()
    link.symlink_to(other)
    await release(it, uid)
    assert (await it.ended(uid)).state == S.JOB_STATE_COMPLETED
    assert (it.runs_of("real"), it.runs_of("other")) == (1, 0)


async def test_a_real_path_that_leads_elsewhere_at_the_start_is_not_run(it: World) -> None:
    real = it.project("real")
    uid = await it.submit("job", project_path=str(real), hold=True)
    moved = it.folder / "moved"
    real.parent.rename(moved)
    other = it.folder / "other"
    other.mkdir()
    (other / "real.aedt").write_text((moved / "real.aedt").read_text())
    real.parent.symlink_to(other)
    await release(it, uid)
    job = await it.ended(uid)
    assert (job.state, job.outcome.reason) == (S.JOB_STATE_FAILED, S.END_REASON_PROJECT_CHANGED)
    assert f"{real} now leads to {other / 'real.aedt'}" in job.outcome.message
    assert not [*other.glob("*.ran"), *moved.glob("*.ran")]


async def test_the_result_of_another_project_is_not_judged(it: World) -> None:
    """The folder is replaced while the solver runs: the log that is found at the end is another project's."""
    real = it.project("real")
    wait = real.with_name("real.aedt.wait")
    wait.touch()
    uid = await it.submit("job", project_path=str(real))
    await it.until(uid, lambda job: it.runs_of("real"))
    moved = it.folder / "moved"
    real.parent.rename(moved)
    real.parent.symlink_to(moved)
    (moved / wait.name).unlink()
    job = await it.ended(uid)
    assert (job.state, job.outcome.reason) == (S.JOB_STATE_FAILED, S.END_REASON_UNVERIFIED)
    assert "now leads to" in job.outcome.message


# A scheduler that the service no longer has (A2) ---------------------------------------------------------------


def with_slurm(it: World) -> MemorySlurm:
    scheduler = MemorySlurm()
    folders = RunFolders(it.folder / "cluster")
    timing = PollTiming(interval=0.05, floor=0.0, tick=0.01, confirm=0.2, stale=0.2)
    it.clusters = {"slurm": ClusterExecutor(scheduler, Scripts(None, SiteLines()), folders, timing)}
    return scheduler


async def test_a_job_for_a_missing_scheduler_waits_with_that_reason(tmp_path: Path) -> None:
    it = World(tmp_path)
    scheduler = with_slurm(it)
    scheduler.silent = "it is away"
    await it.open()
    config: dict[str, Any] = {"scheduler": "slurm"}
    uid = await it.submit("cluster", **config)
    await it.close()
    it.clusters = {}
    await it.open()
    try:
        job = await it.get(uid)
        assert job.state == S.JOB_STATE_QUEUED
        assert "no scheduler 'slurm'" in job.waiting.message
        assert (await it.ended(await it.submit("local"))).state == S.JOB_STATE_COMPLETED
        await it.manager.cancel(JobRef(uid=uid), ANN, None)
        assert (await it.get(uid)).state == S.JOB_STATE_CANCELLED
    finally:
        await it.close()


async def test_a_run_with_a_missing_scheduler_can_be_abandoned(tmp_path: Path) -> None:
    it = World(tmp_path)
    scheduler = with_slurm(it)
    await it.open()
    config: dict[str, Any] = {"scheduler": "slurm"}
    uid = await it.submit("cluster", **config)
    await it.until(uid, lambda job: job.state == S.JOB_STATE_SCHEDULED)
    assert scheduler.table
    await it.close()
    it.clusters = {}
    await it.open()
    try:
        job = await it.until(uid, lambda job: "no scheduler 'slurm'" in job.waiting.message)
        assert job.state == S.JOB_STATE_SCHEDULED
        await it.manager.cancel(JobRef(uid=uid), ANN, 0.0)
        assert (await it.get(uid)).state == S.JOB_STATE_SCHEDULED, "its state is unknown"
        job = await it.manager.cancel(JobRef(uid=uid), ANN, None, abandon=True)
        assert (job.state, job.outcome.reason) == (S.JOB_STATE_CANCELLED, S.END_REASON_UNKILLABLE)
        assert (await it.ended(await it.submit("local"))).state == S.JOB_STATE_COMPLETED
    finally:
        await it.close()


# Jobs that are deleted while their work is under way (A10) ------------------------------------------------------


async def test_a_job_that_is_deleted_while_it_is_prepared_leaves_nothing(
    it: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hold, looked = threading.Event(), threading.Event()
    lock_state = project_lock.lock_state

    def slow(found: project.Project) -> project_lock.Lock | None:
        if "gone" in str(found.path):
            looked.set()
            hold.wait()
        return lock_state(found)

    monkeypatch.setattr(project_lock, "lock_state", slow)
    uid = await it.submit("gone")
    await asyncio.to_thread(looked.wait, 30)
    await it.manager.cancel(JobRef(uid=uid), ANN, None)
    await it.manager.delete(JobRef(uid=uid), ANN)
    hold.set()
    assert (await it.ended(await it.submit("next"))).state == S.JOB_STATE_COMPLETED
    with pytest.raises(Refused, match="there is no job"):
        await it.get(uid)
    assert it.runs_of("gone") == 0
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


async def test_abandon_is_refused_while_a_run_can_be_ended(it: World) -> None:
    it.project("busy").with_name("busy.aedt.wait").touch()
    uid = await it.submit("busy", project_path=str(it.folder / "projects" / "busy.aedt"))
    await it.until(uid, lambda job: job.state == S.JOB_STATE_RUNNING)
    with pytest.raises(Refused) as refused:
        await it.manager.cancel(JobRef(uid=uid), ANN, None, abandon=True)
    assert refused.value.reason == "JOB_NOT_UNKILLABLE"
    await it.manager.cancel(JobRef(uid=uid), ANN, 0.0)
    assert (await it.ended(uid)).state == S.JOB_STATE_CANCELLED


async def test_an_abandon_records_the_end_that_the_log_proves(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes are gone and the first read of the log fails: the abandon reads it again and finds the proof."""
    judge, failures = run_steps.judge, iter([True])

    def once(*args: Any) -> Any:
        if next(failures, False):
            raise OSError(5, "made by the test")
        return judge(*args)

    monkeypatch.setattr(run_steps, "judge", once)
    monkeypatch.setattr(Backoff, "next", delay(60.0))
    uid = await it.submit("job")
    await it.until(uid, lambda job: "cannot be read yet" in job.waiting.message)
    job = await it.manager.cancel(JobRef(uid=uid), ANN, None, abandon=True)
    assert (job.state, job.outcome.evidence) == (S.JOB_STATE_COMPLETED, S.EVIDENCE_SOLVER_LOG)


async def test_a_cause_is_logged_once_however_often_a_job_is_tried(
    it: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Backoff, "next", delay(0.05))
    lock_state, looks = project_lock.lock_state, []

    def ill(found: project.Project) -> project_lock.Lock | None:
        looks.append(1)
        if len(looks) < 6:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(found.path))
        return lock_state(found)

    monkeypatch.setattr(project_lock, "lock_state", ill)
    uid = await it.submit("job")
    assert (await it.ended(uid)).state == S.JOB_STATE_COMPLETED
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.endswith(f"it cannot be started now: Too many open files: {it.folder}/projects/job.aedt")


async def test_a_start_that_raises_is_owned(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's record shows whether an executor has started a run after a failed call."""
    start, failures = LocalExecutor.start, iter([True])

    async def late(self: LocalExecutor, run: Any) -> None:
        await start(self, run)
        if next(failures, False):
            raise KeyError("after it was started")

    monkeypatch.setattr(LocalExecutor, "start", late)
    uid = await it.submit("job")
    assert (await it.ended(uid)).state == S.JOB_STATE_COMPLETED
    assert it.runs_of("job") == 1


async def test_a_plan_that_fails_half_way_leaves_nothing_reserved(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs planned before the planner fails are released, and planned again (of the kind of A2)."""
    plan = Planner.plan
    failures = iter([True])

    def half(self: Planner, now: float) -> list[Job]:
        chosen = plan(self, now)
        fails = next(failures, False) if chosen else False
        if fails:
            raise KeyError("made by the test")
        return chosen

    monkeypatch.setattr(Planner, "plan", half)
    uids = [await it.submit(f"job{number}", cores=8) for number in range(2)]
    for uid in uids:
        assert (await it.ended(uid)).state == S.JOB_STATE_COMPLETED


async def test_a_task_that_cannot_be_made_leaves_nothing_reserved(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start, failures = Runs._start, iter([True])

    def once(self: Runs, job: Job) -> None:
        if next(failures, False):
            raise MemoryError
        start(self, job)

    monkeypatch.setattr(Runs, "_start", once)
    uids = [await it.submit(f"job{number}", cores=8) for number in range(2)]
    for uid in uids:
        assert (await it.ended(uid)).state == S.JOB_STATE_COMPLETED


async def test_a_run_whose_task_is_lost_gets_another_one(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LOST_SECONDS", 0.05)
    own, failures = RunTask._own, iter([True])

    async def broken(self: RunTask, start: Any) -> None:
        if next(failures, False):
            raise AssertionError("made by the test")
        await own(self, start)

    monkeypatch.setattr(RunTask, "_own", broken)
    uid = await it.submit("job")
    assert (await it.ended(uid)).state == S.JOB_STATE_COMPLETED
    assert it.runs_of("job") == 1
