"""Progress of running solves, read from their logs, and the limit of the wait for a license."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edbjobs.v1 import convergence_pb2, job_config_pb2

from edbjobs_server.contract.codec import progress_to_message
from edbjobs_server.contract.mapper import set_time
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL, Job
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.states import State
from edbjobs_server.manager.run_spec import solver_job_name
from edbjobs_server.solver.batch_log import find_log
from edbjobs_server.solver.progress import LogFollower, Progress, progress
from edbjobs_server.solver.request import SolveRequest
from edbjobs_server.solver.setups import Setup, read_setups, select
from edbjobs_server.util.path_workers import PathWorkers

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
CLUSTER_POLL_SECONDS = 15.0  # there may be thousands, with their logs on a file server
HANG_SECONDS = 2.0  # for one log, after which the others are read by another thread
ROUND_SECONDS = 3600.0  # deadline of a round; a hanging log is detected long before


@dataclass(eq=False)
class _Solve:
    """One running solve; `started`: its log shows that a setup is being solved, so it has its license."""

    job: Job
    due: float = 0.0  # not read before, monotonic
    started: bool = False
    progress: Progress = field(default_factory=Progress)
    read_time: float = 0.0  # when `progress` changed last
    path: Path | None = None
    log: LogFollower | None = None
    setups: tuple[Setup, ...] = ()
    license_limit: float | None = None
    failure: str = ""  # why its log could not be read last time

    def read(self) -> None:
        """Read what is new in the log; blocks."""
        job = self.job
        if self.log is None:
            self._open()
        if not self.started:  # until the log exists, it may get either of two names
            path = find_log(Path(job.spec.project_path), solver_job_name(job, job.attempt_count))
            if path != self.path:
                self.path, self.log = path, LogFollower(path)
        assert self.log is not None, "it was opened"
        segment = self.log.poll()
        self.started = bool(segment.setups)
        latest = progress(segment, self.setups)
        if latest != self.progress:
            self.progress, self.read_time = latest, time.time()

    def _open(self) -> None:
        request = SolveRequest.from_message(job_config_pb2.JobConfig.FromString(self.job.config))
        project = Path(self.job.spec.project_path)
        if request.wait_for_license:
            limit = request.license_wait_limit
            self.license_limit = limit if limit is not None else float("inf")
        self.setups = select(read_setups(project), request.design, request.setup)
        self.path = find_log(project, solver_job_name(self.job, self.job.attempt_count))
        self.log = LogFollower(self.path)


@dataclass(frozen=True)
class JobProgressed:
    """Progress of a running solve. It is no change of the job: it has no revision of its own and is not stored."""

    job: Job
    progress: convergence_pb2.JobProgress


class _Round:
    """Solves on one mount whose logs are read one after the other in one thread."""

    def __init__(self, solves: Sequence[_Solve]) -> None:
        self.solves = solves
        self.current: _Solve | None = None
        self.since = 0.0  # when `current` became so, monotonic
        self.abandoned = False  # the rest is read by another round

    def read(self) -> None:
        for solve in self.solves:
            if self.abandoned:
                return
            self.since, self.current = time.monotonic(), solve
            try:
                solve.read()
                solve.failure = ""
            except Exception as error:  # it is read again in the next round, and does not affect others
                if repr(error) != solve.failure:
                    solve.failure = repr(error)
                    log.info("the log of job %s cannot be followed now: %s", solve.job.id, error)
        self.current = None


class ProgressTracker:
    """Reads what is new in the log of each running solve: once a second, of those on a cluster less often.

    Logs on one mount are read one after the other in one thread, which costs little. One that hangs is left to its
    thread, and read again when that has returned.

    Parameters
    ----------
    core : Planner
        Source of the running jobs.
    paths : PathWorkers
        Threads that read logs.
    end : callable
        Ends a run that has waited for a license longer than its job allows.
    """

    def __init__(self, core: Planner, paths: PathWorkers, end: Callable[[Job], Awaitable[None]]) -> None:
        self._core = core
        self._paths = paths
        self._end = end
        self._solves: dict[str, _Solve] = {}
        self._rounds: dict[asyncio.Task[None], tuple[str, _Round]] = {}
        self._number = 0

    async def run(self) -> None:
        """Read logs until cancelled."""
        try:
            while True:
                self._update()
                self._leave_hanging()
                self._start_rounds()
                await self._end_license_waits()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            for task in self._rounds:
                task.cancel()

    def progress_of(self, uid: str) -> convergence_pb2.JobProgress | None:
        """Return the progress of a running solve; None: it is unknown."""
        solve = self._solves.get(uid)
        if solve is None or not solve.started:
            return None
        message = progress_to_message(solve.progress)
        set_time(message.read_time, solve.read_time)
        return message

    async def watch(self, is_needed: Callable[[], bool]) -> AsyncIterator[Sequence[JobProgressed]]:
        """Yield the running solves whose progress has changed, once a second; all again after a time without need."""
        last: dict[str, convergence_pb2.JobProgress] = {}
        while True:
            await asyncio.sleep(POLL_SECONDS)
            latest = self._progress_of_all() if is_needed() else {}
            yield [item for uid, item in latest.items() if last.get(uid) != item.progress]
            last = {uid: item.progress for uid, item in latest.items()}

    def _progress_of_all(self) -> dict[str, JobProgressed]:
        found: dict[str, JobProgressed] = {}
        for job in self._core.running():
            progress = self.progress_of(job.uid) if job.state is State.RUNNING else None
            if progress is not None:
                found[job.uid] = JobProgressed(job, progress)
        return found

    def waits_for_license(self, uid: str) -> bool:
        """Return whether a solve that may wait for a license has started no setup yet."""
        solve = self._solves.get(uid)
        return solve is not None and solve.license_limit is not None and not solve.started

    def _update(self) -> None:
        """Update the set of running solves."""
        running = {job.uid: job for job in self._core.running() if job.state is State.RUNNING}
        for uid in self._solves.keys() - running.keys():
            del self._solves[uid]
        for uid, job in running.items():
            known = self._solves.get(uid)
            if known is None or known.job.attempt_count != job.attempt_count:
                self._solves[uid] = _Solve(job)

    def _start_rounds(self) -> None:
        """Start a round for each mount that has none."""
        now = time.monotonic()
        reading = {mount for mount, round in self._rounds.values() if not round.abandoned}
        hanging = {round.current for _, round in self._rounds.values() if round.abandoned}
        due: dict[str, list[_Solve]] = {}
        for solve in self._solves.values():
            if solve.due <= now and solve not in hanging:
                mount = self._paths.mount_of(solve.job.spec.project_path)
                if mount not in reading:
                    due.setdefault(mount, []).append(solve)
        for mount, solves in due.items():
            for solve in solves:
                solve.due = 0.0 if solve.job.spec.scheduler == LOCAL else now + CLUSTER_POLL_SECONDS
            self._read(mount, _Round(solves))

    def _read(self, mount: str, round: _Round) -> None:
        self._number += 1  # a key of its own: rounds of a mount may overlap when one hangs
        work = self._paths.run(round.read, mount, ROUND_SECONDS, key=f"progress {self._number}")
        task = asyncio.create_task(_quietly(work), name=f"progress on {mount}")
        self._rounds[task] = mount, round
        task.add_done_callback(self._rounds.pop)

    def _leave_hanging(self) -> None:
        """Abandon rounds that hang at one log: another thread reads the other logs."""
        now = time.monotonic()
        for _, round in self._rounds.values():
            current = round.current
            if not round.abandoned and current is not None and now - round.since > HANG_SECONDS:
                round.abandoned = True
                log.warning(
                    "the log of job %s cannot be read for now, its file system does not respond: %s",
                    current.job.id,
                    current.job.spec.project_path,
                )

    async def _end_license_waits(self) -> None:
        for solve in [*self._solves.values()]:
            limit, start = solve.license_limit, solve.job.start_time
            if limit is not None and not solve.started and start is not None and time.time() - start > limit:
                await self._end(solve.job)


async def _quietly(work: Awaitable[None]) -> None:
    """Wait for a round; one that does not return is left to its thread."""
    try:
        await work
    except Refused:
        return
