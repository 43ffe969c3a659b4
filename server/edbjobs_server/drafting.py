"""Drafting of jobs, which looks at projects, in the threads for users' paths."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edbjobs.v1 import jobs_messages_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits
from edbjobs_server.submission import Rules, draft_all
from edbjobs_server.util.path_workers import PathWorkers

DEADLINE_SECONDS = 30.0

Drafts = list["Job | Refused"]


@dataclass(frozen=True, slots=True)
class _Call:
    requests: Sequence[jobs_messages_pb2.SubmitJobRequest]
    user: str
    answer: asyncio.Future[Drafts]


class Drafting:
    """Drafts jobs, those whose projects lie in one folder together.

    To hand work to a thread and back costs more than a draft. So what comes while a folder is being looked at
    waits, and is then drafted in one go; a folder that hangs holds up its own jobs only.

    Parameters
    ----------
    paths : PathWorkers
        For everything that touches projects.
    rules : Rules
        What requests are checked against.
    limits : callable
        Gives the limits in force.
    """

    def __init__(self, paths: PathWorkers, rules: Rules, limits: Callable[[], Limits]) -> None:
        self._paths = paths
        self._rules = rules
        self._limits = limits
        self._waiting: dict[str, list[_Call]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def draft(self, requests: Sequence[jobs_messages_pb2.SubmitJobRequest], user: str) -> Drafts:
        """Make a job, or its refusal, of each request.

        Raises
        ------
        Refused
            PATH_UNREACHABLE when the folder does not answer in time.
        """
        folder = os.path.dirname(requests[0].config.project_path) if requests else ""
        call = _Call(requests, user, asyncio.get_running_loop().create_future())
        if folder in self._waiting:
            self._waiting[folder].append(call)
        else:
            self._waiting[folder] = [call]
            task = asyncio.create_task(self._work(folder))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await call.answer

    async def _work(self, folder: str) -> None:
        """Draft all that waits for a folder, and what comes in the meantime."""
        while calls := self._waiting[folder]:
            self._waiting[folder] = []
            calls = [call for call in calls if not call.answer.done()]  # its caller may have gone
            work = partial(self._draft, calls, self._limits())
            try:
                drafts = await self._paths.run(work, folder or "the project", DEADLINE_SECONDS, key=f"draft {folder}")
            except Exception as error:  # its callers are told
                for call in calls:
                    if not call.answer.done():
                        call.answer.set_exception(error)
                continue
            for call, found in zip(calls, drafts, strict=True):
                if not call.answer.done():
                    call.answer.set_result(found)
        del self._waiting[folder]

    def _draft(self, calls: Sequence[_Call], limits: Limits) -> list[Drafts]:
        return [draft_all(call.requests, call.user, self._rules, limits) for call in calls]
