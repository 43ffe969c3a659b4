"""Events are encoded once for all clients, in a bounded cache; a failure is not cached."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from edbjobs.v1 import event_pb2, job_pb2, jobs_messages_pb2
from edbjobs_server.events.log import Message
from edbjobs_server.gateway.events import frames
from edbjobs_server.gateway.events.frames import FrameEncoder


def make_encoder() -> FrameEncoder:
    manager: Any = SimpleNamespace(queue_position=lambda uid: 0)
    return FrameEncoder(manager)


def message(revision: int, size: int = 0, number: int = 1) -> Message:
    job = job_pb2.Job(uid="u", scheduler="x" * size)
    change = event_pb2.JobChange(type=event_pb2.JOB_CHANGE_TYPE_QUEUED, job=job)
    event = event_pb2.WatchEvent(revision=revision, job_change=change)
    return Message(jobs_messages_pb2.WatchJobsResponse(events=[event] * number).SerializeToString())


async def test_frames_are_encoded_once_and_cached_by_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "KEPT", 10)
    monkeypatch.setattr(frames, "KEPT_BYTES", 5000)
    encoder = make_encoder()
    first = await encoder.frames(message(1, number=4))
    assert await encoder.frames(message(1, number=4)) is first
    await encoder.frames(message(2, number=4))
    await encoder.frames(message(3, number=4))
    assert [len(frames) for frames in encoder._kept.values()] == [4, 4], "ten at most"
    await encoder.frames(message(4, size=4980))
    assert [key.count(b"x") for key in encoder._kept] == [4980], "5,000 bytes at most"
    assert (encoder._number, encoder._bytes) == (1, len(next(iter(encoder._kept))))
    assert await encoder.frames(message(1, number=4)) is not first


async def test_after_a_failure_the_next_client_gets_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder()

    def fail(message: Any) -> Any:
        raise RuntimeError("once")

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode", fail)
        with pytest.raises(RuntimeError):
            await encoder.frames(message(1))
    assert not encoder._making
    assert len(await encoder.frames(message(1))) == 1
