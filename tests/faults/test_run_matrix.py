"""Every step of a run fails in every way: the job ends correctly or waits with a reason, and does not block others."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import job_config_pb2, job_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.core import transitions
from edbjobs_server.executors.local.linux.executor import LocalExecutor
from edbjobs_server.manager import run_retry, run_steps, run_task
from edbjobs_server.solver import project, project_lock, project_results, verdict
from support.manager_world import ANN, TERMINAL, S, World, pb

DEFINITE = ("ENOENT", "EACCES", "ENAMETOOLONG", "EROFS")
TRANSIENT = ("ESTALE", "EIO", "EMFILE", "ENOMEM")
BUGS = ("KeyError", "TypeError")
CLASSES = (*DEFINITE, *TRANSIENT, *BUGS, "hang")

E = job_config_pb2


@dataclass(frozen=True)
class Step:
    """One step: its place, and the result of a definite error in it.

    `definite`: states that the job may end in. `writes`: it runs in the store's writer, where an error of the file
    system means that nothing can be written. `hangs`: it may hang.
    """

    name: str
    owner: Any
    attribute: str
    definite: frozenset[int]
    writes: bool = False
    hangs: bool = True


TROUBLES = {
    S.WAITING_REASON_BACK_OFF,
    S.WAITING_REASON_STORE_UNAVAILABLE,
    S.WAITING_REASON_PATH_UNREACHABLE,
    S.WAITING_REASON_ENDING,
}
FAILED = frozenset({S.JOB_STATE_FAILED})
WAITS = frozenset[int]()  # any error is retried
STEPS = [
    Step("inspect", project, "inspect", FAILED),
    Step("lock look", project_lock, "lock_state", FAILED),
    Step("results check", project_results, "refuse_results", FAILED),
    Step("spec", run_steps, "run_spec", FAILED),
    Step("reserve", transitions, "reserve", WAITS, writes=True, hangs=False),
    Step("clear", project_results, "clear_results", FAILED),
    Step("launch", LocalExecutor, "start", WAITS, hangs=False),
    Step("follow", run_task, "apply_update", frozenset({S.JOB_STATE_COMPLETED}), writes=True, hangs=False),
    Step("read log", verdict, "read_log", frozenset({S.JOB_STATE_FAILED, S.JOB_STATE_COMPLETED})),
    Step("judge", verdict, "judge", FAILED),
    Step("remove lock", project_lock, "remove_own_lock", frozenset({S.JOB_STATE_COMPLETED})),
    Step("record", run_task, "apply_end", WAITS, writes=True, hangs=False),
]
CASES = [(step, what) for step in STEPS for what in CLASSES if what != "hang" or step.hangs]


class Fault:
    """Makes a step fail for one project, a given number of times."""

    def __init__(self, step: Step, what: str, marks: set[str]) -> None:
        self.what = what
        self.left = -1  # remaining failures; negative: no limit
        self.hits = 0
        self.hit = threading.Event()
        self.release = threading.Event()
        self._marks = marks
        self._real = getattr(step.owner, step.attribute)

    def replacement(self) -> Callable[..., Any]:
        """Return the replacement of the step; a plain function, so that it can be a method as well."""
        return lambda *args, **kwargs: self._call(*args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        if self.left != 0 and any(mark in repr((args, kwargs)) for mark in self._marks):
            self.left -= 1
            self.hits += 1
            self.hit.set()
            self._fail()
        return self._real(*args, **kwargs)

    def _fail(self) -> None:
        if self.what == "hang":
            self.release.wait(60)
        elif self.what in BUGS:
            raise {"KeyError": KeyError, "TypeError": TypeError}[self.what]("made by the test")
        else:
            number = getattr(errno, self.what)
            raise OSError(number, os.strerror(number), "made/by/the/test")


@pytest.fixture
async def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(run_task, "JUDGE_SECONDS", 1.0)
    monkeypatch.setattr(run_task, "LAST_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(run_task, "CLEAR_SECONDS", 1.0)
    monkeypatch.setattr("edbjobs_server.util.path_workers.DEADLINE_SECONDS", 1.0)
    monkeypatch.setattr(run_retry, "STORE_SECONDS", 0.2)
    monkeypatch.setattr("edbjobs_server.util.backoff.LONGEST_SECONDS", 0.4)
    world = World(tmp_path)
    await world.open()
    yield world
    await world.close()


async def ill(it: World, step: Step, what: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Fault]:
    """Submit a job that will have the fault."""
    fields: dict[str, Any] = {"existing_results": E.EXISTING_RESULTS_CLEAR} if step.name == "clear" else {}
    uid = await it.submit("ill", hold=True, **fields)
    marks = {uid, str(it.folder / "projects" / "ill.aedt")}
    if step.name == "follow":  # a run that ends at once is recorded with its end
        (it.folder / "projects" / "ill.aedt.wait").touch()
    fault = Fault(step, what, marks)
    monkeypatch.setattr(step.owner, step.attribute, fault.replacement())
    return uid, fault


def waits_visibly(job: job_pb2.Job) -> bool:
    return job.state in TERMINAL or (job.waiting.reason in TROUBLES and len(job.waiting.message) > 20)


def ids(case: object) -> str:
    return case.name if isinstance(case, Step) else str(case)


@pytest.mark.parametrize(("step", "what"), CASES, ids=ids)
async def test_a_failure_that_passes(it: World, step: Step, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step fails twice, then no more: a transient failure is no verdict, a definite one gives the right one."""
    uid, fault = await ill(it, step, what, monkeypatch)
    fault.left = 2
    await it.manager.release(JobRef(uid=uid), ANN)
    await asyncio.to_thread(fault.hit.wait, 30)
    (it.folder / "projects" / "ill.aedt.wait").unlink(missing_ok=True)
    if what == "hang":
        await it.until(uid, waits_visibly)
        fault.release.set()
    job = await it.ended(uid)
    assert fault.hits >= 1
    expected = step.definite if what in DEFINITE and step.definite else frozenset({S.JOB_STATE_COMPLETED})
    assert job.state in expected, job
    if job.state == S.JOB_STATE_COMPLETED:
        assert job.outcome.evidence == S.EVIDENCE_SOLVER_LOG, job.outcome.message
    assert it.runs_of("ill") <= 1
    assert (await it.ended(await it.submit("next"))).state == S.JOB_STATE_COMPLETED


@pytest.mark.parametrize(("step", "what"), CASES, ids=ids)
async def test_a_failure_that_stays(it: World, step: Step, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends or waits with a reason; others start, and a cancel or a restart without the fault ends it."""
    uid, fault = await ill(it, step, what, monkeypatch)
    await it.manager.release(JobRef(uid=uid), ANN)
    await asyncio.to_thread(fault.hit.wait, 30)
    (it.folder / "projects" / "ill.aedt.wait").unlink(missing_ok=True)
    if step.writes and what not in BUGS:
        await store_is_ill(it, uid, fault)
        return
    for number in range(2):
        assert (await it.ended(await it.submit(f"other{number}", cores=8))).state == S.JOB_STATE_COMPLETED
    job = await it.until(uid, waits_visibly)
    if job.state in TERMINAL:
        assert what in DEFINITE or step.name == "follow", job
        assert job.state in step.definite, job
        return
    if step.name == "record":  # while its end cannot be recorded, neither can a cancel's
        await restarted(it, uid, fault)
        return
    await it.manager.cancel(JobRef(uid=uid), ANN, 0.0)
    assert (await it.ended(uid)).state in {S.JOB_STATE_CANCELLED, S.JOB_STATE_FAILED}
    fault.left = 0
    fault.release.set()
    assert it.runs_of("ill") <= 1
    again = (await it.manager.retry(pb.RetryJobRequest(job=JobRef(uid=uid)), ANN)).job.uid
    assert (await it.ended(again)).state == S.JOB_STATE_COMPLETED


async def store_is_ill(it: World, uid: str, fault: Fault) -> None:
    """The store cannot be written: jobs wait with that reason, and continue once it can be written again."""
    job = await it.until(uid, waits_visibly)
    reasons = {S.WAITING_REASON_STORE_UNAVAILABLE, S.WAITING_REASON_ENDING}
    assert job.waiting.reason in reasons or job.state in TERMINAL, job
    await restarted(it, uid, fault)


async def restarted(it: World, uid: str, fault: Fault) -> None:
    await it.close()
    fault.left = 0
    await it.open()
    assert (await it.ended(uid)).state == S.JOB_STATE_COMPLETED
    assert it.runs_of("ill") == 1
