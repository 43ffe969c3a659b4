from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import edbjobs
import grpc
import pytest
from edbjobs import AsyncClient, Client
from edbjobs.v1 import event_pb2, job_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from support.fake_service import FakeService, refuse, status_of

LOG = b"first line\n\xc3\xa9\xc3\xa8 last line \xff\n"


@pytest.fixture
def fake() -> Iterator[FakeService]:
    service = FakeService()
    yield service
    service.stop()


def message(*revisions: int, upto: int = 0, caught_up: bool = False) -> pb.WatchJobsResponse:
    events = [event_pb2.Event(revision=r, type=4, job=job_pb2.Job(uid=f"u{r}")) for r in revisions]  # type: ignore[arg-type]
    return pb.WatchJobsResponse(events=events, revision=upto or max(revisions), store_id="s1", caught_up=caught_up)


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


def check_watch(fake: FakeService, events: list[edbjobs.Event]) -> None:
    assert [event.revision for event in events] == [11, 12, 13, 21, 22]
    assert {event.type for event in events} == {"job_started"}
    asked = fake.sent("WatchJobs")
    assert not asked[0].HasField("after_revision")
    assert [request.after_revision for request in asked[1:]] == [12, 20, 20, 20]
    assert {request.store_id for request in asked[1:]} == {"s1"}
    assert all(request.filter.batch == "b" for request in asked)


def test_a_watch_gives_each_revision_once_across_breaks(fake: FakeService) -> None:
    script(fake, BREAKS)
    received: list[edbjobs.Event] = []
    with Client(fake.target, patience=10) as client, pytest.raises(edbjobs.OutOfRangeError, match="end of the test"):
        received.extend(client.watch(batch="b"))
    check_watch(fake, received)


async def test_an_asyncio_watch_gives_each_revision_once_across_breaks(fake: FakeService) -> None:
    script(fake, BREAKS)
    received: list[edbjobs.Event] = []

    async def collect() -> None:
        async with AsyncClient(fake.target, patience=10) as client:
            async for event in client.watch(batch="b"):
                received.append(event)  # noqa: PERF401 - events before the error count

    with pytest.raises(edbjobs.OutOfRangeError, match="end of the test"):
        await collect()
    check_watch(fake, received)


def test_a_watch_from_a_snapshot_names_its_store(fake: FakeService) -> None:
    script(fake, [[message(6), END]])
    with Client(fake.target) as client, pytest.raises(edbjobs.OutOfRangeError):
        list(client.watch(after_revision=5, store_id="s1", service_events=True))
    request = fake.sent("WatchJobs")[0]
    assert (request.after_revision, request.store_id, request.include_service_events) == (5, "s1", True)


def test_a_watch_does_not_continue_on_another_store(fake: FakeService) -> None:
    other = status_of(11, "another store", "OTHER_STORE")
    script(fake, [[message(1), grpc.StatusCode.UNAVAILABLE], [other]])
    with Client(fake.target) as client, pytest.raises(edbjobs.OutOfRangeError) as caught:
        list(client.watch(after_revision=0))
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


def tail(fake: FakeService, cut_at: int) -> None:
    """Break the log once after some bytes, then go on from wherever is asked."""

    def answer(request: pb.TailLogRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        start = request.offset if request.offset >= 0 else len(LOG) + request.offset
        if len(fake.sent("TailLog")) == 1:
            yield pb.TailLogResponse(data=LOG[start:cut_at], offset=start, attempt=2)
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        yield pb.TailLogResponse(data=LOG[start:], offset=start, attempt=2, eof=True)

    fake.on("TailLog", answer)


@pytest.mark.parametrize("cut_at", [3, 12, len(LOG)])
def test_a_log_goes_on_at_its_byte_and_in_its_attempt(fake: FakeService, cut_at: int) -> None:
    tail(fake, cut_at)
    with Client(fake.target) as client:
        assert b"".join(client.logs("x", follow=True)) == LOG
    first, second = fake.sent("TailLog")
    assert (first.attempt, second.attempt, second.offset) == (0, 2, cut_at)


def test_text_is_decoded_across_pieces(fake: FakeService) -> None:
    tail(fake, 12)  # within the first accented letter
    with Client(fake.target) as client:
        assert "".join(client.logs("x", text=True)) == LOG.decode("utf-8", "replace")


def test_an_offset_from_the_end_is_asked_for_only_once(fake: FakeService) -> None:
    tail(fake, len(LOG) - 3)
    with Client(fake.target) as client:
        assert b"".join(client.logs("x", offset=-8, stream="stderr")) == LOG[-8:]
    first, second = fake.sent("TailLog")
    assert (first.offset, first.stream, second.offset) == (-8, 2, len(LOG) - 3)


async def test_asyncio_logs(fake: FakeService) -> None:
    tail(fake, 12)
    async with AsyncClient(fake.target) as client:
        pieces: AsyncIterator[str] = client.logs("x", text=True)
        assert "".join([piece async for piece in pieces]) == LOG.decode("utf-8", "replace")


def test_a_missing_log_is_an_error(fake: FakeService) -> None:
    fake.on("TailLog", lambda request, context: refuse(context, status_of(5, "no such log", "LOG_NOT_FOUND")))
    with Client(fake.target) as client, pytest.raises(edbjobs.NotFoundError, match="no such log"):
        list(client.logs("x"))
