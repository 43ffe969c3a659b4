"""Progress of running solves: collected only for connected clients, and offered only when it has changed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from edbjobs.v1 import convergence_pb2
from edbjobs_server.gateway.events.frames import Frame
from edbjobs_server.gateway.events.progress import send_progress
from edbjobs_server.manager.progress_tracker import ProgressTracker
from support.core_jobs import Lab, make_job, running


async def test_progress_is_offered_to_clients_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab([running(make_job(1)), make_job(2), running(make_job(3))])
    passes = {"u0001": 1}
    asked: list[str] = []
    offered: list[Frame] = []
    clients: list[object] = []

    def progress_of(uid: str) -> convergence_pb2.JobProgress | None:
        asked.append(uid)
        return convergence_pb2.JobProgress(current_pass=passes[uid]) if uid in passes else None

    unused: Any = None
    tracker = ProgressTracker(lab.core, unused, unused)
    monkeypatch.setattr(tracker, "progress_of", progress_of)
    manager: Any = SimpleNamespace(watch_progress=tracker.watch, store_id="s")
    with monkeypatch.context() as patch:
        rounds = []

        async def sleep(seconds: float) -> None:
            rounds.append(len(offered))
            if len(rounds) == 3:
                assert not asked, "no client is connected"
                clients.append(object())
            elif len(rounds) == 6:
                passes["u0001"] = 2
            elif len(rounds) == 9:
                raise InterruptedError

        patch.setattr(asyncio, "sleep", sleep)
        with pytest.raises(InterruptedError):
            await send_progress(manager, offered.append, lambda: bool(clients))
    assert rounds == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert set(asked) == {"u0001", "u0003"}, "a job that only waits has no progress"
    assert [frame.payload["progress"]["adaptive_pass"] for frame in offered] == [1, 2]
