"""Work on users' paths: in threads of their own and with a deadline, because a network file system may hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edbjobs_server.core.errors import Refused
from edbjobs_server.within import within

T = TypeVar("T")

THREADS = 8
DEADLINE_SECONDS = 10.0


class UserPaths:
    """Threads for whatever touches projects, logs and results.

    A call that hangs keeps its thread; when all threads hang, further calls run into their deadline, and
    nothing else of the service is slowed down.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="paths")

    async def run(self, work: Callable[[], T], what: str, deadline: float = DEADLINE_SECONDS) -> T:
        """Run `work` in a thread.

        Parameters
        ----------
        work : callable
            Takes nothing; may block.
        what : str
            The path, for the error's text.
        deadline : float, default: 10
            Seconds to wait for it.

        Raises
        ------
        Refused
            PATH_UNREACHABLE when the deadline passes.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await within(future, deadline)
        except (asyncio.TimeoutError, TimeoutError):
            raise Refused(
                "PATH_UNREACHABLE",
                f"{what} did not answer within {deadline:g} s; is its file system mounted and its server up?",
            ) from None

    def close(self) -> None:
        """Let go of the threads; a hanging one is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
