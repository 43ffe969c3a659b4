"""Runs on a cluster, as the asyncio service sees them: one loop asks the scheduler about all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.runs import Ending, Listener, OpenRun, Reachability, RunEnded, RunKey
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.cluster import evidence
from edbjobs_server.executors.cluster.poll_timing import PollTiming
from edbjobs_server.executors.cluster.poller import Poller
from edbjobs_server.executors.cluster.run import Run
from edbjobs_server.executors.cluster.run_folders import OUTPUT, RunFolders
from edbjobs_server.executors.cluster.run_table import RunTable
from edbjobs_server.executors.cluster.script import ScriptError, Scripts
from edbjobs_server.executors.cluster.shared_folder import SharedFolder
from edbjobs_server.executors.schedulers.base import (
    ClusterJobStatus,
    Phase,
    Scheduler,
    Submission,
    SubmitRefused,
    Unreachable,
)
from edbjobs_server.util import failpoints
from edbjobs_server.util.files import is_transient

_log = logging.getLogger(__name__)
_SUBMITS = 4  # commands at a time; SLURM takes 306 submits a second from one client and 510 from eight (measured)
_ENDS = 4  # at a time: thousands of jobs may be cancelled at once


class ClusterExecutor:
    """Runs on one cluster. Implements `edbjobs_server.executors.base.Executor`.

    Parameters
    ----------
    scheduler : Scheduler
        Speaks the scheduler's language.
    scripts : Scripts
        Makes batch scripts.
    folders : RunFolders
        Where runs have their folders.
    timing : PollTiming, optional
        How often the scheduler is asked.
    """

    def __init__(
        self, scheduler: Scheduler, scripts: Scripts, folders: RunFolders, timing: PollTiming | None = None
    ) -> None:
        self.name = scheduler.name
        self.scheduler = scheduler
        self._scripts = scripts
        self._folder = SharedFolder(folders, scheduler.end_in_output, scheduler.template)
        self._run_table = RunTable(self.name)
        self._asking = Poller(scheduler, self._folder, self._run_table, timing or PollTiming(), self._end)
        self._submits = asyncio.Semaphore(_SUBMITS)
        self._ends = asyncio.Semaphore(_ENDS)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def reach(self) -> Reachability:
        """Whether the scheduler responds."""
        return self._run_table.reach

    async def open(self, listener: Listener) -> None:
        """Start polling the scheduler; whether it responds is reported as `Reachability`."""
        self._run_table.listener = listener
        self._run_table.emit(self.reach)
        self._spawn(self._asking.run())

    async def close(self) -> None:
        """Let go of everything; runs go on."""
        self._run_table.listener = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._run_table.runs.clear()
        await self.scheduler.close()
        self._folder.close()

    def run_directory(self, key: RunKey) -> Path:
        """Folder of a run on the shared file system."""
        return self._folder.of(key)

    async def start(self, run: RunSpec) -> None:
        """Hand a reserved run over to the scheduler; starting it again does nothing."""
        assert run.allocation is not None, "a run on a cluster asks for something"
        if run.key.folder in self._run_table.runs:
            return
        taken = Run(run.key, run.allocation.name, self._folder.of(run.key))
        taken.submitting, taken.handed = True, False
        self._run_table.runs[run.key.folder] = taken
        self._spawn(self._submit(taken, run))

    async def adopt(self, runs: Sequence[OpenRun]) -> None:
        """Adopt runs of an earlier service; the scheduler is asked about them as soon as it responds."""
        for old in runs:
            if old.key.folder in self._run_table.runs:
                continue
            run = Run(old.key, old.name, old.directory or self._folder.of(old.key), old.scheduler_job_id)
            run.started, run.grace = old.started, old.cancel_grace
            self._run_table.runs[old.key.folder] = run
            if not run.id:
                self._spawn(self._drop_unprepared(run))
        self._asking.hurry()

    async def cancel(self, key: RunKey, grace: float) -> None:
        """End a run; the grace between TERM and KILL is the scheduler's own if that is shorter."""
        run = self._run_table.runs.get(key.folder)
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
            A template of the site is wrong; the scheduler cannot be asked so, or the nodes do not see the folder.
        """
        assert run.allocation is not None, "a run on a cluster asks for something"
        directives = self.scheduler.directives(run.allocation)
        folder = self.scheduler.node_path(str(self._folder.of(run.key)))
        news = self.scheduler.node_path(str(self._folder.notification(run.key)))
        return self._scripts.render(self.scheduler.template, run, directives, folder, news)

    def submission(self, run: RunSpec) -> Submission:
        """Return how a run would be submitted."""
        assert run.allocation is not None, "a run on a cluster asks for something"
        folder = self._folder.of(run.key)
        return Submission(run.allocation, self._folder.script(run.key), folder / OUTPUT, folder, run.env)

    def status(self, key: RunKey) -> ClusterJobStatus | None:
        """Return the scheduler's last report of a run."""
        run = self._run_table.runs.get(key.folder)
        return run.status if run is not None else None

    # Handing over ----------------------------------------------------------------------------------------

    async def _submit(self, run: Run, spec: RunSpec) -> None:
        try:
            if not await self._write_script(run, spec):
                return
            failpoints.point("cluster.before_submit")
            async with self._submits:
                if run.grace is None:
                    run.handed = True
                    await self._hand_over(run, self.submission(spec))
        finally:
            run.submitting = False  # whatever went wrong: from now on it is looked for by its name
        if run.grace is not None:
            await self._end(run)
        self._asking.hurry()

    async def _write_script(self, run: Run, spec: RunSpec) -> bool:
        """Write the batch script; False: that failed, and the run has ended without being handed over."""
        try:
            text = await asyncio.to_thread(self.script, spec)  # templates are files
            await self._folder.prepare(run, text)
        except (OSError, ScriptError, Refused) as error:
            ending = Ending.NEVER_RAN if is_transient(error) else Ending.START_FAILED
            why = str(error)
        except Exception as error:
            _log.exception("the batch script of %s could not be made", run.name)
            ending, why = Ending.NEVER_RAN, f"{type(error).__name__}: {error} (a fault of edbjobs, see its log)"
        else:
            return True
        message = f"its batch script could not be written: {why}"
        self._run_table.finish(run, RunEnded(run.key, ending, time.time(), message=message))
        return False

    async def _hand_over(self, run: Run, submission: Submission) -> None:
        try:
            run_id = await self.scheduler.submit(submission)
        except SubmitRefused as refused:
            text = f"{self.name} refused it: {refused}"
            self._run_table.finish(
                run, RunEnded(run.key, Ending.SUBMIT_REFUSED, time.time(), message=text, by_scheduler=True)
            )
        except Unreachable as error:
            _log.warning("it is not known whether %s took %s: %s", self.name, run.name, error)
            self._run_table.set_reach(False, error=str(error))
        else:
            failpoints.point("cluster.after_submit")
            self._run_table.know(run, run_id)

    async def _drop_unprepared(self, run: Run) -> None:
        """Give up a run without a script: its service ended before it prepared the run."""
        try:
            prepared = await self._folder.is_prepared(run)
        except OSError as error:
            _log.warning("the folder of %s cannot be read: %s", run.name, error)
            return  # the scheduler will deny it, and that decides
        if not prepared:
            self._run_table.finish(run, evidence.never_ran(run.key, time.time()))

    # Ending ----------------------------------------------------------------------------------------------

    async def _end(self, run: Run) -> None:
        """Void a run that has not started, else have the scheduler end it, at last with force."""
        if run.ending or run.key.folder not in self._run_table.runs:
            return
        run.ending = True
        try:
            void = await self._folder.void(run)
            async with self._ends:
                await self._ask_end(run, await self._jobs_of(run))
            if void:
                self._run_table.finish(run, evidence.never_ran(run.key, time.time()))
        except Unreachable as error:
            self._run_table.set_reach(False, error=str(error))  # asked again when it answers
        except OSError as error:
            _log.warning("the folder of %s cannot be written, will try again: %s", run.name, error)
        finally:
            run.ending = False

    async def _jobs_of(self, run: Run) -> list[str]:
        """Find the jobs of a run that have not ended, by name: a scheduler that crashed uses ids again."""
        if not run.id:  # its submit was not answered
            found = await self.scheduler.find(run.name) if run.handed else []
            return [item.id for item in found if item.phase is not Phase.ENDED]
        answers = await self.scheduler.look([run.id])
        if run.id not in answers:
            raise Unreachable(f"{self.name} cannot identify its job {run.id} now")
        seen = answers[run.id]
        return [run.id] if seen is not None and seen.name == run.name and seen.phase is not Phase.ENDED else []

    async def _ask_end(self, run: Run, ids: Sequence[str]) -> None:
        now = time.monotonic()
        if not ids or (run.asked is not None and now < run.asked + (run.grace or 0.0)):
            return
        await self.scheduler.cancel(ids, kill=run.asked is not None or run.grace == 0)
        run.asked = now
        self._asking.hurry()

    # Helpers ---------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a fault of ours; the runs of %s are asked about again", self.name, exc_info=task.exception())
