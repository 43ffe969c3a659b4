"""Waiting with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(work: Awaitable[T], seconds: float | None) -> T:
    """Wait for something, but not longer than so many seconds.

    It stands for `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes in the same turn of
    the loop as the result (python/cpython#86296): a loop that waits so could not be ended.

    Parameters
    ----------
    work : awaitable
        Cancelled when the time is over, or when the caller is.
    seconds : float or None
        None: for ever.

    Raises
    ------
    TimeoutError
        The time is over; `asyncio.TimeoutError`, which is another class before Python 3.11.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if not task.done():
        await _cancel(task)
        raise asyncio.TimeoutError
    return task.result()


async def _cancel(task: asyncio.Future[T]) -> None:
    """Cancel and wait until that is through; how it ended is of no use to anybody any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
