"""Runs on a cluster, as the asyncio service sees them: one loop asks the scheduler about all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from edbjobs_server.executors.base import (
    Ending,
    Listener,
    OpenRun,
    Reach,
    RunEnded,
    RunKey,
    RunNote,
    RunScheduled,
    RunSpec,
    RunStarted,
    RunUpdate,
)
from edbjobs_server.executors.cluster import evidence
from edbjobs_server.executors.cluster.base import Phase, Scheduler, Sighting, Submission, SubmitRefused, Unreachable
from edbjobs_server.executors.cluster.folders import OUTPUT, Folders
from edbjobs_server.executors.cluster.record import Record
from edbjobs_server.executors.cluster.run import Run
from edbjobs_server.executors.cluster.script import ScriptError, Scripts
from edbjobs_server.executors.cluster.shared import SharedFolder
from edbjobs_server.executors.cluster.timing import Timing
from edbjobs_server.executors.local import faults

_log = logging.getLogger(__name__)
_SUBMITS = 4  # commands at a time; SLURM takes 306 submits a second from one client and 510 from eight (measured)


class ClusterExecutor:
    """Runs on one cluster. Implements `edbjobs_server.executors.base.Executor`.

    Parameters
    ----------
    scheduler : Scheduler
        Speaks the scheduler's language.
    scripts : Scripts
        Makes batch scripts.
    folders : Folders
        Where runs have their folders.
    timing : Timing, optional
        How often the scheduler is asked.
    """

    def __init__(self, scheduler: Scheduler, scripts: Scripts, folders: Folders, timing: Timing | None = None) -> None:
        self.name = scheduler.name
        self.scheduler = scheduler
        self.reach = Reach(self.name, False, time.time(), error="it was not asked yet")
        self._timing = timing or Timing()
        self._scripts = scripts
        self._folder = SharedFolder(folders, scheduler.said, scheduler.template)
        self._runs: dict[str, Run] = {}
        self._listener: Listener | None = None
        self._wake = asyncio.Event()
        self._submits = asyncio.Semaphore(_SUBMITS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, listener: Listener) -> None:
        """Begin to ask the scheduler; whether it answers is told as `Reach`."""
        self._listener = listener
        self._emit(self.reach)
        self._spawn(self._watch())

    async def close(self) -> None:
        """Let go of everything; runs go on."""
        self._listener = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runs.clear()
        await self.scheduler.close()
        self._folder.close()

    def run_directory(self, key: RunKey) -> Path:
        """Folder of a run on the shared file system."""
        return self._folder.of(key)

    async def start(self, run: RunSpec) -> None:
        """Hand a reserved run over to the scheduler; starting it again does nothing."""
        assert run.allocation is not None, "a run on a cluster asks for something"
        if run.key.folder in self._runs:
            return
        taken = Run(run.key, run.allocation.name, self._folder.of(run.key))
        taken.submitting, taken.handed = True, False
        self._runs[run.key.folder] = taken
        self._spawn(self._submit(taken, run))

    async def adopt(self, runs: Sequence[OpenRun]) -> None:
        """Take over runs of an earlier service; the scheduler is asked about them as soon as it answers."""
        for old in runs:
            if old.key.folder in self._runs:
                continue
            run = Run(old.key, old.name, old.directory or self._folder.of(old.key), old.scheduler_job_id)
            run.started, run.grace = old.started, old.cancel_grace
            self._runs[old.key.folder] = run
            if not run.id:
                self._spawn(self._drop_unprepared(run))
        self._hurry()

    async def cancel(self, key: RunKey, grace: float) -> None:
        """End a run; the grace between TERM and KILL is the scheduler's own if that is shorter."""
        run = self._runs.get(key.folder)
        if run is None:
            return
        run.grace = grace
        if not run.submitting:
            self._spawn(self._end(run))

    def script(self, run: RunSpec) -> str:
        """Make the batch script of a run; nothing is written.

        Raises
        ------
        ScriptError, Refused
            A template of the site is wrong; the scheduler cannot be asked so.
        """
        assert run.allocation is not None, "a run on a cluster asks for something"
        directives = self.scheduler.directives(run.allocation)
        folder = self._folder.of(run.key)
        return self._scripts.render(self.scheduler.template, run, directives, folder, self._folder.bell(run.key))

    def submission(self, run: RunSpec) -> Submission:
        """Tell how a run would be handed over."""
        assert run.allocation is not None, "a run on a cluster asks for something"
        folder = self._folder.of(run.key)
        return Submission(run.allocation, self._folder.script(run.key), folder / OUTPUT, folder, run.env)

    def sighting(self, key: RunKey) -> Sighting | None:
        """Tell what the scheduler said of a run when it was last asked."""
        run = self._runs.get(key.folder)
        return run.sighting if run is not None else None

    # Handing over ----------------------------------------------------------------------------------------

    async def _submit(self, run: Run, spec: RunSpec) -> None:
        try:
            text = self.script(spec)
            await self._folder.prepare(run, text)
        except (OSError, ScriptError) as error:
            message = f"its batch script could not be written: {error}"
            self._finish(run, RunEnded(run.key, Ending.START_FAILED, time.time(), message=message))
            return
        faults.point("cluster.before_submit")
        async with self._submits:
            if run.grace is None:
                run.handed = True
                await self._hand_over(run, self.submission(spec))
        run.submitting = False
        if run.grace is not None:
            await self._end(run)
        self._hurry()

    async def _hand_over(self, run: Run, submission: Submission) -> None:
        try:
            run_id = await self.scheduler.submit(submission)
        except SubmitRefused as refused:
            text = f"{self.name} refused it: {refused}"
            self._finish(run, RunEnded(run.key, Ending.SUBMIT_REFUSED, time.time(), message=text, by_scheduler=True))
        except Unreachable as error:
            _log.warning("it is not known whether %s took %s: %s", self.name, run.name, error)
            self._set_reach(False, error=str(error))
        else:
            faults.point("cluster.after_submit")
            self._know(run, run_id)

    async def _drop_unprepared(self, run: Run) -> None:
        """Give up a run without a script: its service ended before it did anything about it."""
        try:
            prepared = await self._folder.is_prepared(run)
        except OSError as error:
            _log.warning("the folder of %s cannot be read: %s", run.name, error)
            return  # the scheduler will deny it, and that decides
        if not prepared:
            self._finish(run, evidence.never_ran(run.key, time.time()))

    def _know(self, run: Run, run_id: str) -> None:
        run.id = run_id
        self._emit(RunScheduled(run.key, time.time(), run_id))

    # Asking ----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                await self._hear()
                await self._ask()
            except Unreachable as error:
                self._set_reach(False, error=str(error))
                self._timing.failed(time.monotonic())
            except OSError as error:
                _log.warning("the folder for runs of %s cannot be read, will try again: %s", self.name, error)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), self._timing.tick)
            except (asyncio.TimeoutError, TimeoutError):
                continue

    def _hurry(self) -> None:
        """Ask soon, and a few times more: something is about to change."""
        self._timing.hurry(time.monotonic())

    async def _ask(self) -> None:
        now = time.monotonic()
        if self._timing.is_due(now):
            await self._ask_all()
            return
        urgent = [run for run in self._runs.values() if run.urgent and run.id]
        if urgent and self._timing.may_ask(now):
            await self._look_at(urgent)
            self._timing.looked(time.monotonic())

    async def _ask_all(self) -> None:
        self._set_reach(True, await self.scheduler.probe())
        if self._runs:
            seen = await self.scheduler.poll()
            by_name = {sighting.name: sighting for sighting in seen.values()}
            unsure: list[Run] = []
            for run in [run for run in self._runs.values() if not run.submitting]:
                sighting = seen.get(run.id) if run.id else by_name.get(run.name)
                if sighting is None or sighting.name != run.name or _is_vague(sighting):
                    unsure.append(run)
                else:
                    await self._mind(run, self._take_in(run, sighting))
            await self._look_at([run for run in unsure if run.id])
            for run in [run for run in unsure if not run.id]:
                await self._mind(run, self._find(run))
            for run in [run for run in self._runs.values() if run.grace is not None and not run.submitting]:
                await self._end(run)
        self._timing.asked(time.monotonic())

    async def _look_at(self, runs: Sequence[Run]) -> None:
        """Look closely at runs of which the bulk query says too little."""
        if not runs:
            return
        answers = await self.scheduler.look([run.id for run in runs])
        for run in runs:
            if run.id not in answers:
                continue
            sighting = answers[run.id]
            if sighting is None or sighting.name != run.name:
                await self._mind(run, self._on_denial(run))
            elif not _is_vague(sighting):
                await self._mind(run, self._take_in(run, sighting))

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
            await self.scheduler.find(run.name),
            key=lambda sighting: (sighting.id != holder, sighting.phase is Phase.ENDED),
        )
        if not found and not holder:
            await self._on_denial(run)
            return
        self._know(run, holder or found[0].id)
        twins = [item.id for item in found if item.id != run.id and item.phase is not Phase.ENDED]
        if twins:
            _log.warning("%s has %s more than once: %s cancelled", self.name, run.name, ", ".join(twins))
            await self.scheduler.cancel(twins)
        self._hurry()

    async def _take_in(self, run: Run, sighting: Sighting) -> None:
        """Act on what the scheduler says of a run."""
        run.seen(sighting)
        if not run.id:
            self._know(run, sighting.id)
        if sighting.phase is Phase.ENDED:
            await self._conclude(run, sighting)
        elif sighting.phase is Phase.PENDING:
            await self._on_pending(run, sighting)
        elif not run.started:
            self._tell_start(run, await self._folder.record(run), sighting)

    async def _on_pending(self, run: Run, sighting: Sighting) -> None:
        if run.started and not run.requeued:
            # It ran once: a second run beside what may be left of the first is what nobody wants.
            run.requeued = True
            await self.scheduler.cancel([run.id])
            self._hurry()
        if sighting.never and not run.noted:
            run.noted = True
            self._emit(RunNote(run.key, f"{self.name} will never start it as it is: {waiting_text(sighting)}"))

    # Conclusions -----------------------------------------------------------------------------------------

    async def _conclude(self, run: Run, sighting: Sighting) -> None:
        found = await self._folder.found(run)
        # Should a twin of it turn up, it must not run after the job was told to have ended.
        if not found.record.claimed and not await self._folder.void(run):
            found = await self._folder.found(run)
        claim = found.record.claim
        if claim is not None and claim.kind == "run" and claim.job != run.id:
            # A twin holds the claim: a submit that was thought to have failed. That one is the run.
            self._know(run, claim.job)
            self._hurry()
            return
        self._finish(run, evidence.conclude(run.key, sighting, found, time.time()))

    async def _on_denial(self, run: Run) -> None:
        """Take in that the scheduler knows no such job; said often enough, the run's own record decides."""
        if not run.denied(time.monotonic(), self._timing.confirm):
            return
        found = await self._folder.found(run)
        if not found.record.claimed:
            if not await self._folder.void(run):
                return  # it has begun just now
            if not run.id:
                self._finish(run, evidence.never_ran(run.key, time.time()))
                return
        stale = run.is_stale(found.record, time.monotonic(), self._timing.stale)
        ended = evidence.presume(run.key, found, stale=stale, now=time.time())
        if ended is not None:
            self._finish(run, ended)

    def _tell_start(self, run: Run, found: Record, sighting: Sighting | None) -> None:
        start = found.start
        if run.started or (start is None and sighting is None):
            return
        run.started = True
        nodes = sighting.nodes if sighting is not None else ()
        began = start.time if start is not None else sighting.start_time if sighting is not None else None
        self._emit(
            RunStarted(
                run.key,
                began if began is not None else time.time(),
                start.pid if start is not None else 0,
                nodes or (start.nodes if start is not None else ()),
            )
        )

    def _finish(self, run: Run, ended: RunEnded) -> None:
        if self._runs.pop(run.key.folder, None) is not None:
            self._emit(ended)

    # News ------------------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        """Read the records of runs that rang."""
        if not self._runs:
            return
        for folder in await self._folder.rung():
            run = self._runs.get(folder)
            if run is not None:
                run.urgent = True  # until the record says otherwise: it may not be readable now
                await self._mind(run, self._listen(run))

    async def _listen(self, run: Run) -> None:
        found = await self._folder.record(run)
        if found.claim is not None and found.claim.kind == "run" and not run.id and not run.submitting:
            self._know(run, found.claim.job)
        self._tell_start(run, found, None)
        run.urgent = found.exit is not None or bool(found.refusal or found.dups)

    # Ending ----------------------------------------------------------------------------------------------

    async def _end(self, run: Run) -> None:
        """Call a run off if it has not begun, else have the scheduler end it, at last with force."""
        if run.ending or run.key.folder not in self._runs:
            return
        run.ending = True
        try:
            void = await self._folder.void(run)
            ids = [run.id] if run.id else await self._twins(run)
            await self._ask_end(run, ids)
            if void:
                self._finish(run, evidence.never_ran(run.key, time.time()))
        except Unreachable as error:
            self._set_reach(False, error=str(error))  # asked again when it answers
        except OSError as error:
            _log.warning("the folder of %s cannot be written, will try again: %s", run.name, error)
        finally:
            run.ending = False

    async def _twins(self, run: Run) -> list[str]:
        """Find jobs of a run whose submit was not answered."""
        if not run.handed:
            return []
        return [item.id for item in await self.scheduler.find(run.name) if item.phase is not Phase.ENDED]

    async def _ask_end(self, run: Run, ids: Sequence[str]) -> None:
        now = time.monotonic()
        if not ids or (run.asked is not None and now < run.asked + (run.grace or 0.0)):
            return
        await self.scheduler.cancel(ids, kill=run.asked is not None or run.grace == 0)
        run.asked = now
        self._hurry()

    # Helpers ---------------------------------------------------------------------------------------------

    def _set_reach(self, answering: bool, version: str = "", error: str = "") -> None:
        before = self.reach
        same = before.answering == answering and bool(before.version or answering or before.error)
        self.reach = Reach(
            self.name, answering, before.since if same else time.time(), version or before.version, error
        )
        if answering != before.answering or error != before.error:
            self._emit(self.reach)

    def _emit(self, update: RunUpdate) -> None:
        if self._listener is not None:
            self._listener(update)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("runs of %s are no longer followed", self.name, exc_info=task.exception())


def _is_vague(sighting: Sighting) -> bool:
    """Tell whether an answer says that a job has ended, but not how."""
    return sighting.phase is Phase.ENDED and sighting.ending is None


def waiting_text(sighting: Sighting) -> str:
    """Tell in the scheduler's words what a job waits for."""
    return sighting.message or sighting.reason or sighting.state
