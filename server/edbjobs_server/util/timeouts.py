"""Waiting with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
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
    # As asyncio.wait does, without its checks of what it is given: every submission passes here.
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    end = partial(_end, over)
    timer = None if seconds is None else loop.call_later(seconds, end)
    task.add_done_callback(end)
    try:
        await over
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    finally:
        task.remove_done_callback(end)
        if timer is not None:
            timer.cancel()
    if not task.done():
        await _cancel(task)
        raise asyncio.TimeoutError
    return task.result()


def _end(over: asyncio.Future[None], _: object = None) -> None:
    if not over.done():
        over.set_result(None)


async def _cancel(task: asyncio.Future[T]) -> None:
    """Cancel and wait until that is through; how it ended is of no use to anybody any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
