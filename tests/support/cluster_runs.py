"""A scheduler in memory, and a cluster executor on it: every answer is made by the test."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edbjobs_server.core.runs import Ending, Reachability, RunKey, RunUpdate
from edbjobs_server.executors.base import Allocation, RunSpec
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.poll_timing import PollTiming
from edbjobs_server.executors.cluster.run_folders import RunFolders
from edbjobs_server.executors.cluster.script import Scripts, SiteLines
from edbjobs_server.executors.schedulers.base import (
    ClusterJob,
    ClusterJobStatus,
    Partition,
    Phase,
    SamePaths,
    Submission,
    SubmitRefused,
    Unreachable,
)

DEADLINE = 20.0
KEY = RunKey(7, "0123456789ab0123456789abcdef01234567", 1)
_T = TypeVar("_T")


class MemoryScheduler(SamePaths):
    """Implements `Scheduler`; its jobs are what the test says.

    Attributes
    ----------
    table : dict
        What it tells of each job, by id.
    silent, silent_about : str
        Set: it does not answer; only this question of all.
    refuses, swallows, loses : str
        Set: a submit is refused; is taken, but not answered; is not taken, and not answered.
    vague, knows_nothing : bool
        Set: its list does not tell how jobs ended; nothing can be told of a job that is asked for by id.
    cancelled : list
        Ids and force of every cancel.
    """

    name = "memory"
    template = "slurm.sh.j2"

    def __init__(self) -> None:
        self.table: dict[str, ClusterJobStatus] = {}
        self.silent = ""
        self.silent_about = ""
        self.refuses = ""
        self.swallows = ""
        self.loses = ""
        self.vague = False
        self.knows_nothing = False
        self.cancelled: list[tuple[str, bool]] = []
        self.asked: list[str] = []
        self.next_id = 1

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.silent or what == self.silent_about:
            raise Unreachable(self.silent or f"no answer about {what}")

    async def probe(self) -> str:
        self._answer("probe")
        return "memory 1"

    def directives(self, allocation: Allocation) -> Sequence[str]:
        return [f"job-name={allocation.name}"]

    def submit_command(self, submission: Submission) -> Sequence[str]:
        return ["submit", str(submission.script)]

    async def submit(self, submission: Submission) -> str:
        self._answer("submit")
        if self.refuses:
            raise SubmitRefused(self.refuses)
        if self.loses:
            raise Unreachable(self.loses)
        run_id = self.add(submission.allocation.name)
        if self.swallows:
            raise Unreachable(self.swallows)
        return run_id

    def add(self, name: str) -> str:
        run_id = str(self.next_id)
        self.next_id += 1
        self.table[run_id] = ClusterJobStatus(run_id, name, Phase.PENDING, "PENDING", "Resources")
        return run_id

    def set(self, run_id: str, phase: Phase, state: str, **values: Any) -> None:
        self.table[run_id] = replace(self.table[run_id], phase=phase, state=state, **{"reason": "", **values})

    async def find(self, name: str) -> Sequence[ClusterJobStatus]:
        self._answer("find")
        return [job for job in self.table.values() if job.name == name]

    async def poll(self) -> Mapping[str, ClusterJobStatus]:
        self._answer("poll")
        return {key: replace(job, ending=None) if self.vague else job for key, job in self.table.items()}

    async def look(self, ids: Sequence[str]) -> Mapping[str, ClusterJobStatus | None]:
        self._answer("look")
        if self.knows_nothing:
            return {}
        return {run_id: self.table.get(run_id) for run_id in ids}

    async def cancel(self, ids: Sequence[str], *, kill: bool = False) -> None:
        self._answer("cancel")
        self.cancelled += [(run_id, kill) for run_id in ids]
        for run_id in ids:
            if run_id in self.table and self.table[run_id].phase is Phase.PENDING:
                self.set(run_id, Phase.ENDED, "CANCELLED", ending=Ending.CANCELLED_EXTERNALLY)

    def end_in_output(self, output: str) -> tuple[Ending, str] | None:
        return (Ending.TIMEOUT, output.strip()) if "TIME LIMIT" in output else None

    async def partitions(self) -> Sequence[Partition]:
        self._answer("partitions")
        return [Partition("normal", "up", is_default=True, nodes_total=4)]

    async def jobs(self) -> Sequence[ClusterJob]:
        self._answer("jobs")
        return [ClusterJob(job.id, job.name, "ann", "normal", job.state) for job in self.table.values()]

    async def close(self) -> None:
        self._answer("close") if not self.silent else None


class Told:
    """What an executor has told."""

    def __init__(self) -> None:
        self.updates: list[RunUpdate] = []
        self._news = asyncio.Event()

    def _listen(self, update: RunUpdate) -> None:
        self.updates.append(update)
        self._news.set()

    async def update(self, kind: type[_T], **values: Any) -> _T:
        """Wait for an update of one kind that has these values."""

        async def wait() -> _T:
            while True:
                for update in self.updates:
                    if isinstance(update, kind) and all(getattr(update, key) == values[key] for key in values):
                        return update
                self._news.clear()
                await self._news.wait()

        return await asyncio.wait_for(wait(), DEADLINE)

    def told(self, kind: type) -> int:
        """Count the updates of a kind."""
        return sum(isinstance(update, kind) for update in self.updates)


class Scene(Told):
    """An executor on such a scheduler, and what it has told."""

    def __init__(self, root: Path, **timing: float) -> None:
        self.root = root
        self.scheduler = MemoryScheduler()
        self.timing = {"interval": 0.05, "floor": 0.0, "tick": 0.01, "confirm": 0.2, "stale": 0.2, **timing}
        super().__init__()
        self.executor = self._make()

    def _make(self) -> ClusterExecutor:
        scripts = Scripts(None, SiteLines())
        return ClusterExecutor(self.scheduler, scripts, RunFolders(self.root), PollTiming(**self.timing))

    async def __aenter__(self) -> Scene:
        await self.executor.open(self._listen)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.executor.close()

    async def restart(self) -> None:
        """Another service takes over; what the first one told is forgotten."""
        await self.executor.close()
        self.updates.clear()
        self.executor = self._make()
        await self.executor.open(self._listen)

    async def asked(self, what: str, times: int = 1) -> None:
        """Wait until the scheduler has been asked something so many times more."""
        await self.was_asked(what, self.scheduler.asked.count(what) + times)

    async def was_asked(self, what: str, times: int = 1) -> None:
        """Wait until the scheduler has been asked something so many times in all."""
        end = time.monotonic() + DEADLINE
        while self.scheduler.asked.count(what) < times:
            assert time.monotonic() < end, f"{what} was not asked"
            await asyncio.sleep(0.005)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.executor.run_directory(KEY)

    async def submit(self) -> None:
        """Start the run."""
        await self.executor.start(spec())

    # What the run's script writes ------------------------------------------------------------------------

    def claims(self, job: str, restart: int = 0) -> None:
        self._write("claim", f"kind=run job={job} restart={restart} host=n1 pid=9 time={int(time.time())}")

    def claim_exclusively(self, job: str) -> None:
        """Claim as the script does: FileExistsError where a claim stands."""
        temporary = self.folder / f".claim.{job}"
        temporary.write_text(f"kind=run job={job} restart=0 host=n1 pid=9 time={int(time.time())}\n")
        os.link(temporary, self.folder / "claim")

    def job_starts(self, job: str) -> None:
        self.claims(job)
        self.starts()

    def starts(self) -> None:
        self._write("start", f"time={int(time.time())} pid=4711 host=n1 nodes=n1,n2")
        self.rings()

    def exits(self, code: int, signal: str = "none") -> None:
        self._write("exit", f"code={code} signal={signal} time={int(time.time())}")
        self.rings()

    def beats(self) -> None:
        (self.folder / "beat").touch()

    def is_dup(self, job: str, restart: int = 0) -> None:
        self._write(f"dup.{job}.{restart}", f"job={job} restart={restart} host=n1 time={int(time.time())}")
        self.rings()

    def refuses(self, text: str) -> None:
        self._write("refusal", f"text={text}")
        self.rings()

    def prints(self, text: str) -> None:
        (self.folder / "scheduler.out").write_text(text)

    def rings(self) -> None:
        RunFolders(self.root).notification(KEY).touch()

    def _write(self, name: str, line: str) -> None:
        temporary = self.folder / f".{name}.new"
        temporary.write_text(line + "\n")
        os.replace(temporary, self.folder / name)


def spec(key: RunKey = KEY) -> RunSpec:
    """A run that asks for one node."""
    name = f"edb-job-0123456789abcdef-{key.attempt}"
    env = {"PATH": os.environ["PATH"]}
    return RunSpec(key, ["/bin/true"], "/", env, allocation=Allocation(name, f"edbjobs:{key.uid}:ann"))


def answers(update: RunUpdate) -> bool:
    """Return whether an update reports that the scheduler responds."""
    return isinstance(update, Reachability) and update.responding
