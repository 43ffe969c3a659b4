"""The runs of all jobs: which start now, which task owns each, and what executors report of them.

`Runs` acts without requests: it plans, owns the task of each run, and applies what executors report. The steps of one
run are in `run_task.py`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.gates import HostLoad
from edbjobs_server.core.job import Job
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.runs import Reachability, RunKey, RunUpdate
from edbjobs_server.core.states import Reason
from edbjobs_server.executors.base import Executor, RunSpec
from edbjobs_server.manager.gate_monitor import GateMonitor
from edbjobs_server.manager.progress_tracker import ProgressTracker
from edbjobs_server.manager.run_context import RetryState, RunContext
from edbjobs_server.manager.run_spec import run_spec
from edbjobs_server.manager.run_task import RunTask
from edbjobs_server.manager.run_updates import fail
from edbjobs_server.manager.submission import Rules
from edbjobs_server.manager.unreachable import UnreachableSchedulers
from edbjobs_server.solver.environment import inherited
from edbjobs_server.store import Store, Transaction
from edbjobs_server.util.backoff import Backoff
from edbjobs_server.util.keep_running import keep_running
from edbjobs_server.util.path_workers import PathWorkers
from edbjobs_server.util.timeouts import timeout

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0  # until the next plan: the clock may have been set
STORE_SECONDS = 1.0  # the same while the store cannot be written
LOST_SECONDS = 10.0  # until a run whose task failed gets another one
ADOPT_SECONDS = 30.0  # for which the start of the service waits for the state of earlier runs
ABANDON_SECONDS = 30.0  # for which an abandon waits for the record of a run whose processes are gone


class Runs:
    """Plans runs, owns a task for each, and passes executors' updates to them.

    Parameters
    ----------
    store : Store
        Where every change is committed.
    core : Planner
        Decides which jobs start.
    executors : mapping of str to Executor
        Executors of runs, by name.
    rules : Rules
        Solvers and host.
    paths : PathWorkers
        Threads for all work on projects.
    environment : mapping of str to str
        Base of every run's environment.
    boot_id : str
        Identifier of the host's current boot.
    lock_wait : float
        Longest wait, in seconds, for a project that another program has open.
    gate_event_seconds : float
        Time after which a closed gate is reported by an event.
    """

    def __init__(
        self,
        store: Store,
        core: Planner,
        executors: Mapping[str, Executor],
        rules: Rules,
        paths: PathWorkers,
        environment: Mapping[str, str],
        boot_id: str,
        lock_wait: float = 600.0,
        gate_event_seconds: float = 600.0,
    ) -> None:
        self._store = store
        self._core = core
        self._executors = executors
        self._context = RunContext(
            store, core, executors, rules, paths, inherited(environment), boot_id, lock_wait, self.wake
        )
        self._gates = GateMonitor(core, gate_event_seconds)
        self.progress = ProgressTracker(core, paths, self._end_license_wait)
        self._unreachable = UnreachableSchedulers(core)
        self._planned: asyncio.Handle | None = None  # the next time to plan; None: not open
        self._due = False  # at the next turn of the loop
        self._plan_failures = Backoff(first=1.0)
        self._runs: dict[str, RunTask] = {}  # by the job's uid
        self._owners: dict[RunTask, asyncio.Task[None]] = {}
        self._retry_states: dict[str, RetryState] = {}
        self._others: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Adopt the runs of an earlier service, and start to plan."""
        for executor in self._executors.values():
            await executor.open(self._on_update)
        adopted = [self._adopt(job) for job in [*self._core.jobs.values()] if job.open_attempt is not None]
        self._unreachable.note_missing({job.spec.scheduler for job in self._core.jobs.values()}, self._executors)
        try:
            async with timeout(ADOPT_SECONDS):
                await asyncio.gather(*(run.adopted.wait() for run in adopted))
        except (asyncio.TimeoutError, TimeoutError):
            log.warning("the state of some runs of an earlier service is not known yet; the service starts without it")
        self._planned = asyncio.get_running_loop().call_soon(self._plan)
        self._spawn(keep_running("reading the logs of running solves", self.progress.run))

    async def close(self) -> None:
        """Stop planning and following; runs continue."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        tasks = [*self._owners.values(), *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for executor in self._executors.values():
            await executor.close()

    def wake(self) -> None:
        """Request a plan after a change; changes until then are planned with it."""
        if self._planned is not None and not self._due:
            self._due = True
            self._planned.cancel()
            self._planned = asyncio.get_running_loop().call_soon(self._plan)

    def take_load(self, load: HostLoad) -> None:
        """Apply a new sample of the host."""
        self._core.load = load
        changed = self._gates.check(time.time())
        if changed is not None:
            self._spawn(self._write(lambda tx: tx.note(*changed)))
        self.wake()

    def end(self, job: Job, grace: float | None) -> None:
        """End the open run of a job; its task repeats that until it is done."""
        run = self._runs.get(job.uid) or self._adopt(job)
        run.end(grace if grace is not None else job.spec.cancel_grace_period)

    def has_ended(self, uid: str) -> bool:
        """Return whether the processes of a job's run are gone while its end is not on record yet."""
        run = self._runs.get(uid)
        return run is not None and run.ended is not None

    def is_state_unknown(self, uid: str) -> bool:
        """Return whether it cannot be determined if a run has processes."""
        run = self._runs.get(uid)
        return run is None or run.state_unknown

    async def conclude(self, uid: str) -> bool:
        """Record the end of a run whose processes are gone now, with the result as far as it can be read.

        Returns
        -------
        bool
            Whether it is on record; False: it cannot be written now.
        """
        run = self._runs.get(uid)
        if run is None:
            return True
        run.end(0.0)
        await asyncio.wait({self._owners[run]}, timeout=ABANDON_SECONDS)
        return uid not in self._runs

    def forget(self, uid: str) -> None:
        """Drop the state of a job that has ended or was deleted."""
        self._retry_states.pop(uid, None)
        run = self._runs.get(uid)
        if run is not None and not run.recording:  # not ended by its task: it was abandoned
            self._owners[run].cancel()

    def own(self, uid: str) -> None:
        """Start a task for a run whose reservation is on disk, if its task has stopped waiting for that."""
        job = self._core.jobs.get(uid)
        if job is not None and job.open_attempt is not None and uid not in self._runs and self._planned is not None:
            self._adopt(job)

    def on_reset(self) -> None:
        """Release the resources of ended runs again: the core was rebuilt from the store."""
        for uid, run in self._runs.items():
            if run.ended is not None:
                self._core.run_gone(uid)
        for job in self._core.running():
            self.own(job.uid)
        self.wake()

    async def remove_folders(self, jobs: Sequence[Job]) -> None:
        """Remove the run folders of jobs whose records are gone; no other folder is touched."""
        for job in jobs:
            executor = self._executors.get(job.spec.scheduler)
            if executor is None or not job.attempt_count:
                continue
            # Attempts that never ran may be missing from the record, but have folders.
            folders = [executor.run_directory(RunKey(job.seq, job.uid, n)) for n in range(1, job.attempt_count + 1)]
            work = partial(_remove, folders)
            try:
                await self._context.paths.run(work, str(folders[0]), key="run folders")
            except (Refused, OSError) as error:
                log.warning("the run folders of job %s could not be removed: %s", job.id, error)

    def preview(self, job: Job) -> tuple[RunSpec, Mapping[str, str]]:
        """Return the run of a job, and the variables that its environment has beyond the common ones."""
        environment = self._context.environment
        spec = run_spec(job, accepted_config(job.config), self._context.rules, environment)
        return spec, {name: value for name, value in spec.env.items() if environment.get(name) != value}

    # Planning --------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        self._due = False
        self._core.store_error = self._store.last_error
        try:
            for job in self._core.plan(time.time()):
                self._start(job)
            wakes = [wake for wake in (self._core.next_wake(), self._fail_expired_waits()) if wake is not None]
        except Exception:  # a bug must not stop the queue for good
            self._release_unowned()
            delay = self._plan_failures.next()
            log.exception("the queue could not be planned; tried again after %g s", delay)
            wakes = [time.time() + delay]
        else:
            self._plan_failures.reset()
        longest = STORE_SECONDS if self._core.store_error else LONGEST_WAIT_SECONDS
        wait = min(max(min(wakes) - time.time(), 0.0), longest) if wakes else longest
        self._planned = asyncio.get_running_loop().call_later(wait, self._plan)

    def _release_unowned(self) -> None:
        """Release planned jobs without a task: the plan failed before they got one."""
        for job in self._core.running():
            if job.open_attempt is None and job.uid not in self._runs:
                self._core.release(job.uid)

    def _fail_expired_waits(self) -> float | None:
        """Fail jobs that have waited too long for an unreachable scheduler; return the time of the next one."""
        now, later = time.time(), []
        for end, job in self._unreachable.deadlines():
            if now < end:
                later.append(end)
                continue
            limit, detail = job.spec.scheduler_wait_limit, self._core.unreachable[job.spec.scheduler]
            text = f"not handed over within scheduler_wait_limit ({limit:g} s): {detail}"
            self._spawn(self._write(partial(fail, uid=job.uid, reason=Reason.SCHEDULER_UNREACHABLE, message=text)))
        return min(later, default=None)

    # Owners ----------------------------------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        run = RunTask(self._context, job, self._retry_states.setdefault(job.uid, RetryState()))
        self._track(run, run.start())

    def _adopt(self, job: Job) -> RunTask:
        run = RunTask(self._context, job, self._retry_states.setdefault(job.uid, RetryState()))
        self._track(run, run.adopt())
        return run

    def _track(self, run: RunTask, steps: Coroutine[Any, Any, None]) -> None:
        self._runs[run.job.uid] = run
        task = self._owners[run] = asyncio.create_task(steps, name=f"run {run.key.folder}")
        task.add_done_callback(partial(self._on_done, run))

    def _on_done(self, run: RunTask, task: asyncio.Task[None]) -> None:
        del self._owners[run]
        uid = run.job.uid
        if self._runs.get(uid) is not run:
            return
        del self._runs[uid]
        if not task.cancelled() and task.exception() is not None:
            log.error("the task of run %s failed by a fault of edbjobs", run.key.folder, exc_info=task.exception())
            asyncio.get_running_loop().call_later(LOST_SECONDS, self.own, uid)
        else:
            self.own(uid)

    def _on_update(self, update: RunUpdate) -> None:
        if isinstance(update, Reachability):
            self._unreachable.take(update)
            self.wake()
            return
        run = self._runs.get(update.key.uid)
        if run is None or run.key != update.key:
            log.warning("run %s reports %s, but no task follows it", update.key.folder, type(update).__name__)
            return
        run.take(update)

    async def _end_license_wait(self, job: Job) -> None:
        log.info("job %s has waited too long for a license", job.id)
        self.end(job, None)

    # Helpers ---------------------------------------------------------------------------------------------

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _write(self, command: Callable[[Transaction], None]) -> None:
        """Write a change outside of a run's steps; if it fails, the next plan decides again."""
        try:
            await self._store.write(command)
        except Exception as error:
            log.warning("a change could not be recorded: %s", error)


def _remove(folders: Sequence[Any]) -> None:
    """Remove run folders and, once it is empty, the folder above them."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folders[0].parent.rmdir()
    except OSError:  # other run folders are in it
        return
