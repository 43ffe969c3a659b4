"""Runs on this host under Windows, behind the same interface as on Linux.

Type-checked for win32, but never run on a Windows host yet: try it there before relying on it.

The record and its rules are those of Linux (`record`); what differs:

* Each run's supervisor is `windows_supervisor`, run as a program of its own: detached, and out of the service's
  Job Object (where that job forbids it, runs end with whatever ends the service's job; the log reports it).
* A run's processes are a named Job Object, which nothing can leave and which lives as long as one of them. Until
  the start is on record the solver is suspended and the job kills it when the supervisor goes.
* A process is its pid and its creation time; the latter stands in ``ticks``, in milliseconds.
* There is no TERM that a console-less program would heed: ending a run means ``TerminateJobObject`` at once, the
  grace is not used. Programs of the keep-list go, too, unless they were only left behind by a solver that
  ended by itself.
* Exit codes are unsigned, 3221225477 for an access violation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edbjobs_server.core.runs import Ending, Listener, OpenRun, RunEnded, RunKey, RunTrouble, RunUnkillable, RunUpdate
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.local import outcome, record
from edbjobs_server.util.backoff import Backoff

assert sys.platform == "win32"

import pywintypes  # noqa: E402
import win32api  # noqa: E402
import win32con  # noqa: E402
import win32event  # noqa: E402

from edbjobs_server.executors.local.windows import supervisor as native  # noqa: E402

boot_id = native.boot_id
_log = logging.getLogger(__name__)
_MARK = "EDBJOBS_RUN"
_LOOK = 0.25  # seconds between looks at a run; asyncio has no public way to wait for a handle
_RETRY = 1.0


class _Run:
    """An active run."""

    def __init__(self, key: RunKey, folder: str, boot: str, *, cancelled: bool) -> None:
        self.key = key
        self.folder = folder
        self.boot = boot
        self.cancelled = cancelled
        self.started = False
        self.stuck: tuple[int, ...] = ()
        self.failure = ""
        self.trouble = ""
        self.looked = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class WindowsExecutor:
    """Runs on this host (Windows). Parameters as on Linux: `executor.LocalExecutor`."""

    name = "local"

    def __init__(self, runs_root: Path, *, linger: float = 10.0, unkillable_after: float = 60.0) -> None:
        self._root = runs_root.absolute()
        self._linger = linger
        self._unkillable_after = unkillable_after
        self._here = native.here()
        self._runs: dict[str, _Run] = {}
        self._listener: Listener | None = None

    async def open(self, listener: Listener) -> None:
        """Get ready."""
        await asyncio.to_thread(self._root.mkdir, parents=True, exist_ok=True)
        self._listener = listener

    async def close(self) -> None:
        """Let go of everything; runs go on."""
        self._listener = None
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runs.clear()

    def run_directory(self, key: RunKey) -> Path:
        """Folder of a run."""
        return self._root / key.folder

    async def start(self, run: RunSpec) -> None:
        """Start a reserved run."""
        if run.key.folder not in self._runs:
            self._take(OpenRun(run.key, self._here.boot), run)

    async def adopt(self, runs: Sequence[OpenRun]) -> None:
        """Take over runs of an earlier service; returns when each has been looked at once."""
        taken = [self._take(run, None) for run in runs if run.key.folder not in self._runs]
        await asyncio.gather(*(run.looked.wait() for run in taken))

    async def cancel(self, key: RunKey, grace: float) -> None:
        """End a run at once (see above for the grace)."""
        run = self._runs.get(key.folder)
        if run is not None:
            run.cancelled = True
            await asyncio.to_thread(_ask_end, run.folder, key, grace, self._here)

    def _take(self, open_run: OpenRun, spec: RunSpec | None) -> _Run:
        key = open_run.key
        cancelled = open_run.cancel_grace is not None
        run = _Run(key, str(self.run_directory(key)), open_run.boot_id, cancelled=cancelled)
        self._runs[key.folder] = run
        run.task = asyncio.get_running_loop().create_task(self._follow(run, spec))
        return run

    async def _follow(self, run: _Run, spec: RunSpec | None) -> None:
        """Follow a run to its end, whatever is raised meanwhile: its record decides, and looking again is safe."""
        delays = Backoff(first=_RETRY)
        while True:
            try:
                await self._mind(run, spec)
            except Exception as error:
                spec, delay = None, delays.next()
                _log.warning("run %s cannot be followed, tried again after %g s", run.folder, delay, exc_info=error)
                self._show(run, f"it cannot be followed: {type(error).__name__}: {error}")
                run.looked.set()
                await asyncio.sleep(delay)
            else:
                return

    async def _mind(self, run: _Run, spec: RunSpec | None) -> None:
        supervisor = None
        if spec is not None:
            try:
                supervisor = await asyncio.to_thread(_spawn, self._request(spec, run.folder), self._root)
            except OSError as error:
                run.failure = f"no supervisor could be started: {error}"
        while True:
            while supervisor is not None and not native.has_ended(supervisor):
                self._tell(run, await asyncio.to_thread(record.read, run.folder))
                self._show(run, "")
                run.looked.set()
                await asyncio.sleep(_LOOK)
            try:
                found, supervisor = await asyncio.to_thread(_settle, run, self._here)
            except OSError as error:
                _log.warning("the state of a run cannot be read, will try again: %s: %s", run.folder, error)
                run.looked.set()
                await asyncio.sleep(_RETRY)
                continue
            if supervisor is None:
                break
            if run.cancelled:
                await asyncio.to_thread(_ask_end, run.folder, run.key, 0.0, self._here)
        await self._conclude(run, found)

    async def _conclude(self, run: _Run, found: record.Record) -> None:
        self._tell(run, found)
        run.looked.set()
        if found.end is None and outcome.sight(found, self._here) is outcome.HostMatch.ELSEWHERE:
            host = found.claim["host"] if found.claim is not None else "another host"
            self._show(run, f"it is not visible from here and left alone: its record was written on {host}")
            return
        if found.end is None:
            await self._follow_orphans(run)
        end = outcome.ended(run.key, found, self._here)
        if found.void and run.failure:
            end = RunEnded(run.key, Ending.START_FAILED, end.time, message=run.failure)
        del self._runs[run.key.folder]
        self._emit(end)

    async def _follow_orphans(self, run: _Run) -> None:
        asked = 0.0
        while pids := await asyncio.to_thread(_left_of, run):
            if run.cancelled:
                asked = asked or time.monotonic()
                if time.monotonic() - asked >= self._unkillable_after:
                    self._tell_stuck(run, pids)
            await asyncio.sleep(_RETRY)

    def _request(self, spec: RunSpec, folder: str) -> dict[str, Any]:
        key = spec.key
        return {
            "folder": folder,
            "seq": key.seq,
            "uid": key.uid,
            "attempt": key.attempt,
            "argv": list(spec.argv),
            "cwd": spec.cwd,
            "env": {**spec.env, _MARK: outcome.mark(key)},
            "keep": list(spec.keep),
            "info": dict(spec.info),
            "limit": spec.time_limit,
            "linger": self._linger,
            "unkillable": self._unkillable_after,
        }

    def _tell(self, run: _Run, found: record.Record) -> None:
        update = outcome.started(run.key, found, self._here)
        if update is not None and not run.started:
            run.started = True
            self._emit(update)
        if found.stuck is not None and found.end is None:
            self._tell_stuck(run, found.stuck["pids"])

    def _tell_stuck(self, run: _Run, pids: Sequence[int]) -> None:
        if tuple(pids) != run.stuck:
            run.stuck = tuple(pids)
            self._emit(RunUnkillable(run.key, run.stuck))

    def _show(self, run: _Run, trouble: str) -> None:
        """Show why a run cannot be followed; empty: that is over."""
        if trouble != run.trouble:
            run.trouble = trouble
            self._emit(RunTrouble(run.key, trouble, unseen=bool(trouble)))

    def _emit(self, update: RunUpdate) -> None:
        if self._listener is not None:
            self._listener(update)


def _spawn(request: Mapping[str, Any], root: Path) -> int:
    """Start a supervisor, give it its request, and return a handle on it."""
    flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    command = [sys.executable, native.__file__]
    with (root / "launcher.log").open("ab") as log:
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
        try:
            child = subprocess.Popen(command, creationflags=flags | subprocess.CREATE_BREAKAWAY_FROM_JOB, **options)
        except PermissionError:
            _log.warning("the service's Job Object lets no process out: runs end with it")
            child = subprocess.Popen(command, creationflags=flags, **options)
    handle: int = win32api.OpenProcess(native.ACCESS, False, child.pid)
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(json.dumps(request).encode())
    child.returncode = 0  # not waited for: it outlives this process
    return handle


def _left_of(run: _Run) -> list[int]:
    """List what is left of a run whose supervisor is gone, and end it if that was asked for."""
    job = native.open_job(run.key.uid, run.key.attempt)  # closed when forgotten: an open handle would keep the job
    if job is None:
        return []
    if run.cancelled:
        native.win32job.TerminateJobObject(job, 1)
    return native.pids_of(job)


def _settle(run: _Run, here: record.Here) -> tuple[record.Record, int | None]:
    """Find the state of a run; one that is not claimed is voided, unless there was another boot since."""
    found = record.read(run.folder)
    if not found.exists and run.boot == here.boot:
        _void(run.folder, run.key, here)
        found = record.read(run.folder)
    supervisor = _open_claimer(found, here)
    if supervisor is None and found.claim is not None:
        found = record.read(run.folder)  # it may have written its end just before it went
    return found, supervisor


def _open_claimer(found: record.Record, here: record.Here) -> int | None:
    if found.claim is None or found.void or outcome.sight(found, here) is not outcome.HostMatch.HERE:
        return None
    return native.open_process(found.claim["pid"], found.claim["ticks"])


def _void(folder: str, key: RunKey, here: record.Here) -> bool:
    job = {"seq": key.seq, "uid": key.uid, "attempt": key.attempt, "keep": [], "info": {}}
    file = record.claim(folder, {"kind": "void", **here.facts(), **native.identity(), **job})
    if file is None:
        return False
    os.close(file)
    return True


def _ask_end(folder: str, key: RunKey, grace: float, here: record.Here) -> None:
    """Void a run that is not claimed yet, ask the supervisor of one that is to end it."""
    if _void(folder, key, here):
        return
    try:
        record.append_cancel(folder, grace)
    except OSError as error:
        _log.warning("a cancel cannot be put on record: %s: %s", folder, error)
    try:
        event = win32event.OpenEvent(win32con.EVENT_MODIFY_STATE, False, native.name_of(key.uid, key.attempt, "cancel"))
    except pywintypes.error:  # it has ended, or its supervisor is about to read the record
        return
    win32event.SetEvent(event)
