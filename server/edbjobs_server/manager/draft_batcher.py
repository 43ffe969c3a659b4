"""Batches of submissions: drafted in the worker threads for users' paths, and posted to the store from there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from edbjobs.v1 import jobs_messages_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.principal import Principal
from edbjobs_server.manager.acceptance import Saved, save
from edbjobs_server.manager.submission import Rules, draft_all, one_look
from edbjobs_server.manager.validation import Submission
from edbjobs_server.store import Store, Transaction
from edbjobs_server.util.path_workers import PathWorkers

DEADLINE_SECONDS = 30.0
_MANY = 50  # requests of one call

Results = list["Saved | Refused"]


@dataclass(slots=True)
class _Call:
    """Requests of one caller; either it is posted to the store or given up, never both."""

    given: Sequence[jobs_messages_pb2.SubmitJobRequest | Submission]
    requests: Sequence[jobs_messages_pb2.SubmitJobRequest]
    principal: Principal
    answer: asyncio.Future[Results]
    settled: bool = False


class DraftBatcher:
    """Drafts jobs and puts them on disk, those whose projects lie in one folder together.

    To hand work to a thread and back costs more than a draft. So what comes while a folder is being looked at
    waits, and is then drafted in one go; and the thread that drafts hands on to the store's writer by itself. A
    folder that hangs holds up its own jobs only.

    Parameters
    ----------
    paths : PathWorkers
        For everything that touches projects.
    rules : Rules
        What requests are checked against.
    limits : callable
        Returns the limits in force.
    store : Store
        Records the drafts.
    """

    def __init__(self, paths: PathWorkers, rules: Rules, limits: Callable[[], Limits], store: Store) -> None:
        self._paths = paths
        self._rules = rules
        self._limits = limits
        self._store = store
        self._lock = threading.Lock()  # of every call's `settled`
        self._waiting: dict[str, list[_Call]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(
        self, given: Sequence[jobs_messages_pb2.SubmitJobRequest | Submission], principal: Principal
    ) -> Results:
        """Put jobs on disk in one transaction; return each job, or its refusal.

        Raises
        ------
        Refused
            PATH_UNREACHABLE when the folder does not respond in time, and nothing was accepted then;
            STORE_UNAVAILABLE, OVERLOADED, DRAINING as of the store.
        """
        requests = [item.request if isinstance(item, Submission) else item for item in given]
        folder = os.path.dirname(requests[0].config.project_path) if requests else ""
        call = _Call(given, requests, principal, asyncio.get_running_loop().create_future())
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
        loop = asyncio.get_running_loop()
        while calls := self._waiting[folder]:
            self._waiting[folder] = []
            calls = [call for call in calls if not call.answer.done()]  # its caller may have gone
            try:
                work = partial(self._draft, calls, self._limits(), loop)
                await self._paths.run(work, folder or "the project", DEADLINE_SECONDS, key=f"draft {folder}")
            except Exception as error:  # raised to its callers
                for call in filter(self._settle, calls):
                    _fail(call, error)
        del self._waiting[folder]

    def _draft(self, calls: Sequence[_Call], limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """Draft and hand on; in a thread. A call that cannot be drafted spoils no other."""
        rules = replace(self._rules, no_local=cache(self._rules.no_local))  # asked once for all
        look = one_look()
        try:
            for call in calls:
                self._draft_one(call, partial(draft_all, rules=rules, limits=limits, look=look), loop)
                if len(call.requests) >= _MANY:
                    self._store.commit_posted()  # the others do not wait for it, nor it for them
        finally:
            self._store.commit_posted()

    def _draft_one(
        self, call: _Call, draft: Callable[..., list[Job | Refused]], loop: asyncio.AbstractEventLoop
    ) -> None:
        try:
            drafts = draft(call.given, call.principal)
            ids = [request.request_id for request in call.requests if request.request_id]
            if self._settle(call):
                names = [request.job_id for request in call.requests if request.job_id]
                command = partial(_save_all, call=call, drafts=drafts)
                self._store.post(command, call.answer, request_ids=ids, ids=names)
        except Exception as error:
            with self._lock:
                call.settled = True
            loop.call_soon_threadsafe(_fail, call, error)

    def _settle(self, call: _Call) -> bool:
        """Take a call, to post it or to give it up; False: that was done already."""
        with self._lock:
            if call.settled:
                return False
            call.settled = True
            return True


def _save_all(tx: Transaction, call: _Call, drafts: Sequence[Job | Refused]) -> Results:
    pairs = zip(call.requests, drafts, strict=True)
    return [save(tx, request, drafted, call.principal) for request, drafted in pairs]


def _fail(call: _Call, error: Exception) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)
