"""Runs real local runs, and cleans up every process that they leave."""

from __future__ import annotations

import asyncio
import glob
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from edbjobs_server.core.runs import (
    OpenRun,
    Reachability,
    RunEnded,
    RunKey,
    RunStarted,
    RunTrouble,
    RunUnkillable,
    RunUpdate,
)
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.local import record
from edbjobs_server.executors.local.linux import inspection, processes
from edbjobs_server.executors.local.linux.executor import LocalExecutor

DEADLINE = 30.0
# Unique, as in real life: what is left of a run is found by its uid, also while other tests run on this host.
UID = os.environ.get("TEST_RUNS_UID") or uuid.uuid4().hex
KEY = RunKey(1, f"{UID}-1", 1)
_T = TypeVar("_T")


async def until(true: Callable[[], _T], what: str = "a condition") -> _T:
    """Wait for something outside this process that tells nobody."""
    end = time.monotonic() + DEADLINE
    while not (result := true()):
        assert time.monotonic() < end, f"waited too long for {what}"
        await asyncio.sleep(0.01)
    return result


def alive(pid: int | None) -> bool:
    assert pid is not None
    process = processes.look(pid)
    return process is not None and process.state not in "ZX"


def written(path: Path) -> str:
    """Content of a file once it is there and ends in a newline."""
    text = path.read_text() if path.exists() else ""
    return text if text.endswith("\n") else ""


class Runs:
    """A local executor and what it told."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.executor = LocalExecutor(root, **options)
        self.updates: list[RunUpdate] = []
        self._news = asyncio.Event()

    def listen(self, update: RunUpdate) -> None:
        self.updates.append(update)
        self._news.set()

    async def update(self, kind: type[_T], key: RunKey = KEY, after: int = 0) -> _T:
        """Wait for an update of one kind."""

        async def wait() -> _T:
            while True:
                for update in self.updates[after:]:
                    if isinstance(update, kind) and not isinstance(update, Reachability) and update.key == key:
                        return update
                self._news.clear()
                await self._news.wait()

        return await asyncio.wait_for(wait(), DEADLINE)

    async def started(self, key: RunKey = KEY) -> RunStarted:
        return await self.update(RunStarted, key)

    async def pid(self, key: RunKey = KEY) -> int:
        """Return the pid of the solver once it has started."""
        start = await self.started(key)
        assert start.pid is not None
        return start.pid

    async def ended(self, key: RunKey = KEY) -> RunEnded:
        end = await self.update(RunEnded, key)
        assert sum(isinstance(update, RunEnded) and update.key == key for update in self.updates) == 1
        return end

    async def stuck(self, key: RunKey = KEY, after: int = 0) -> RunUnkillable:
        return await self.update(RunUnkillable, key, after)

    def folder(self, key: RunKey = KEY) -> Path:
        return self.executor.run_directory(key)

    def record(self, key: RunKey = KEY) -> record.Record:
        return record.read(str(self.folder(key)))

    async def start(self, script: str | Sequence[str], key: RunKey = KEY, **fields: Any) -> None:
        """Start a shell script, or a program with its arguments."""
        argv = ["/bin/sh", "-c", script] if isinstance(script, str) else list(script)
        fields = {"cwd": str(self.root), "env": {"PATH": os.environ["PATH"]}, "cancel_grace_period": 5.0, **fields}
        await self.executor.start(RunSpec(key=key, argv=argv, **fields))

    async def adopt(self, key: RunKey = KEY, boot: str = "", grace: float | None = None) -> None:
        await self.executor.adopt([OpenRun(key, boot or processes.boot_id(), cancel_grace=grace)])

    async def run(self, script: str | Sequence[str], key: RunKey = KEY, **fields: Any) -> RunEnded:
        await self.start(script, key, **fields)
        return await self.ended(key)

    async def asked(self, number: int) -> None:
        """Wait until so many requests have been sent to the launcher."""
        await until(lambda: self.executor._channel is not None and self.executor._channel.requests >= number)

    def told(self) -> list[RunUpdate]:
        """All updates but for troubles."""
        return [update for update in self.updates if not isinstance(update, RunTrouble)]

    def troubles(self, key: RunKey = KEY) -> list[str]:
        return [update.text for update in self.updates if isinstance(update, RunTrouble) and update.key == key]

    def launcher(self) -> int:
        assert self.executor._channel is not None
        return self.executor._channel.pid


@asynccontextmanager
async def local_runs(root: Path, **options: Any) -> AsyncIterator[Runs]:
    """Give a local executor; at the end nothing of its runs is left."""
    runs = Runs(root, **options)
    await runs.executor.open(runs.listen)
    try:
        yield runs
    finally:
        launcher = runs.launcher()
        await runs.executor.close()
        await clean(root)
        if launcher:
            await until(lambda: not alive(launcher), "the launcher to leave with its last supervisor")


async def clean(root: Path) -> None:
    """Kill every process of every run below a folder."""
    for path in glob.glob(f"{root}/*/*/{record.NAME}"):
        found = record.read(os.path.dirname(path))
        if found.claim is None or found.void:
            continue
        key = RunKey(found.claim["seq"], found.claim["uid"], found.claim["attempt"])
        supervisor = processes.look(found.claim["pid"])
        if supervisor is not None and supervisor.ticks == found.claim["ticks"]:
            processes.kill([supervisor])
        found.claim["keep"] = []
        while left := inspection.left_of(found, key):
            processes.kill(left)
            await asyncio.sleep(0.01)


class Owner:
    """Another process that hosts an executor and its runs until it is killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def said(self) -> str:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), DEADLINE)
        return line.decode().strip()

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(self._process.communicate(), DEADLINE)  # reads to the end, which closes the pipe


async def owner(root: Path, scripts: dict[int, str], **environment: str) -> Owner:
    """Start an owner; it says ``started N`` and ``ended N`` for the run of job N."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(root),
        json.dumps(scripts),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TEST_RUNS_UID": UID, **environment},
    )
    return Owner(process)


def key_of(seq: int) -> RunKey:
    return RunKey(seq, f"{UID}-{seq}", 1)


async def _own(root: Path, scripts: dict[str, str]) -> None:
    executor = LocalExecutor(root)

    def listen(update: RunUpdate) -> None:
        assert isinstance(update, (RunStarted, RunEnded, RunUnkillable)), "all that a local run tells"
        word = {RunStarted: "started", RunEnded: "ended", RunUnkillable: "stuck"}[type(update)]
        print(word, update.key.seq, flush=True)

    await executor.open(listen)
    for seq, script in scripts.items():
        env = {"PATH": os.environ["PATH"]}
        await executor.start(RunSpec(key_of(int(seq)), ["/bin/sh", "-c", script], str(root), env, None, 5.0))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_own(Path(sys.argv[1]), json.loads(sys.argv[2])))
