"""Clients that ask as fast as they are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import count

from bench.table import percentile

Call = Callable[[int], Awaitable[object]]


async def latencies(call: Call, number: int, warm_up: int = 50) -> tuple[float, float]:
    """Call one after the other; gives median and 99th percentile in ms."""
    for i in range(warm_up):
        await call(i)
    taken = []
    for i in range(number):
        started_at = time.perf_counter()
        await call(i)
        taken.append((time.perf_counter() - started_at) * 1000)
    return percentile(taken, 0.5), percentile(taken, 0.99)


async def rate(call: Call, clients: int = 16, seconds: float = 2.0) -> float:
    """Call from many clients at once; gives answers per second."""
    numbers = count()
    answered = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal answered
        while time.perf_counter() < end:
            await call(next(numbers))
            answered += 1

    started_at = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return answered / (time.perf_counter() - started_at)
