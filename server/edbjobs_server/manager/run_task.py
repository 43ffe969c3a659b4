"""One run of a job and the task that owns it: prepare, reserve, launch, follow, judge, record.

A `RunTask` owns the reservation of its job from the plan to the record of the end. Whatever is raised on the way ends
in a recorded outcome, or in a retry whose reason users can read:

- Before the reservation is on disk, the job is deferred: it waits with the reason, and its resources are released.
- After it, the step is repeated with a growing delay. A run whose processes are gone reserves its project only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job, Outcome
from edbjobs_server.core.runs import (
    Ending,
    RunEnded,
    RunKey,
    RunNote,
    RunScheduled,
    RunStarted,
    RunTrouble,
    RunUnkillable,
)
from edbjobs_server.core.states import Evidence, Reason, Waiting
from edbjobs_server.core.transitions import RunResult
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.manager import run_steps
from edbjobs_server.manager.run_context import RetryState, RunContext
from edbjobs_server.manager.run_preparation import RunPreparation
from edbjobs_server.manager.run_retry import Retry
from edbjobs_server.manager.run_spec import open_run
from edbjobs_server.manager.run_updates import apply_end, apply_update
from edbjobs_server.solver import project_results
from edbjobs_server.store import Transaction
from edbjobs_server.util import failpoints
from edbjobs_server.util.backoff import Backoff
from edbjobs_server.util.files import is_transient

Update = RunScheduled | RunStarted | RunEnded | RunNote | RunTrouble | RunUnkillable

CLEAR_SECONDS = 60.0  # for removing earlier results
START_SECONDS = 0.005  # between a start and its record
JUDGE_SECONDS = 120.0
LAST_LOOK_SECONDS = 10.0  # for reading the log of a run that a user cancels
MAX_UPDATES = 1000  # of one run that wait to be recorded


class RunTask:
    """Owns one run.

    Parameters
    ----------
    context : RunContext
        State that all runs share.
    job : Job
        The planned job, or one with the open attempt of an earlier service.
    state : RetryState
        Of the job.

    Attributes
    ----------
    key : RunKey
        Key of the run, also before the reservation.
    ended : RunEnded or None
        End of the run: its processes are gone.
    state_unknown : bool
        Whether it cannot be determined if the run has processes.
    """

    def __init__(self, context: RunContext, job: Job, state: RetryState) -> None:
        self.job = job
        number = job.attempt_count if job.open_attempt is not None else job.attempt_count + 1
        self.key = RunKey(job.seq, job.uid, number)
        self.ended: RunEnded | None = None
        self.state_unknown = False
        self.adopted = asyncio.Event()  # the state of the run has been determined, or failed to be
        # Done when the record of its end is on its way to the disk, or delayed.
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.recording = False
        self._context = context
        self._state = state
        self._updates: deque[Update] = deque()
        self._unrecorded: deque[RunStarted] = deque()
        self._has_ended = False  # the end is among the updates
        self._news = asyncio.Event()
        self._retry = Retry(context.core, job.uid, f"run {self.key.folder} of job {job.id}", state, self._on_delay)
        self._failure = ""  # error of a start that may have failed
        self._has_started = False
        self._grace: float | None = None  # of a requested cancel
        self._cancelling: asyncio.Task[None] | None = None  # cancels the run
        self._give_up_at: float | None = None  # from then on an end without a readable result is recorded
        self._judge_seconds = JUDGE_SECONDS  # a second try to read the result gets less time

    def _on_delay(self) -> None:
        """Release callers that wait for a step which is repeated later."""
        self.adopted.set()
        self._settle()

    def _settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)

    @property
    def _job_now(self) -> Job:
        """The job as it was last committed."""
        return self._context.core.jobs.get(self.job.uid, self.job)

    # From outside ----------------------------------------------------------------------------------------

    def take(self, update: Update) -> None:
        """Queue an update of the executor; updates are recorded in order."""
        if isinstance(update, RunEnded):
            self._has_ended = True
            self._retry.retry_now()  # what is not recorded yet is recorded with the end
        elif len(self._updates) >= MAX_UPDATES:
            return
        self._updates.append(update)
        self._news.set()

    def end(self, grace: float) -> None:
        """End the run or, if it has ended, the wait for its result."""
        self._grace = grace
        if self.ended is not None:
            self._give_up_at = asyncio.get_running_loop().time()
            self._context.paths.hurry(self.job.uid, LAST_LOOK_SECONDS)
        elif self._has_started:
            self._cancel()
        self._retry.retry_now()

    # The life of a run -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run a planned job to the record of its end; its resources are released however this ends."""
        reserved = await RunPreparation(self._context, self.job, self._state, self._retry).reserve()
        if reserved is None:
            return
        self.job = reserved.job
        failpoints.point("run.after_reserve")
        await self._own(partial(self._launch, reserved.spec, reserved.clear))

    async def adopt(self) -> None:
        """Follow a run of an earlier service to the record of its end."""
        try:
            await self._own(self._take_over)
        finally:
            self.adopted.set()

    async def _own(self, start: Callable[[], Awaitable[None]]) -> None:
        """Follow a reserved run to the record of its end; after an unexpected error it is adopted again."""
        delays = Backoff()
        while True:
            try:
                await start()
                await self._follow()
                await self._conclude()
            except Exception as error:
                text = self._failure = self._retry.explain("it could not be started, or not be followed", error)
                await self._retry.pause(delays, text, error)
                start = self._take_over
            else:
                return
            finally:
                if self._cancelling is not None:
                    self._cancelling.cancel()

    async def _follow(self) -> None:
        """Record the updates of the run until it has ended."""
        while self.ended is None:
            await self._next_updates()

    async def _conclude(self) -> None:
        """Judge the end and record it."""
        context = self._context
        context.core.run_gone(self.job.uid)
        cancelled = self._grace is not None or self._job_now.cancel_request_time is not None
        if cancelled:
            self._judge_seconds = LAST_LOOK_SECONDS
            self._give_up_at = asyncio.get_running_loop().time() + LAST_LOOK_SECONDS
        context.ending.add(self._settled)
        context.wake()
        try:
            result, note = await self._retry.until_done(
                self._judge, "its result cannot be read yet", self._unjudged, Waiting.ENDING
            )
            failpoints.point("run.before_end")
            result = replace(result, before_cancel=not cancelled)
            command = partial(apply_end, key=self.key, result=result, started=self.ended, note=note)
            self.recording = True
            what = "its end cannot be recorded yet"
            await self._retry.until_done(partial(self._write, command), what, reason=Waiting.ENDING)
            failpoints.point("run.after_end")
        finally:
            self._settle()
            context.ending.discard(self._settled)

    # After the reservation -------------------------------------------------------------------------------

    async def _launch(self, spec: RunSpec, clear_results: bool) -> None:
        """Start the run on its executor; one that fails before that ends as never started."""
        failure = await self._clear_results() if clear_results else None
        if failure is None and self._grace is not None:
            failure = Ending.NEVER_RAN, "it was cancelled before it was started"
        if failure is not None:
            self.take(RunEnded(self.key, failure[0], time.time(), message=failure[1]))
            return
        await self._context.executor(self.job.spec.scheduler).start(spec)
        self._on_started()
        failpoints.point("run.after_start")

    async def _clear_results(self) -> tuple[Ending, str] | None:
        """Remove earlier results; if that fails, return how the run ends."""
        path = self.job.spec.project_path
        try:
            work = partial(project_results.clear_results, path)
            await self._context.paths.run(work, path, CLEAR_SECONDS, key=self.job.uid)
        except Refused as refused:
            why, transient = refused.message, refused.reason == "PATH_UNREACHABLE"
        except OSError as error:
            why, transient = str(error), is_transient(error)
        except Exception as error:
            why, transient = self._retry.explain("a step failed", error), True
        else:
            return None
        return Ending.NEVER_RAN if transient else Ending.START_FAILED, f"earlier results could not be removed: {why}"

    async def _take_over(self) -> None:
        """Have the executor adopt the run, unless its end is known."""
        if self.ended is None:
            await self._retry.until_done(self._adopt, "its state cannot be determined")
            self._on_started()
        self.adopted.set()

    async def _adopt(self) -> None:
        job = self._job_now
        try:
            await self._context.executor(job.spec.scheduler).adopt([open_run(job)])
        except Exception:
            self.state_unknown = True
            raise
        self.state_unknown = False

    def _on_started(self) -> None:
        self._has_started = True
        if self._grace is not None:
            self._cancel()

    async def _next_updates(self) -> None:
        """Wait for updates and record them."""
        await self._news.wait()
        self._news.clear()
        while self._unrecorded:
            await self._record_before_end(self._unrecorded.popleft())
        while self._updates and self.ended is None:
            update = self._updates.popleft()
            if isinstance(update, RunEnded):
                self.ended = update
            elif isinstance(update, RunTrouble):
                self._show(update)
            elif isinstance(update, RunStarted):
                asyncio.get_running_loop().call_later(START_SECONDS, self._record_start, update)
            else:
                await self._record_before_end(update)

    def _record_start(self, update: RunStarted) -> None:
        """Record a start, unless the run has ended by now: then both are recorded in one commit."""
        if not self._has_ended:
            self._unrecorded.append(update)
            self._news.set()

    async def _record_before_end(self, update: RunScheduled | RunStarted | RunNote | RunUnkillable) -> None:
        """Record an update; if the run ends meanwhile, the record of the end includes it."""

        async def record() -> bool:
            await self._write(partial(apply_update, update=update))
            return True

        what = "what it reports cannot be recorded yet"
        await self._retry.until_done(record, what, lambda _: self._has_ended or None)

    def _show(self, trouble: RunTrouble) -> None:
        self.state_unknown = trouble.unseen
        if trouble.text:
            self._retry.show(Waiting.BACK_OFF, trouble.text)
        else:
            self._retry.clear()

    def _cancel(self) -> None:
        """Have the executor end the run; works also while the store cannot be written."""
        if self._cancelling is not None:
            self._cancelling.cancel()  # the new grace counts
        self._cancelling = asyncio.create_task(self._cancel_until_taken(), name=f"end {self.key.folder}")

    async def _cancel_until_taken(self) -> None:
        delays = Backoff()
        while self.ended is None and self._grace is not None:
            try:
                await self._context.executor(self.job.spec.scheduler).cancel(self.key, self._grace)
            except Exception as error:
                text, delay = self._retry.explain("it cannot be ended yet", error), delays.next()
                self._retry.show(Waiting.CANCELLING, f"{text}; tried again after {delay:g} s")
                await asyncio.sleep(delay)
            else:
                if delays.count:
                    self._retry.clear()
                return

    # The end ---------------------------------------------------------------------------------------------

    async def _judge(self) -> tuple[RunResult, str]:
        """Judge the end by the solver's files; the second value reports a removed lock."""
        ended = self.ended
        assert ended is not None, "only an ended run is judged"
        if ended.ending is Ending.NEVER_RAN:
            why = self._failure or ended.message
            outcome = Outcome(Reason.NOT_STARTED, Evidence.SERVICE, why)
            return RunResult(outcome, ended.time, ran=False), ""
        job = self._job_now
        deadline, self._judge_seconds = self._judge_seconds, LAST_LOOK_SECONDS
        work = partial(run_steps.judge, job, ended)
        return await self._context.paths.run(work, job.spec.project_path, deadline, key=job.uid)

    def _unjudged(self, why: str) -> tuple[RunResult, str] | None:
        """Return the outcome without a result, once a user has requested the end."""
        now = asyncio.get_running_loop().time()
        if self.ended is None or self._give_up_at is None or now < self._give_up_at:
            return None
        return run_steps.unjudged(self.ended, why), ""

    async def _write(self, command: Callable[[Transaction], None]) -> None:
        writing = self._context.store.send(command)
        if self.recording:
            self._settle()  # it is queued before the reservations that wait for it
        await writing
