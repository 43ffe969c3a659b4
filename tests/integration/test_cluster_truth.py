"""Whatever happens between a scheduler, its nodes and the service: what is told of a run is true, and comes once."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from edbjobs_server.core.runs import Ending, OpenRun, RunEnded, RunScheduled, RunStarted
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.schedulers.base import Phase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.cluster_runs import KEY, Scene, spec

NAME = "edb-job-0123456789abcdef-1"
ACTIONS = [
    "turn",
    "turn",
    "turn",
    "start",
    "start",
    "exit 0",
    "exit 3",
    "scancel",
    "node fails",
    "purge",
    "controller forgets",
    "silent",
    "answers",
    "restart",
    "restart without id",
    "cancel",
]


@dataclass
class Truth:
    """What really happened, as only the nodes know it."""

    alive: str = ""  # id of the job whose program runs
    starts: int = 0
    code: int | None = None  # with which the program ended by itself
    stopped: bool = False  # the program was ended by somebody
    node_failed: bool = False
    asked: bool = False  # we asked for the end
    told: list[RunEnded] = field(default_factory=list)


class World:
    """A run, the cluster it is on, and services that come and go."""

    def __init__(self, root: Path) -> None:
        self.scene = Scene(root, interval=0.0, confirm=1e-9, stale=0.02, tick=3600.0)
        self.truth = Truth()
        self.id = ""
        self.is_started = False

    async def begin(self, submit: str) -> None:
        scheduler = self.scene.scheduler
        scheduler.swallows = "timed out" if submit == "swallowed" else ""
        scheduler.loses = "timed out" if submit == "lost" else ""
        await self.scene.executor.open(self.scene._listen)
        await self.scene.submit()
        await self.scene.was_asked("submit")
        scheduler.swallows = scheduler.loses = ""
        await self.settle()

    async def settle(self) -> None:
        """Let what was started come to its end."""
        while self.scene.executor._tasks - {self._loop()}:
            await asyncio.wait(self.scene.executor._tasks - {self._loop()}, timeout=10)
        self.take()

    def _loop(self) -> asyncio.Task[None]:
        return next(task for task in self.scene.executor._tasks if "Poller.run" in repr(task.get_coro()))

    async def turn(self) -> None:
        """One look at the news and one question."""
        await self.scene.executor._asking.turn()
        await self.settle()

    def take(self) -> None:
        for update in self.scene.updates:
            if isinstance(update, RunScheduled):
                self.id = update.scheduler_job_id
            elif isinstance(update, RunStarted):
                self.is_started = True
                assert self.truth.starts, "a start is told only of a program that started"
            elif isinstance(update, RunEnded):
                self.truth.told.append(update)
                self.check(update)
        self.scene.updates.clear()

    def check(self, ended: RunEnded) -> None:
        truth = self.truth
        assert len(truth.told) == 1, "one end"
        if ended.ending is Ending.EXITED:
            assert truth.code == ended.exit_code, "an exit code is the program's"
            assert not truth.stopped
        if ended.ending is Ending.NEVER_RAN:
            assert not truth.starts, "what never ran has not started"
            claim = record.read(self.scene.folder).claim
            # And never will: without a claim of ours there must be nothing that could begin.
            assert claim is not None or not self.could_begin()
            assert claim is None or claim.kind == "void"
        if ended.ending is Ending.CANCELLED:
            assert truth.asked
        if ended.ending is Ending.CANCELLED_EXTERNALLY:
            assert truth.stopped or not truth.starts
        if truth.alive:
            assert truth.node_failed, "a program that runs has not ended"

    def could_begin(self) -> list[str]:
        return [job.id for job in self.scene.scheduler.table.values() if job.phase is Phase.PENDING]

    # What happens ----------------------------------------------------------------------------------------

    async def act(self, action: str) -> None:
        table = self.scene.scheduler.table
        if action == "turn":
            await self.turn()
        elif action == "start":
            for job in self.could_begin()[:1]:
                self.start(job)
        elif action.startswith("exit") and self.truth.alive:
            self.exit(int(action.split()[1]))
        elif action == "scancel":
            for job in [job.id for job in table.values() if job.phase is not Phase.ENDED][:1]:
                self.scancel(job)
        elif action == "node fails" and self.truth.alive in table:
            self.truth.node_failed = True
            self.scene.scheduler.set(self.truth.alive, Phase.ENDED, "NODE_FAIL", ending=Ending.NODE_FAIL)
        elif action == "purge":
            for job in [job.id for job in table.values() if job.phase is Phase.ENDED]:
                del table[job]
        elif action == "controller forgets":
            table.clear()
        elif action in ("silent", "answers"):
            self.scene.scheduler.silent = "no answer" if action == "silent" else ""
        elif action.startswith("restart"):
            await self.restart(keep_id=action == "restart")
        elif action == "cancel":
            self.truth.asked = True
            await self.scene.executor.cancel(KEY, 30.0)
            await self.settle()
        if self.truth.alive:
            self.scene.beats()

    def start(self, job: str) -> None:
        """The node runs the script: it claims, or finds that it may not run."""
        scheduler = self.scene.scheduler
        try:
            self.scene.claim_exclusively(job)
        except FileExistsError:
            self.scene.is_dup(job)
            scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=record.DUPLICATE_CODE)
            return
        assert not self.truth.told, "nothing starts after its end was told"
        self.truth.starts += 1
        assert self.truth.starts == 1, "it starts once"
        self.truth.alive = job
        self.scene.starts()
        scheduler.set(job, Phase.RUNNING, "RUNNING", nodes=("n1",), start_time=time.time())

    def exit(self, code: int) -> None:
        job, self.truth.alive, self.truth.code = self.truth.alive, "", code
        self.scene.exits(code)
        if job in self.scene.scheduler.table and not self.truth.node_failed:
            state = "FAILED" if code else "COMPLETED"
            self.scene.scheduler.set(job, Phase.ENDED, state, ending=Ending.EXITED, exit_code=code)

    def scancel(self, job: str) -> None:
        if job == self.truth.alive:
            self.truth.alive, self.truth.stopped = "", True
            self.scene._write("signal", f"signal=TERM time={int(time.time())}")
            self.scene.exits(0, "TERM")  # as a program that takes TERM for a reason to end well
        self.scene.scheduler.set(job, Phase.ENDED, "CANCELLED", ending=Ending.CANCELLED_EXTERNALLY)

    async def restart(self, keep_id: bool) -> None:
        """The service is gone and another one comes; the id may not have been recorded any more."""
        await self.scene.restart()
        if self.truth.told:
            return
        job = self.id if keep_id else ""
        grace = 30.0 if self.truth.asked else None
        old = OpenRun(KEY, "boot", grace, self.is_started, scheduler_job_id=job, name=NAME)
        await self.scene.executor.adopt([old])
        await self.settle()

    async def end(self) -> None:
        """All troubles over: then the end must come."""
        self.scene.scheduler.silent = ""
        for _ in range(200):
            if self.truth.told:
                return
            for job, _ in self.scene.scheduler.cancelled:
                if job == self.truth.alive and job in self.scene.scheduler.table:
                    self.scancel(job)
            if self.truth.alive:
                self.exit(0)
            for job in self.could_begin():
                self.start(job)
            await self.turn()
            await asyncio.sleep(0.002)
        raise AssertionError("no end was told")


async def live(root: Path, submit: str, actions: list[str]) -> None:
    assert spec().allocation is not None
    world = World(root)
    try:
        await world.begin(submit)
        for action in actions:
            await world.act(action)
        await world.end()
    finally:
        await world.scene.executor.close()


@settings(
    max_examples=250 if os.environ.get("EDBJOBS_CI") else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.sampled_from(["taken", "taken", "swallowed", "lost"]), st.lists(st.sampled_from(ACTIONS), max_size=25))
def test_what_is_told_is_true_and_comes_once(submit: str, actions: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="edbjobs-", ignore_cleanup_errors=True) as folder:
        asyncio.run(asyncio.wait_for(live(Path(folder), submit, actions), 60))
