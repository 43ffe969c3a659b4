"""A service inside another program: in a daemon thread, with an event loop of its own."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from edbjobs._exceptions import EdbJobsError
from edbjobs_server.auth.authenticator import account_name
from edbjobs_server.config.settings import Settings, SettingsError
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.core.states import State
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.service.app import Service, Stop
from edbjobs_server.service.logging import Logging
from edbjobs_server.store import Store, StoreError

from edbjobs_pyedb.errors import JobManagerError, not_running, raised

T = TypeVar("T")
Work = Callable[[JobManager], Coroutine[Any, Any, T]]

PRINCIPAL = Principal("the program that hosts the service", Role.ADMIN, user=account_name())  # whom events name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """The jobs that remain after a service is closed: running, with a cluster, and queued, which are held."""

    running: int = 0
    queued: int = 0
    scheduled: int = 0

    def __bool__(self) -> bool:
        return bool(self.running or self.queued or self.scheduled)

    def __str__(self) -> str:
        running = "1 solve goes on running" if self.running == 1 else f"{self.running} solves go on running"
        queued = "1 job stays queued and held" if self.queued == 1 else f"{self.queued} jobs stay queued and held"
        if not self.scheduled:
            return f"{running}, {queued}"
        jobs = "1 job stays" if self.scheduled == 1 else f"{self.scheduled} jobs stay"
        return f"{running}, {jobs} with the cluster, {queued}"


class Embedded:
    """One service in one thread. Any thread may call it; it is started once and closed once.

    Parameters
    ----------
    settings : Settings
        Settings of the service.
    at_exit : callable
        Called at the end of the program if the service is still open.
    """

    def __init__(self, settings: Settings, at_exit: Callable[[], None]) -> None:
        self.settings = settings
        self.at_exit = at_exit
        self.held: list[str] = []  # ids of the jobs left by an earlier session
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._service: Service | None = None
        self._stop: Stop | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._left = Left()

    @property
    def running(self) -> bool:
        """Whether the service is started."""
        return self._service is not None

    @property
    def url(self) -> str:
        """Base URL of its HTTP endpoint; empty: there is none."""
        return self._service.url if self._service is not None else ""

    def start(self) -> None:
        """Start the service and wait until it answers.

        Raises
        ------
        JobManagerError
            It cannot start: the address or the state folder is in use, or a setting is not valid.
        """
        ready: concurrent.futures.Future[Service] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="edbjobs", daemon=True)
        self._thread.start()
        try:
            self._service = ready.result()
        except (SettingsError, StoreError, EdbJobsError, OSError) as error:
            self._thread.join()
            hint = "; here: state_dir=, or EDBJOBS_STATE_DIR" if "--state-dir" in str(error) else ""
            raise JobManagerError(f"{error}{hint}", "CANNOT_START") from error
        except BaseException:  # Ctrl-C: the thread finds its future cancelled, and ends
            ready.cancel()
            raise
        _RUNNING.add(self)

    def close(self) -> Left:
        """Drain and stop the service; return what goes on without it."""
        if self._service is None or self._thread is None or self._loop is None or self._stop is None:
            return Left()
        _RUNNING.discard(self)
        self._service = None
        self._loop.call_soon_threadsafe(self._stop.ask)
        self._thread.join()
        return self._left

    def call(self, work: Work[T], timeout: float | None = None) -> T:
        """Run a coroutine on the service's loop and wait for its result.

        Raises
        ------
        JobManagerError
            The service refuses the request, or is closed.
        TimeoutError
            It took longer than `timeout` seconds.
        """
        future = self._submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"the job manager did not answer within {timeout:g} s") from None
        finally:
            future.cancel()  # of no effect on what has ended

    async def call_async(self, work: Work[T]) -> T:
        """Run a coroutine on the service's loop, from another loop.

        Raises
        ------
        JobManagerError
            The service refuses the request, or is closed.
        """
        return await asyncio.wrap_future(self._submit(work))

    def resume(self) -> int:
        """Release the held jobs; return their number."""
        count = self.call(lambda manager: manager.release_held(PRINCIPAL))
        self.held = []
        return count

    def _submit(self, work: Work[T]) -> concurrent.futures.Future[T]:
        service, loop = self._service, self._loop
        if service is None or loop is None:
            raise not_running()
        coroutine = self._answer(work, service.manager)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # the loop was closed just now
            coroutine.close()
            raise not_running() from None

    async def _answer(self, work: Work[T], manager: JobManager) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await work(manager)
        except Refused as refused:
            raise raised(refused) from refused
        except asyncio.CancelledError:
            # If the caller has cancelled, its future has ended already; what is raised here reaches waiting callers.
            if self._service is None:
                raise not_running() from None
            raise
        finally:
            self._calls.discard(task)

    def _run(self, ready: concurrent.futures.Future[Service]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if ready.done():
                log.exception("the job manager's thread ended")
            else:
                ready.set_exception(error)

    async def _serve(self, ready: concurrent.futures.Future[Service]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), Stop()
        self._loop.set_exception_handler(_log_error)
        store = await asyncio.to_thread(Store.open, self.settings.state_dir)
        with Logging(self.settings.state_dir, self.settings.log_level, embedded=True):
            service = Service(self.settings, store)
            try:
                # Queued jobs of an earlier session are held: the program decides whether they start, by `resume`.
                await service.start(partial(service.manager.hold_waiting, PRINCIPAL))
                self.held = [job.id for job in service.manager.live_jobs().jobs if job.held]
                ready.set_result(service)
                await self._stop.first.wait()
                self._left = await _leave(service.manager)
                await self._end_calls()
            finally:
                await service.stop(self._stop)

    async def _end_calls(self) -> None:
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _leave(manager: JobManager) -> Left:
    manager.stop_starts()
    try:
        await manager.hold_waiting(PRINCIPAL)
    except Refused as refused:
        log.warning("could not hold the queued jobs, which happens at the next start instead: %s", refused.message)
    jobs = manager.live_jobs().jobs
    waiting = sum(1 for job in jobs if job.state is State.QUEUED and job.open_attempt is None)
    scheduled = sum(1 for job in jobs if job.state is State.SCHEDULED)
    return Left(len(jobs) - waiting - scheduled, waiting, scheduled)


# The end of the program --------------------------------------------------------------------------------------

_RUNNING: weakref.WeakSet[Embedded] = weakref.WeakSet()


def _close_all() -> None:
    for embedded in list(_RUNNING):
        embedded.at_exit()


def _log_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("%s", context["message"], exc_info=context.get("exception"))


# At the time of atexit's functions the thread pools of concurrent.futures, which closing the service needs, are gone.
getattr(threading, "_register_atexit", atexit.register)(_close_all)
if hasattr(os, "register_at_fork"):  # the child has the objects, but not the threads
    os.register_at_fork(after_in_child=_RUNNING.clear)
