"""Polling a scheduler about all active runs, and what follows from its answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from edbjobs_server.core.runs import RunNote
from edbjobs_server.executors.cluster import evidence
from edbjobs_server.executors.cluster.poll_timing import PollTiming
from edbjobs_server.executors.cluster.run import Run
from edbjobs_server.executors.cluster.run_table import RunTable
from edbjobs_server.executors.cluster.shared_folder import SharedFolder
from edbjobs_server.executors.schedulers.base import ClusterJobStatus, Phase, Scheduler, Unreachable

_log = logging.getLogger(__name__)


class Poller:
    """One loop that asks about all runs.

    Parameters
    ----------
    scheduler : Scheduler
        Who is asked.
    folder : SharedFolder
        Where runs write.
    run_table : RunTable
    Active runs.
    timing : PollTiming
        How often.
    end : callable
        Ends a run whose end was requested.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        folder: SharedFolder,
        run_table: RunTable,
        timing: PollTiming,
        end: Callable[[Run], Awaitable[None]],
    ) -> None:
        self._scheduler = scheduler
        self._folder = folder
        self._run_table = run_table
        self._timing = timing
        self._end = end

    def hurry(self) -> None:
        """Ask soon, and a few times more: something is about to change."""
        self._timing.hurry(time.monotonic())

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.turn()
            await asyncio.sleep(self._timing.tick)

    async def turn(self) -> None:
        """Read the runs' notifications, and poll if it is time; no error ends the polling."""
        try:
            await self._hear()
            await self._ask()
        except Unreachable as error:
            self._run_table.set_reach(False, error=str(error))
            self._timing.failed(time.monotonic())
        except OSError as error:
            _log.warning("run folders of %s cannot be read, will try again: %s", self._scheduler.name, error)
        except Exception as error:
            # A fault of ours in parsing one answer must neither leave all runs unfollowed nor stay hidden.
            _log.exception("what %s answered could not be dealt with, it is asked again", self._scheduler.name)
            text = f"what it answers cannot be dealt with ({type(error).__name__}: {error}); see the service's log"
            self._run_table.set_reach(False, error=text)
            self._timing.failed(time.monotonic())

    async def _ask(self) -> None:
        now = time.monotonic()
        if self._timing.is_due(now):
            await self._ask_all()
            return
        urgent = [run for run in self._run_table.runs.values() if run.urgent and run.id]
        if urgent and self._timing.may_ask(now):
            await self._look_at(urgent)
            self._timing.looked(time.monotonic())

    async def _ask_all(self) -> None:
        version = await self._scheduler.probe()
        if self._run_table.runs:
            seen = await self._scheduler.poll()
            by_name = {status.name: status for status in seen.values()}
            unsure: list[Run] = []
            for run in [run for run in self._run_table.runs.values() if not run.submitting]:
                status = seen.get(run.id) if run.id else by_name.get(run.name)
                if status is None or status.name != run.name or _is_vague(status):
                    unsure.append(run)
                else:
                    await self._mind(run, self._take_in(run, status))
            await self._look_at([run for run in unsure if run.id])
            for run in [run for run in unsure if not run.id]:
                await self._mind(run, self._find(run))
        self._run_table.set_reach(True, version)  # that it answers a probe would not do
        for run in [run for run in self._run_table.runs.values() if run.grace is not None and not run.submitting]:
            await self._end(run)
        self._timing.asked(time.monotonic())

    async def _look_at(self, runs: Sequence[Run]) -> None:
        """Query in detail the runs for which the bulk query is not sufficient."""
        if not runs:
            return
        answers = await self._scheduler.look([run.id for run in runs])
        for run in runs:
            if run.id not in answers:
                continue
            status = answers[run.id]
            if status is None or status.name != run.name:
                await self._mind(run, self._on_denial(run))
            elif not _is_vague(status):
                await self._mind(run, self._take_in(run, status))

    async def _mind(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Deal with one run; a folder of it that cannot be read keeps up no other."""
        try:
            await work
        except OSError as error:
            _log.warning("the folder of %s cannot be read, will try again: %s", run.name, error)

    async def _find(self, run: Run) -> None:
        """Look for a run whose submit was not answered."""
        claim = (await self._folder.record(run)).claim
        holder = claim.job if claim is not None and claim.kind == "run" else ""
        found = sorted(
            await self._scheduler.find(run.name),
            key=lambda status: (status.id != holder, status.phase is Phase.ENDED),
        )
        if not found and not holder:
            await self._on_denial(run)
            return
        self._run_table.know(run, holder or found[0].id)
        twins = [item.id for item in found if item.id != run.id and item.phase is not Phase.ENDED]
        if twins:
            _log.warning("%s has %s more than once: %s cancelled", self._scheduler.name, run.name, ", ".join(twins))
            await self._scheduler.cancel(twins)
        self.hurry()

    async def _take_in(self, run: Run, status: ClusterJobStatus) -> None:
        """Act on what the scheduler reports of a run."""
        run.update(status)
        if not run.id:
            self._run_table.know(run, status.id)
        if status.phase is Phase.ENDED:
            await self._conclude(run, status)
        elif status.phase is Phase.PENDING:
            await self._on_pending(run, status)
        elif not run.started:
            self._run_table.tell_start(run, await self._folder.record(run), status)

    async def _on_pending(self, run: Run, status: ClusterJobStatus) -> None:
        if run.started and not run.requeued:
            # It ran once: a second run must not start beside what may be left of the first.
            run.requeued = True
            await self._scheduler.cancel([run.id])
            self.hurry()
        why = waiting_text(status)
        if status.never and why not in run.noted:
            run.noted.add(why)
            self._run_table.emit(RunNote(run.key, f"{self._scheduler.name} will never start it as it is: {why}"))

    # Conclusions -----------------------------------------------------------------------------------------

    async def _conclude(self, run: Run, status: ClusterJobStatus) -> None:
        found = await self._folder.found(run)
        # If a second job of it turns up, it must not run after the job was reported as ended.
        if not found.record.claimed and not await self._folder.void(run):
            found = await self._folder.found(run)
        claim = found.record.claim
        if claim is not None and claim.kind == "run" and claim.job != run.id:
            # A twin holds the claim: a submit that was thought to have failed. That one is the run.
            self._run_table.know(run, claim.job)
            self.hurry()
            return
        if evidence.is_of_twin(status, found.record):
            self._presume(run, found)
            return
        self._run_table.finish(run, evidence.conclude(run.key, status, found, time.time()))

    async def _on_denial(self, run: Run) -> None:
        """Note that the scheduler knows no such job; after enough such answers the run's own record decides."""
        if not run.denied(time.monotonic(), self._timing.confirm):
            return
        found = await self._folder.found(run)
        if not found.record.claimed:
            if not await self._folder.void(run):
                return  # it has just started
            if not run.id:
                self._run_table.finish(run, evidence.never_ran(run.key, time.time()))
                return
        self._presume(run, found)

    def _presume(self, run: Run, found: evidence.Found) -> None:
        """Let a run's own record decide, once it is clear."""
        stale = run.is_stale(found.record, time.monotonic(), self._timing.stale)
        ended = evidence.presume(run.key, found, stale=stale, now=time.time())
        if ended is not None:
            self._run_table.finish(run, ended)

    # News ------------------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        """Read the records of runs that rang."""
        if not self._run_table.runs:
            return
        for folder in await self._folder.rung():
            run = self._run_table.runs.get(folder)
            if run is not None:
                run.urgent = True  # until the record shows otherwise: it may not be readable now
                await self._mind(run, self._listen(run))

    async def _listen(self, run: Run) -> None:
        found = await self._folder.record(run)
        if found.claim is not None and found.claim.kind == "run" and not run.id:
            self._run_table.know(run, found.claim.job)
        self._run_table.tell_start(run, found, None)
        run.urgent = found.exit is not None or bool(found.refusal or found.dups)


def _is_vague(status: ClusterJobStatus) -> bool:
    """Return whether an answer shows that a job has ended, but not how."""
    return status.phase is Phase.ENDED and status.ending is None


def waiting_text(status: ClusterJobStatus) -> str:
    """Return what a job waits for, in the scheduler's words."""
    return status.message or status.reason or status.state
