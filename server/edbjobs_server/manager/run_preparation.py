"""From the plan of a run to its reservation on disk. A run without one holds no resources, and its job has a reason."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial

from edbjobs_server.core import transitions
from edbjobs_server.core.admission import Block
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import Reason, Waiting
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.manager import run_steps
from edbjobs_server.manager.run_context import RetryState, RunContext
from edbjobs_server.manager.run_retry import Retry, waiting_of
from edbjobs_server.manager.run_updates import fail
from edbjobs_server.solver import project_lock
from edbjobs_server.store import Transaction
from edbjobs_server.util import failpoints

LOCK_POLL_SECONDS = 5.0
SETTLE_SECONDS = 1.0  # longest wait of a reservation for the record of runs that ended before it


@dataclass(frozen=True)
class Reserved:
    """A job with its reservation on disk, and its run; `clear`: earlier results must be removed first."""

    job: Job
    spec: RunSpec
    clear: bool


class RunPreparation:
    """Prepares and reserves one planned run.

    Parameters
    ----------
    context : RunContext
        State that all runs share.
    job : Job
        The planned job.
    state : RetryState
        Of the job.
    retry : Retry
        Explains failures.
    """

    def __init__(self, context: RunContext, job: Job, state: RetryState, retry: Retry) -> None:
        self._context = context
        self._job = job
        self._state = state
        self._retry = retry
        self._generation = context.core.generation

    async def reserve(self) -> Reserved | None:
        """Reserve the run; None: it does not start now, its resources are released and its job has a reason."""
        try:
            prepared = await self._prepare()
            if prepared is None or prepared.spec is None:
                return None
            failpoints.point("run.before_reserve")
            job = await self._commit(prepared.spec)
        except Exception as error:
            self._defer(error)
            return None
        if job is None:
            return None
        self._state.delays.reset()
        self._state.logged = ""
        self._state.locked_since = None
        return Reserved(job, prepared.spec, prepared.clear)

    async def _prepare(self) -> run_steps.Prepared | None:
        """Inspect the project; None: the job does not start now, and has a reason."""
        job, context = self._job, self._context
        work = partial(run_steps.prepare, job, context.rules, context.environment)
        try:
            prepared = await context.paths.run(work, job.spec.project_path, key=job.uid)
        except Refused as refused:
            if refused.reason == "PATH_UNREACHABLE":
                raise
            await self._fail(run_steps.reason_of(refused), refused.message)
            return None
        if prepared.spec is None:
            await self._wait_for_lock(prepared.lock)
        return prepared

    async def _wait_for_lock(self, lock: project_lock.Lock | None) -> None:
        assert lock is not None, "a project that is not ready is locked"
        now, limit = time.time(), self._context.lock_wait
        since = self._state.locked_since
        if since is None or since > now:  # the clock was set back
            since = self._state.locked_since = now
        if now - since >= limit:
            text = (
                f"{lock.path} has been there for {limit:g} s: another program has the project open, or a crash left "
                "the file; close the project, or remove the file once no AEDT works on it, then retry the job"
            )
            await self._fail(Reason.PROJECT_LOCKED, text)
            return
        detail = f"{lock.path} exists: another program has the project open; waiting until {limit:g} s have passed"
        until = min(now + LOCK_POLL_SECONDS, since + limit)
        self._defer_until(until, Block(Waiting.PROJECT_LOCKED, detail, own=True))

    async def _fail(self, reason: Reason, message: str) -> None:
        await self._context.store.write(partial(fail, uid=self._job.uid, reason=reason, message=message))
        self._release()

    async def _commit(self, spec: RunSpec) -> Job | None:
        """Commit the reservation; None if the job may not start after all."""
        context, limits = self._context, self._context.core.limits
        directory = str(context.executor(self._job.spec.scheduler).run_directory(spec.key))
        await self._after_ended()

        def command(tx: Transaction) -> Job | None:
            # After a failed commit the core has dropped this plan, and may have planned another job instead.
            if tx.limits != limits or tx.paused or tx.generation != self._generation:
                return None
            current = tx.find(self._job.uid)
            if current is None or current.attempt_count + 1 != spec.key.attempt:
                return None
            change = transitions.reserve(current, tx.now, context.boot_id, directory)
            return None if change is None else tx.put(change.job, change.type, detail=change.detail)

        reserved = await context.store.write(command)
        if reserved is None:
            self._release()
        return reserved

    async def _after_ended(self) -> None:
        """Wait for the records of ended runs, whose resources this run may take: they come first."""
        ending = [record for record in self._context.ending if not record.done()]
        if ending:
            await asyncio.wait(ending, timeout=SETTLE_SECONDS)

    def _defer(self, error: Exception) -> None:
        """Defer the job with a growing delay; others may start meanwhile."""
        text = self._retry.explain("it cannot be started now", error)
        reason, delay = waiting_of(error, self._state.delays)
        self._defer_until(time.time() + delay, Block(reason, f"{text}; tried again after {delay:g} s", own=True))

    def _defer_until(self, until: float, block: Block) -> None:
        if self._is_planned:
            self._context.core.defer(self._job.uid, until, block)
            self._context.wake()

    def _release(self) -> None:
        if self._is_planned:
            self._context.core.release(self._job.uid)
            self._context.wake()

    @property
    def _is_planned(self) -> bool:
        """Whether the plan of this task is still in force."""
        return self._generation == self._context.core.generation
