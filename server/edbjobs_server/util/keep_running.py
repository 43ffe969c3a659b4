"""Background work that must not end by an accident."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edbjobs_server.util.backoff import Backoff

log = logging.getLogger(__name__)

HEALTHY_SECONDS = 60.0  # after which a failure counts as the first


async def keep_running(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it returns; what it raises is logged, and it is started again after a growing delay.

    Parameters
    ----------
    what : str
        Names the work in the log.
    work : callable
        Starts the work anew at each call.
    """
    delays = Backoff(first=1.0)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await work()
        except Exception:
            if loop.time() - started > HEALTHY_SECONDS:
                delays.reset()
            delay = delays.next()
            log.exception("%s failed; started again after %g s", what, delay)
            await asyncio.sleep(delay)
        else:
            return
