"""Background work that raises is started again, ever later, and says so."""

from __future__ import annotations

import asyncio

import pytest
from edbjobs_server.util.backoff import Backoff
from edbjobs_server.util.keep_running import keep_running
from edbjobs_server.util.timeouts import timeout


def test_delays_double_up_to_their_bound() -> None:
    delays = Backoff(first=1.0, longest=10.0)
    assert [delays.next() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    delays.reset()
    assert (delays.next(), delays.count) == (1.0, 1)
    endless = Backoff()
    assert [endless.next() for _ in range(5_000)][-1] == 60.0


async def test_what_raises_is_started_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("edbjobs_server.util.backoff.LONGEST_SECONDS", 0.01)
    monkeypatch.setattr("edbjobs_server.util.keep_running.Backoff", lambda first: Backoff(first=0.01, longest=0.01))
    starts: list[int] = []

    async def work() -> None:
        starts.append(1)
        if len(starts) < 3:
            raise KeyError("made by the test")

    async with timeout(30.0):
        await keep_running("the work", work)
    assert len(starts) == 3
    assert [record.message.partition(";")[0] for record in caplog.records] == ["the work failed"] * 2


async def test_a_cancellation_ends_it() -> None:
    entered = asyncio.Event()

    async def work() -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(keep_running("the work", work))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
