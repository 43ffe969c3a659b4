"""Following the logs of running solves: how far each is, and whether it waits for a licence too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from edbjobs.v1 import job_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL, Job
from edbjobs_server.core.scheduler import Core
from edbjobs_server.core.states import State
from edbjobs_server.paths import UserPaths
from edbjobs_server.run_spec import config_of, solver_job_name
from edbjobs_server.solver.log import find_log
from edbjobs_server.solver.progress import LogFollower, Progress, progress
from edbjobs_server.solver.setups import Setup, read_setups, select

POLL_SECONDS = 1.0
CLUSTER_POLL_SECONDS = 15.0  # there may be thousands, and their logs lie on a file server
_FIELDS = [item.name for item in fields(Progress)]


@dataclass
class _Followed:
    """One running solve; `begun`: its log shows that a setup is being solved, so the licence was had."""

    attempt: int
    path: Path
    log: LogFollower
    setups: tuple[Setup, ...]
    license_limit: float | None
    progress: Progress = field(default_factory=Progress)
    begun: bool = False
    due: float = 0.0  # not looked at before, monotonic


class Following:
    """Reads what is new in the log of each running solve: once a second, of those on a cluster less often.

    Parameters
    ----------
    core : Core
        Knows which jobs run.
    paths : UserPaths
        For reading logs.
    end : callable
        Ends a run that has waited for a licence longer than its job allows.
    """

    def __init__(self, core: Core, paths: UserPaths, end: Callable[[Job], Awaitable[None]]) -> None:
        self._core = core
        self._paths = paths
        self._end = end
        self._followed: dict[str, _Followed] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            running = {uid: job for uid, job in self._core.jobs.items() if job.state is State.RUNNING}
            for uid in self._followed.keys() - running.keys():
                del self._followed[uid]
            # One after the other: a file system that hangs delays progress, and nothing else.
            for job in running.values():
                followed = self._followed.get(job.uid)
                if followed is None or followed.due <= time.monotonic():
                    await self._look(job)
            await asyncio.sleep(POLL_SECONDS)

    def progress_of(self, uid: str) -> job_pb2.JobProgress | None:
        """Tell how far a running solve is; None: nothing is known of it."""
        followed = self._followed.get(uid)
        if followed is None or not followed.begun:
            return None
        return job_pb2.JobProgress(**{name: getattr(followed.progress, name) for name in _FIELDS})

    def waits_for_license(self, uid: str) -> bool:
        """Tell whether a solve that may wait for a licence has begun no setup yet."""
        followed = self._followed.get(uid)
        return followed is not None and followed.license_limit is not None and not followed.begun

    async def _look(self, job: Job) -> None:
        try:
            await self._paths.run(partial(self._read, job), job.spec.project_path)
        except (Refused, OSError):
            return  # looked at again in a second
        followed = self._followed.get(job.uid)
        if followed is None or followed.begun or followed.license_limit is None or job.start_time is None:
            return
        if time.time() - job.start_time > followed.license_limit:
            await self._end(job)

    def _read(self, job: Job) -> None:
        followed = self._followed.get(job.uid)
        if followed is None or followed.attempt != job.attempt:
            followed = self._followed[job.uid] = _follow(job)
        if not followed.begun:  # until it is there, nobody knows under which of its names the log comes
            path = find_log(job.spec.project_path, solver_job_name(job, job.attempt))
            if path != followed.path:
                followed.path, followed.log = path, LogFollower(path)
        if job.spec.executor != LOCAL:
            followed.due = time.monotonic() + CLUSTER_POLL_SECONDS
        segment = followed.log.poll()
        followed.begun = bool(segment.setups)
        followed.progress = progress(segment, followed.setups)


def _follow(job: Job) -> _Followed:
    config = config_of(job)
    project = Path(job.spec.project_path)
    limit = None
    if config.wait_for_license:
        limit = config.license_wait_limit.total_seconds() if config.license_wait_limit else float("inf")
    path = find_log(project, solver_job_name(job, job.attempt))
    return _Followed(
        attempt=job.attempt,
        path=path,
        log=LogFollower(path),
        setups=select(read_setups(project), config.design_name, config.setup_name),
        license_limit=limit,
    )
