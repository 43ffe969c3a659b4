from __future__ import annotations

import asyncio

import pytest
from edbjobs_server.util.timeouts import timeout


async def wait_for(future: asyncio.Future[int], seconds: float | None) -> int:
    async with timeout(seconds):
        return await future


async def test_work_that_takes_too_long_is_cancelled() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with pytest.raises(asyncio.TimeoutError):
        await wait_for(future, 0.01)
    assert future.cancelled()


async def test_a_cancellation_that_comes_with_the_result_is_not_swallowed() -> None:
    result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(wait_for(result, 60))
    await asyncio.sleep(0)
    result.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_no_timeout_waits_until_the_result() -> None:
    result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(wait_for(result, None))
    await asyncio.sleep(0)
    result.set_result(7)
    assert await waiting == 7
