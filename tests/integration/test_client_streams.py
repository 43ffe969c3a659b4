from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import edbjobs
import grpc
import pytest
from edbjobs import AsyncClient, Client
from edbjobs.v1 import event_pb2, job_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1.job_ref_pb2 import JobRef
from support.fake_service import FakeService, refuse, status_of

UID = "0123456789abcdef" * 2
LOG = b"first line\n\xc3\xa9\xc3\xa8 last line \xff\n"


@pytest.fixture
def fake() -> Iterator[FakeService]:
    service = FakeService()
    yield service
    service.stop()


def message(*revisions: int, upto: int = 0, caught_up: bool = False) -> pb.WatchJobsResponse:
    started = event_pb2.JOB_CHANGE_TYPE_STARTED
    changes = {r: event_pb2.JobChange(type=started, job=job_pb2.Job(uid=f"u{r}")) for r in revisions}
    events = [event_pb2.WatchEvent(revision=r, job_change=change) for r, change in changes.items()]
    position = event_pb2.Position(revision=upto or max(revisions), store_id="s1")
    return pb.WatchJobsResponse(events=events, position=position, caught_up=caught_up)


def script(fake: FakeService, connections: list[list[Any]]) -> None:
    """Answer the n-th WatchJobs with the n-th list; an error in it ends the stream so."""
    rest = iter(connections)

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for item in next(rest):
            if isinstance(item, grpc.StatusCode):
                context.abort(item, "broken")
            elif hasattr(item, "code"):
                refuse(context, item)
            else:
                yield item

    fake.on("WatchJobs", watch)


END = status_of(11, "end of the test", "REVISION_TOO_OLD")
BREAKS: list[list[Any]] = [
    [message(upto=10, caught_up=True), message(11, 12), grpc.StatusCode.UNAVAILABLE],
    # Sent again: an event is not yielded twice. Then a bookmark, and a failure with another code.
    [message(12, 13), message(upto=20), grpc.StatusCode.CANCELLED],
    [grpc.StatusCode.UNAVAILABLE],
    [status_of(14, "stopping", "DRAINING")],
    [message(21, 22), END],
]


def check_watch(fake: FakeService, events: list[edbjobs.WatchEvent]) -> None:
    assert [event.revision for event in events] == [11, 12, 13, 21, 22]
    assert {event.job_change.type.value for event in events if event.job_change} == {"started"}
    assert [event.position.revision for event in events] == [11, 12, 13, 21, 22]
    asked = fake.sent("WatchJobs")
    assert not asked[0].HasField("after")
    assert [request.after.revision for request in asked[1:]] == [12, 20, 20, 20]
    assert {request.after.store_id for request in asked[1:]} == {"s1"}
    assert all(list(request.filter.batches) == ["b"] for request in asked)


def test_a_watch_gives_each_revision_once_across_breaks(fake: FakeService) -> None:
    script(fake, BREAKS)
    received: list[edbjobs.WatchEvent] = []
    with Client(fake.target, patience=10) as client, pytest.raises(edbjobs.OutOfRangeError, match="end of the test"):
        received.extend(client.watch(batches=["b"]))
    check_watch(fake, received)


async def test_an_asyncio_watch_gives_each_revision_once_across_breaks(fake: FakeService) -> None:
    script(fake, BREAKS)
    received: list[edbjobs.WatchEvent] = []

    async def collect() -> None:
        async with AsyncClient(fake.target, patience=10) as client:
            async for event in client.watch(batches=["b"]):
                received.append(event)  # noqa: PERF401 - events before the error count

    with pytest.raises(edbjobs.OutOfRangeError, match="end of the test"):
        await collect()
    check_watch(fake, received)


def test_a_watch_from_a_snapshot_names_its_store(fake: FakeService) -> None:
    script(fake, [[message(6), END]])
    with Client(fake.target) as client, pytest.raises(edbjobs.OutOfRangeError):
        list(client.watch(after=edbjobs.Position(5, "s1"), include_service_changes=True))
    request = fake.sent("WatchJobs")[0]
    assert (request.after.revision, request.after.store_id) == (5, "s1")
    assert (request.include_service_changes, request.include_updates, request.from_oldest) == (True, False, False)


def test_a_watch_does_not_continue_on_another_store(fake: FakeService) -> None:
    other = status_of(11, "another store", "OTHER_STORE")
    script(fake, [[message(1), grpc.StatusCode.UNAVAILABLE], [other]])
    with Client(fake.target) as client, pytest.raises(edbjobs.OutOfRangeError) as caught:
        list(client.watch(from_oldest=True))
    assert [request.from_oldest for request in fake.sent("WatchJobs")] == [True, False]
    assert caught.value.reason == "OTHER_STORE"


def test_patience_ends(fake: FakeService) -> None:
    script(fake, [[grpc.StatusCode.UNAVAILABLE]] * 50)
    with Client(fake.target, patience=0.3) as client, pytest.raises(edbjobs.ConnectError):
        list(client.watch())
    assert 2 <= len(fake.sent("WatchJobs")) < 10


def test_a_service_that_never_answered_is_reported_at_once() -> None:
    with Client("127.0.0.1:1", patience=60) as client, pytest.raises(edbjobs.ConnectError):
        next(client.watch())


def test_a_watch_that_is_left_is_ended_at_the_service(fake: FakeService) -> None:
    import threading

    ended = threading.Event()

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield message(1)
        ended.wait(20)

    fake.on("WatchJobs", watch)
    with Client(fake.target) as client:
        events = client.watch()
        assert next(events).revision == 1
        del events
        assert ended.wait(10)


async def test_an_asyncio_watch_that_is_left_is_ended_at_the_service(fake: FakeService) -> None:
    import asyncio
    import threading
    from contextlib import aclosing

    ended = threading.Event()

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield message(1)
        ended.wait(20)

    fake.on("WatchJobs", watch)
    async with AsyncClient(fake.target) as client:
        async with aclosing(client.watch()) as events:  # type: ignore[type-var]
            async for _ in events:
                break
        assert await asyncio.to_thread(ended.wait, 10)


def serve_log(fake: FakeService, cut_at: int) -> None:
    """Break the log once after some bytes, then go on from wherever is asked."""

    def answer(request: pb.ReadLogRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        start = request.offset if request.offset >= 0 else len(LOG) + request.offset
        if len(fake.sent("ReadLog")) == 1:
            yield pb.ReadLogResponse(data=LOG[start:cut_at], offset=start, uid=UID, attempt=2)
            yield pb.ReadLogResponse(offset=cut_at, uid=UID, attempt=2)  # a keepalive
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        yield pb.ReadLogResponse(data=LOG[start:], offset=start, uid=UID, attempt=2)
        yield pb.ReadLogResponse(offset=len(LOG), uid=UID, attempt=2, eof=True)

    fake.on("ReadLog", answer)


@pytest.mark.parametrize("cut_at", [3, 12, len(LOG)])
def test_a_log_goes_on_at_its_byte_and_in_its_attempt(fake: FakeService, cut_at: int) -> None:
    serve_log(fake, cut_at)
    with Client(fake.target) as client:
        pieces = list(client.logs("x", follow=True))
    assert b"".join(pieces) == LOG
    assert all(pieces), "a keepalive is no piece"
    assert {(piece.uid, piece.attempt) for piece in pieces} == {(UID, 2)}
    first, second = fake.sent("ReadLog")
    assert (first.HasField("attempt"), first.HasField("max_bytes"), first.stream) == (
        False,
        False,
        pb.LOG_STREAM_SOLVER,
    )
    assert (second.attempt, second.offset) == (2, cut_at)
    assert (first.job, second.job) == (JobRef(id="x"), JobRef(uid=UID)), "an id may be another job by then"


def test_a_bounded_log_is_resumed_with_what_is_left(fake: FakeService) -> None:
    serve_log(fake, 3)
    with Client(fake.target) as client:
        list(client.logs("x", max_bytes=10, attempt=2))
    first, second = fake.sent("ReadLog")
    assert (first.max_bytes, first.attempt, second.max_bytes) == (10, 2, 7)


def test_a_log_that_became_shorter_meanwhile_is_read_again_from_its_start(fake: FakeService) -> None:
    def answer(request: pb.ReadLogRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        if not request.offset and len(fake.sent("ReadLog")) == 1:
            yield pb.ReadLogResponse(data=b"old and long", uid=UID, attempt=1)
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        if request.offset:
            refuse(context, status_of(11, "beyond the end", "OFFSET_BEYOND_END", size_bytes="3"))
        yield pb.ReadLogResponse(data=b"new", uid=UID, attempt=1)
        yield pb.ReadLogResponse(offset=3, uid=UID, attempt=1, eof=True)

    fake.on("ReadLog", answer)
    with Client(fake.target) as client:
        pieces = list(client.logs("x", follow=True))
        assert [(bytes(piece), piece.offset) for piece in pieces] == [(b"old and long", 0), (b"new", 0)]
        with pytest.raises(edbjobs.OutOfRangeError):
            list(client.logs("x", offset=99))


def test_text_is_decoded_across_pieces(fake: FakeService) -> None:
    serve_log(fake, 12)  # within the first accented letter
    with Client(fake.target) as client:
        assert "".join(client.logs("x", text=True)) == LOG.decode("utf-8", "replace")


def test_an_offset_from_the_end_is_asked_for_only_once(fake: FakeService) -> None:
    serve_log(fake, len(LOG) - 3)
    with Client(fake.target) as client:
        assert b"".join(client.logs("x", offset=-8, stream="stderr")) == LOG[-8:]
    first, second = fake.sent("ReadLog")
    assert (first.offset, first.stream, second.offset) == (-8, 2, len(LOG) - 3)


async def test_asyncio_logs(fake: FakeService) -> None:
    serve_log(fake, 12)
    async with AsyncClient(fake.target) as client:
        pieces: AsyncIterator[str] = client.logs("x", text=True)
        assert "".join([piece async for piece in pieces]) == LOG.decode("utf-8", "replace")


def test_a_missing_log_is_an_error(fake: FakeService) -> None:
    fake.on("ReadLog", lambda request, context: refuse(context, status_of(5, "no such log", "LOG_NOT_FOUND")))
    with Client(fake.target) as client, pytest.raises(edbjobs.NotFoundError, match="no such log"):
        list(client.logs("x"))
