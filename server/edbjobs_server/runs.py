"""The life of runs: planning, starting, following and judging them.

`Runs` is the half of the job manager that acts by itself; `manager.py` is the half that answers requests.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edbjobs.config import ExistingResults

from edbjobs_server.core import transitions
from edbjobs_server.core.admission import Block
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.gates import HostLoad
from edbjobs_server.core.job import LOCAL, Job
from edbjobs_server.core.scheduler import Core
from edbjobs_server.core.states import EventType, Evidence, Reason, State, Waiting
from edbjobs_server.core.transitions import Outcome
from edbjobs_server.executors.base import (
    Ending,
    Executor,
    Reach,
    RunEnded,
    RunKey,
    RunNote,
    RunScheduled,
    RunSpec,
    RunStarted,
    RunUnkillable,
    RunUpdate,
)
from edbjobs_server.executors.local import faults
from edbjobs_server.following import Following
from edbjobs_server.gatewatch import GateWatch
from edbjobs_server.paths import UserPaths
from edbjobs_server.run_changes import (
    apply_end,
    apply_note,
    apply_scheduled,
    apply_start,
    apply_unkillable,
    outcome_of,
    put,
)
from edbjobs_server.run_spec import config_of, is_open, open_run, run_key, run_spec, solver_job_name
from edbjobs_server.silence import Silence
from edbjobs_server.solver import project, verdict
from edbjobs_server.solver.environment import inherited
from edbjobs_server.store import Store, Transaction
from edbjobs_server.submission import Rules

log = logging.getLogger(__name__)

_NO_LICENSE = "no licence within license_wait_limit: no setup was begun in that time"
LOCK_POLL_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 60.0  # until the next plan: the clock may have been set
JUDGE_SECONDS = 120.0
RETRY_SECONDS = (0.1, 0.3, 1.0, 3.0)  # between tries to write what must be written


@dataclass(frozen=True)
class Prepared:
    """What was found when a job's turn came: a lock, or all that its run needs."""

    lock: project.Lock | None = None
    spec: RunSpec | None = None
    clear: bool = False  # earlier results are to be removed


class Runs:
    """Plans, starts and follows runs.

    Parameters
    ----------
    store : Store
        Where every change is committed.
    core : Core
        Decides what starts.
    executors : mapping of str to Executor
        Where runs run.
    rules : Rules
        Solvers and host.
    paths : UserPaths
        For everything that touches projects.
    environment : mapping of str to str
        What a run's environment is made from.
    boot_id : str
        Of this host.
    lock_wait : float
        Longest wait, in seconds, for a project that somebody else has open.
    gate_event_seconds : float
        A gate that has been shut for so long is told by an event.
    """

    def __init__(
        self,
        store: Store,
        core: Core,
        executors: Mapping[str, Executor],
        rules: Rules,
        paths: UserPaths,
        environment: Mapping[str, str],
        boot_id: str,
        lock_wait: float = 600.0,
        gate_event_seconds: float = 600.0,
    ) -> None:
        self._store = store
        self._core = core
        self._executors = executors
        self._rules = rules
        self._paths = paths
        self._environment = inherited(environment)
        self._boot_id = boot_id
        self._lock_wait = lock_wait
        self._gates = GateWatch(core, gate_event_seconds)
        self.following = Following(core, paths, self._end_license_wait)
        self._locked_since: dict[str, float] = {}
        self._silence = Silence(core)
        self._planned: asyncio.Handle | None = None  # the next time to plan; None: not open
        self._due = False  # that is at once
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Take over what an earlier service left, and begin to plan."""
        for executor in self._executors.values():
            await executor.open(self._on_update)
        for name, executor in self._executors.items():
            await executor.adopt([open_run(job) for job in self._core.jobs.values() if is_open(job, name)])
        self._planned = asyncio.get_running_loop().call_soon(self._plan)
        self._loops.append(asyncio.create_task(self.following.run(), name="following"))

    async def close(self) -> None:
        """Stop planning and following; runs go on."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        tasks = [*self._tasks, *self._loops]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for executor in self._executors.values():
            await executor.close()

    def wake(self) -> None:
        """Plan soon: something changed. What changes until then is planned with it."""
        if self._planned is not None and not self._due:
            self._due = True
            self._planned.cancel()
            self._planned = asyncio.get_running_loop().call_soon(self._plan)

    def take_load(self, load: HostLoad) -> None:
        """Take over a new sample of the host."""
        self._core.load = load
        told = self._gates.look(time.time())
        if told is not None:
            self._spawn(self._record(lambda tx: tx.note(EventType.GATE, told)))
        self.wake()

    async def end(self, job: Job, grace: float | None) -> None:
        """End the open run of a job."""
        await self._executors[job.spec.executor].cancel(
            run_key(job), grace if grace is not None else job.spec.cancel_grace
        )

    async def remove_folders(self, jobs: Sequence[Job]) -> None:
        """Remove the run folders of jobs whose records are gone; nothing else is ever touched."""

        def remove() -> None:
            for job in jobs:
                for attempt in job.attempts:
                    key = RunKey(job.seq, job.uid, attempt.number)
                    shutil.rmtree(self._executors[job.spec.executor].run_directory(key), ignore_errors=True)

        await asyncio.to_thread(remove)

    # Planning --------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        self._due = False
        for job in self._core.plan(time.time()):
            self._spawn(self._start(job, self._core.generation))
        wakes = [wake for wake in (self._core.next_wake(), self._refuse_to_wait()) if wake is not None]
        wait = min(max(min(wakes) - time.time(), 0.0), LONGEST_WAIT_SECONDS) if wakes else LONGEST_WAIT_SECONDS
        self._planned = asyncio.get_running_loop().call_later(wait, self._plan)

    def _refuse_to_wait(self) -> float | None:
        """Fail jobs that have waited too long for a silent scheduler; tells when the next one will have."""
        now, later = time.time(), []
        for end, job in self._silence.deadlines():
            if now < end:
                later.append(end)
                continue
            limit, silent = job.spec.scheduler_wait_limit, self._core.silent[job.spec.executor]
            text = f"not handed over within scheduler_wait_limit ({limit:g} s): {silent}"
            self._spawn(self._fail(job, Reason.SUBMIT_REFUSED, text))
        return min(later, default=None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("following a run failed", exc_info=task.exception())

    # Starting --------------------------------------------------------------------------------------------

    async def _start(self, job: Job, generation: int) -> None:
        """Start a planned job: prepare, reserve on disk, then act."""
        try:
            prepared = await self._paths.run(partial(self._prepare, job), job.spec.project_path)
        except Refused as refused:
            await self._give_up(job, refused)
            return
        if prepared.spec is None:
            await self._wait_for_lock(job, prepared.lock)
            return
        self._locked_since.pop(job.uid, None)
        faults.point("run.before_reserve")
        if await self._reserve(job, prepared.spec, generation):
            faults.point("run.after_reserve")
            await self._launch(job, prepared.spec, prepared.clear)
            faults.point("run.after_start")

    def preview(self, job: Job) -> tuple[RunSpec, Mapping[str, str]]:
        """Tell what a job would run, and what its environment has beside what every run gets."""
        spec = run_spec(job, config_of(job), self._rules, self._environment)
        return spec, {name: value for name, value in spec.env.items() if self._environment.get(name) != value}

    def _prepare(self, job: Job) -> Prepared:
        found = project.inspect(job.spec.project_path)
        lock = project.lock_state(found)
        if lock is not None:
            return Prepared(lock=lock)
        config = config_of(job)
        project.refuse_results(found, config.existing_results)
        clear = config.existing_results is ExistingResults.CLEAR
        return Prepared(spec=run_spec(job, config, self._rules, self._environment), clear=clear)

    async def _wait_for_lock(self, job: Job, lock: project.Lock | None) -> None:
        assert lock is not None, "a project that is not ready is locked"
        now = time.time()
        since = self._locked_since.setdefault(job.uid, now)
        if now - since >= self._lock_wait:
            text = (
                f"{lock.path} has been there for {self._lock_wait:g} s: somebody has the project open, or a crash left "
                "the file; close the project, or remove the file once no AEDT works on it, then retry the job"
            )
            await self._fail(job, Reason.PROJECT_LOCKED, text)
            return
        detail = f"{lock.path} exists: somebody has the project open; waiting until {self._lock_wait:g} s have passed"
        until = min(now + LOCK_POLL_SECONDS, since + self._lock_wait)
        self._core.defer(job.uid, until, Block(Waiting.PROJECT_LOCKED, detail, own=True))
        self.wake()

    async def _give_up(self, job: Job, refused: Refused) -> None:
        """Fail a job whose project or solver is gone; wait for a file system that does not answer."""
        if refused.reason == "PATH_UNREACHABLE":
            block = Block(Waiting.BACK_OFF, refused.message, own=True)
            self._core.defer(job.uid, time.time() + 30.0, block)
            self.wake()
            return
        reasons = {
            "RESULTS_EXIST": Reason.RESULTS_EXIST,
            "SOLVER_NOT_FOUND": Reason.SOLVER_NOT_FOUND,
            "SOLVER_NOT_ALLOWED": Reason.SOLVER_NOT_FOUND,
            "PROJECT_NOT_FOUND": Reason.PROJECT_NOT_FOUND,
        }
        await self._fail(job, reasons.get(refused.reason, Reason.START_FAILED), refused.message)

    async def _fail(self, job: Job, reason: Reason, message: str) -> None:
        self._locked_since.pop(job.uid, None)

        def command(tx: Transaction) -> None:
            put(tx, transitions.fail(tx.job(job.uid), reason, message, tx.now))

        await self._record(command)
        self._core.release(job.uid)
        self.wake()

    async def _reserve(self, job: Job, spec: RunSpec, generation: int) -> bool:
        """Commit the reservation; False where the job may not start after all."""
        limits = self._core.limits
        directory = str(self._executors[job.spec.executor].run_directory(spec.key))

        def command(tx: Transaction) -> bool:
            # After a failed commit the core has forgotten this plan, and may have given its place to another job.
            if tx.limits != limits or tx.paused or tx.generation != generation:
                return False
            current = tx.find(job.uid)
            if current is None or current.attempt + 1 != spec.key.attempt:
                return False
            return put(tx, transitions.reserve(current, tx.now, self._boot_id, directory))

        try:
            reserved = await self._store.write(command)
        except Refused as refused:
            block = Block(Waiting.STORE_UNAVAILABLE, refused.message, own=True)
            self._core.defer(job.uid, time.time() + 1.0, block)
            self.wake()
            return False
        if not reserved:
            self._core.release(job.uid)
            self.wake()
        return reserved

    async def _launch(self, job: Job, spec: RunSpec, clear_results: bool) -> None:
        if clear_results:
            clear = partial(project.clear_results, job.spec.project_path)
            try:
                await self._paths.run(clear, job.spec.project_path)
            except (Refused, OSError) as error:
                await self._close_unstarted(spec.key, f"earlier results could not be removed: {error}")
                return
        await self._executors[job.spec.executor].start(spec)

    async def _close_unstarted(self, key: RunKey, message: str) -> None:
        outcome = Outcome(State.FAILED, Reason.START_FAILED, Evidence.NONE, time.time(), message=message, ran=False)
        await self._record(partial(apply_end, key=key, outcome=outcome, started=None))
        self.wake()

    # Following -------------------------------------------------------------------------------------------

    def _on_update(self, update: RunUpdate) -> None:
        if isinstance(update, Reach):
            self._silence.take(update)
            self.wake()
        else:
            self._spawn(self._follow(update))

    async def _follow(self, update: RunScheduled | RunStarted | RunEnded | RunNote | RunUnkillable) -> None:
        if isinstance(update, RunScheduled):
            await self._record(partial(apply_scheduled, update=update))
            return
        if isinstance(update, RunNote):
            await self._record(partial(apply_note, update=update))
            return
        if isinstance(update, RunStarted):
            await self._record(partial(apply_start, update=update))
            return
        if isinstance(update, RunUnkillable):
            await self._record(partial(apply_unkillable, update=update))
            return
        job = self._core.jobs.get(update.key.uid)
        if job is None or job.attempt != update.key.attempt:
            log.warning("run %s ended, but its job is not waiting for that", update.key.folder)
            return
        outcome, note = await self._outcome(job, update)
        faults.point("run.before_end")
        await self._record(partial(apply_end, key=update.key, outcome=outcome, started=update, note=note))
        faults.point("run.after_end")
        self.wake()

    async def _outcome(self, job: Job, ended: RunEnded) -> tuple[Outcome, str]:
        """Judge an end by what the solver left; the second value tells of a lock that was removed."""
        if ended.ending is Ending.NEVER_RAN:
            outcome = Outcome(State.QUEUED, Reason.NONE, Evidence.NONE, ended.time, message=ended.message, ran=False)
            return outcome, ""
        try:
            return await self._paths.run(partial(self._judge, job, ended), job.spec.project_path, JUDGE_SECONDS)
        except Refused as refused:
            message = f"the run ended, but its log could not be read: {refused.message}"
            return outcome_of(ended, State.FAILED, Reason.UNVERIFIED, Evidence.NONE, message), ""

    def _judge(self, job: Job, ended: RunEnded) -> tuple[Outcome, str]:
        directory = Path(job.run_directory)
        config = config_of(job)
        found = verdict.judge(
            ended,
            project_path=Path(job.spec.project_path),
            job_name=solver_job_name(job, ended.key.attempt),
            config=config,
            stdout=directory / "stdout",
            stderr=directory / "stderr",
            same_host=job.spec.executor == LOCAL,
        )
        note = ""
        if ended.start_time is not None and job.spec.executor == LOCAL:
            removed = project.remove_own_lock(Path(job.spec.project_path), ended.start_time)
            note = f"removed {removed}, which this run left" if removed else ""
        outcome = outcome_of(ended, found.state, found.reason, found.evidence, found.message)
        waited = config.wait_for_license and config.license_wait_limit is not None
        if ended.ending is Ending.CANCELLED and job.cancel_time is None and waited:
            # Nobody is on record as having asked for it: the limit of the wait for a licence has ended it.
            outcome = replace(outcome, state=State.FAILED, reason=Reason.LICENSE, message=_NO_LICENSE)
        return outcome, note

    async def _end_license_wait(self, job: Job) -> None:
        log.info("job %s has waited too long for a licence", job.id)
        await self.end(job, None)

    async def _record(self, command: Callable[[Transaction], None]) -> None:
        """Write what has happened, however long the store cannot be written."""
        tries = 0
        while True:
            try:
                await self._store.write(command)
            except Refused as refused:
                log.warning("cannot record what happened: %s", refused.message)
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
            else:
                return
