from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import event_pb2, job_pb2, job_state_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.core.states import EventType, State
from edbjobs_server.events import EventLog, log, ring
from edbjobs_server.events.ring import Ring
from edbjobs_server.store import Store, Transaction, retention
from support.store_jobs import config_of, new_job

ADMIN = Principal("ann", Role.ADMIN)

Request = jobs_messages_pb2.WatchJobsRequest
Response = jobs_messages_pb2.WatchJobsResponse
Filter = jobs_messages_pb2.JobFilter


@dataclass
class Service:
    """A store and its log, joined as the manager joins them."""

    store: Store
    log: EventLog
    watches: list[AsyncIterator[Response]] = field(default_factory=list)

    async def submit(self, number: int = 1, **values: object) -> list[Job]:
        jobs = [new_job(**values) for _ in range(number)]  # type: ignore[arg-type]
        return await self.store.write(lambda tx: [tx.insert(job, EventType.JOB_QUEUED) for job in jobs])

    def watch(self, **values: Any) -> AsyncIterator[Response]:
        watch = self.log.watch(request_of(**values))
        self.watches.append(watch)
        return watch


def request_of(after: int | None = None, store_id: str = "", **values: Any) -> Request:
    if after is not None:
        values["after"] = event_pb2.Position(revision=after, store_id=store_id)
    return Request(**values)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    store = Store.open(tmp_path)
    made = Service(store, EventLog(store, store.snapshot().revision))
    store.start(asyncio.get_running_loop(), made.log.publish, lambda snapshot: made.log.reset(snapshot.revision))
    yield made
    for watch in made.watches:
        await watch.aclose()  # type: ignore[attr-defined]
    await store.close()


async def next_of(watch: AsyncIterator[Response]) -> Response:
    return await asyncio.wait_for(watch.__anext__(), 10)


async def until(watch: AsyncIterator[Response], enough: Callable[[list[event_pb2.WatchEvent]], bool]) -> list[Response]:
    """Read until the events so far are enough."""
    messages: list[Response] = []
    events: list[event_pb2.WatchEvent] = []
    while not enough(events):
        messages.append(await next_of(watch))
        events += messages[-1].events
    return messages


def revisions(messages: list[Response]) -> list[int]:
    return [event.revision for message in messages for event in message.events]


async def test_replay_then_one_mark_then_live(service: Service) -> None:
    await service.submit(3)
    watch = service.watch(after=1)
    replay = await next_of(watch)
    assert [event.revision for event in replay.events] == [2, 3]
    assert (replay.position.revision, replay.position.store_id, replay.caught_up) == (3, service.store.store_id, False)
    mark = await next_of(watch)
    assert (len(mark.events), mark.position.revision, mark.caught_up) == (0, 3, True)
    (job,) = await service.submit()
    live = await next_of(watch)
    assert [(event.revision, event.job_change.job.uid) for event in live.events] == [(4, job.uid)]
    assert live.events[0].job_change.old_state == 0, "it was accepted"
    assert live.events[0].job_change.job.view == job_pb2.JOB_VIEW_BASIC
    assert not live.caught_up


async def test_without_a_revision_only_what_is_new(service: Service) -> None:
    await service.submit(3)
    watch = service.watch()
    mark = await next_of(watch)
    assert (mark.caught_up, mark.position.revision, len(mark.events)) == (True, 3, 0)
    await service.submit()
    assert revisions([await next_of(watch)]) == [4]


@pytest.mark.parametrize("memory", [3, 8192])
async def test_every_event_comes_once_and_in_order(
    service: Service, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(ring, "MAX_EVENTS", memory)
    monkeypatch.setattr(log, "MAX_MESSAGE_EVENTS", 7)
    watch = service.watch(after=0)

    async def produce() -> None:
        for number in range(60):
            await service.submit(1 + number % 4)

    producer = asyncio.ensure_future(produce())
    total = sum(1 + number % 4 for number in range(60))
    messages = await until(watch, lambda events: len(events) >= total)
    await producer
    assert revisions(messages) == list(range(1, total + 1))
    assert max(len(message.events) for message in messages) <= 7
    for message in messages:
        assert not message.events or message.position.revision == message.events[-1].revision


async def test_a_client_that_resumes_misses_nothing(service: Service) -> None:
    got: list[int] = []
    last = 0
    for _ in range(10):
        await service.submit(3)
        watch = service.log.watch(request_of(after=last, store_id=service.store.store_id))
        message = await next_of(watch)
        got += [event.revision for event in message.events]
        last = message.position.revision
        await watch.aclose()  # type: ignore[attr-defined]
    assert got == list(range(1, 31))


async def test_a_slow_reader_is_served_from_the_store(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MAX_EVENTS", 4)
    watch = service.watch()
    assert (await next_of(watch)).caught_up
    await service.submit(50)
    for _ in range(3):
        await service.submit(1)
    assert revisions(await until(watch, lambda events: len(events) >= 53)) == list(range(1, 54))


async def test_a_reader_slower_than_the_log_is_kept_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MAX_EVENTS", 4)
    await service.submit(1)
    watch = service.watch(after=0)
    await next_of(watch)
    await service.submit(50)
    await service.store.write(lambda tx: retention.cut_events(tx, max_number=10))
    with pytest.raises(Refused) as refused:
        await until(watch, lambda events: len(events) >= 50)
    assert refused.value.reason == "REVISION_TOO_OLD"
    assert refused.value.metadata == {"oldest_revision": "41"}


@pytest.mark.parametrize(
    ("values", "reason", "metadata"),
    [
        ({"after": 5, "store_id": "another"}, "OTHER_STORE", {"store_id": None}),
        ({"after": 6}, "REVISION_IN_FUTURE", {"revision": "5"}),
        ({"after": 1}, "REVISION_TOO_OLD", {"oldest_revision": "2"}),
        ({"after": 5, "from_oldest": True}, "INVALID_REQUEST", {}),
    ],
)
async def test_a_watch_that_cannot_be_served_is_refused(
    service: Service, values: dict[str, object], reason: str, metadata: dict[str, str | None]
) -> None:
    await service.submit(5)
    await service.store.write(lambda tx: retention.cut_events(tx, max_number=3))
    with pytest.raises(Refused) as refused:
        await next_of(service.watch(**values))
    assert refused.value.reason == reason
    assert refused.value.metadata == {key: value or service.store.store_id for key, value in metadata.items()}


async def test_the_oldest_on_record_is_asked_for_explicitly(service: Service) -> None:
    await service.submit(5)
    await service.store.write(lambda tx: retention.cut_events(tx, max_number=3))
    assert revisions([await next_of(service.watch(from_oldest=True))]) == [3, 4, 5]
    assert revisions([await next_of(service.watch(after=2))]) == [3, 4, 5]
    with pytest.raises(Refused) as refused:
        await next_of(service.watch(after=0))
    assert refused.value.reason == "REVISION_TOO_OLD", "0 is a position like any other"


@pytest.mark.parametrize("values", [{}, {"from_oldest": True}, {"after": 0}])
async def test_an_empty_store_is_caught_up_at_once_and_once(service: Service, values: dict[str, object]) -> None:
    watch = service.watch(**values)
    mark = await next_of(watch)
    assert (mark.caught_up, mark.position.revision, mark.position.store_id) == (True, 0, service.store.store_id)
    await service.submit(3)
    messages = await until(watch, lambda events: len(events) == 3)
    assert not any(message.caught_up for message in messages)


async def test_a_revision_that_is_committed_but_not_published_is_no_future(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[object] = []
    service.store._writer._on_commit = held.append
    await service.submit(1)
    watch = service.watch(after=1)
    mark = await next_of(watch)
    assert mark.caught_up
    service.log.publish(held[0])  # type: ignore[arg-type]
    service.store._writer._on_commit = service.log.publish
    await service.submit(1)
    assert revisions([await next_of(watch)]) == [2]


async def test_a_filter_leaves_out_and_the_revision_moves_on(service: Service) -> None:
    watch = service.watch(filter=Filter(users=["me"]))
    assert (await next_of(watch)).caught_up
    await service.submit(3, user="other")
    (mine,) = await service.submit(1, user="me")
    message = await next_of(watch)
    assert [event.job_change.job.uid for event in message.events] == [mine.uid]
    assert message.position.revision == 4
    resumed = service.watch(filter=Filter(users=["me"]), after=0)
    assert revisions([await next_of(resumed)]) == [4]


async def test_a_replay_of_nothing_that_is_wanted_ends_with_the_mark(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_MESSAGE_EVENTS", 5)
    await service.submit(33, user="other")
    mark = await next_of(service.watch(filter=Filter(users=["me"]), after=0))
    assert (mark.caught_up, mark.position.revision, len(mark.events)) == (True, 33, 0)


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("filtered", [False, True])
async def test_changes_of_the_service_come_on_wish(service: Service, wanted: bool, filtered: bool) -> None:
    wishes = Filter(users=["me"]) if filtered else Filter()
    watch = service.watch(include_service_changes=wanted, filter=wishes)
    assert (await next_of(watch)).caught_up

    def change(tx: Transaction) -> None:
        tx.set_limits(Limits(max_cores=3), ADMIN)
        tx.set_paused(True)
        tx.note(EventType.GATE_CLOSED, "the disk is full")
        tx.insert(new_job(user="me"), EventType.JOB_QUEUED)

    await service.store.write(change)
    events = [event for message in await until(watch, bool) for event in message.events]
    if not wanted:
        assert [event.WhichOneof("change") for event in events] == ["job_change"]
        return
    kinds = ["limits_change", "queue_change", "queue_change", "job_change"]
    assert [event.WhichOneof("change") for event in events] == kinds
    limits = events[0].limits_change
    assert (limits.limits.max_cores, limits.old_limits.max_cores) == (3, 0)
    assert [event.queue_change.type for event in events[1:3]] == [
        event_pb2.QUEUE_CHANGE_TYPE_PAUSED,
        event_pb2.QUEUE_CHANGE_TYPE_GATE_CLOSED,
    ]
    assert (events[0].principal.name, events[2].message) == ("ann", "the disk is full")
    assert not events[1].HasField("principal"), "the service itself"


async def test_deleting_a_job_is_an_event_with_its_last_state(service: Service) -> None:
    (job,) = await service.submit()
    watch = service.watch()
    await next_of(watch)
    ended = replace(job, state=State.FAILED, end_time=1.0)
    await service.store.write(lambda tx: tx.delete(tx.put(ended, EventType.JOB_FAILED), ADMIN))
    message = await next_of(watch)
    failed, deleted = [event.job_change for event in message.events]
    assert (failed.type, failed.old_state) == (event_pb2.JOB_CHANGE_TYPE_FAILED, job_state_pb2.JOB_STATE_QUEUED)
    assert (deleted.type, deleted.old_state) == (event_pb2.JOB_CHANGE_TYPE_DELETED, job_state_pb2.JOB_STATE_FAILED)
    assert int(deleted.job.state) == State.FAILED
    assert deleted.job.revision == message.events[-1].revision == 3
    assert message.left_uids == [job.uid]


async def test_heartbeats_come_while_nothing_happens(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SHORTEST_HEARTBEAT", 0.01)
    monkeypatch.setattr("edbjobs_server.events.wakeup._TICK", 0.01)
    request = Request(filter=Filter(users=["me"]))
    request.heartbeat_interval.FromMilliseconds(20)
    watch = service.log.watch(request)
    service.watches.append(watch)
    assert (await next_of(watch)).caught_up
    await service.submit(2, user="other")
    mark = await next_of(watch)
    assert (len(mark.events), mark.position.revision, mark.caught_up) == (0, 2, False)
    assert (await next_of(watch)).position.revision == 2


async def test_watchers_at_one_place_share_one_message(service: Service) -> None:
    await service.submit(3)
    first, second = [await next_of(service.watch(after=0)) for _ in range(2)]
    assert first is second
    other = await next_of(service.watch(after=0, filter=Filter(jobs=[JobRef(uid="nobody")])))
    assert len(other.events) == 0


async def test_what_was_built_for_watchers_is_let_go(service: Service) -> None:
    watch = service.watch()
    assert (await next_of(watch)).caught_up
    for _ in range(20):
        await service.submit()
        await next_of(watch)
    assert len(service.log._built) <= 1


async def test_watchers_at_many_places_keep_a_bounded_number_of_messages(service: Service) -> None:
    await service.submit(log.MAX_BUILT * 3)
    for revision in range(log.MAX_BUILT * 3):
        message = await next_of(service.watch(after=revision))
        assert message.events[0].revision == revision + 1
    assert len(service.log._built) == log.MAX_BUILT
    newest = log.MAX_BUILT * 3 - 1
    assert (newest, (b"", False)) in service.log._built, "the newest are kept, for those who stand there too"


async def test_closing_ends_every_watch(service: Service) -> None:
    waiting = [asyncio.ensure_future(next_of(service.watch())) for _ in range(3)]
    assert all(message.caught_up for message in await asyncio.gather(*waiting))
    waiting = [asyncio.ensure_future(next_of(watch)) for watch in service.watches]
    await asyncio.sleep(0)
    service.log.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [getattr(result, "reason", None) for result in results] == ["DRAINING"] * 3
    with pytest.raises(Refused):
        await next_of(service.watch())


async def test_a_watcher_that_goes_leaves_nothing_behind(service: Service) -> None:
    watches = [service.watch() for _ in range(20)]
    for watch in watches:
        assert (await next_of(watch)).caught_up
    waiting = [asyncio.ensure_future(next_of(watch)) for watch in watches]
    deadline = asyncio.get_running_loop().time() + 10
    while len(service.log._wakeup._waiting) < 20:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    gc.collect()
    assert len(service.log._wakeup._waiting) == 0


async def test_after_a_failed_commit_watchers_read_what_is_on_disk(service: Service) -> None:
    """The commit was reported as failed and yet is there: its events come all the same."""
    watch = service.watch()
    assert (await next_of(watch)).caught_up
    service.store._writer._on_commit = lambda batch: None
    await service.submit(2)
    service.log.reset(2)
    service.store._writer._on_commit = service.log.publish
    assert revisions([await next_of(watch)]) == [1, 2]
    await service.submit(1)
    assert revisions([await next_of(watch)]) == [3]


async def test_a_thousand_watchers_get_everything_without_a_stall(service: Service) -> None:
    number, events = 1_000, 400

    async def follow() -> int:
        seen = 0
        async for message in service.log.messages(request_of(after=0)):
            for event in message.parsed.events:
                assert event.revision == seen + 1
                seen = event.revision
            if seen == events:
                break
        return seen

    tasks = [asyncio.ensure_future(follow()) for _ in range(number)]
    for _ in range(events // 8):
        await asyncio.gather(*[service.submit(1) for _ in range(8)])
    assert await asyncio.wait_for(asyncio.gather(*tasks), 60) == [events] * number


async def test_large_events_are_spread_over_messages(service: Service) -> None:
    config = config_of(labels={"k": "x" * 400_000})
    await service.submit(5, config=config)
    messages = await until(service.watch(after=0), lambda events: len(events) == 5)
    assert [len(message.events) for message in messages] == [2, 2, 1]


async def test_caught_up_does_not_wait_for_a_quiet_moment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_MESSAGE_EVENTS", 1)
    await service.submit(2)
    watch = service.watch(from_oldest=True)
    await next_of(watch)
    await service.submit(5)
    second = await next_of(watch)
    mark = await next_of(watch)
    assert (second.position.revision, mark.position.revision, mark.caught_up) == (2, 2, True)
    assert revisions([await next_of(watch) for _ in range(5)]) == [3, 4, 5, 6, 7]


class _Feed:
    """Updates as the test has them; written by uid."""

    def __init__(self) -> None:
        self.new: list[str] = []
        self.opened = self.closed = 0
        self.taken_at: list[int] = []

    def open(self) -> None:
        self.opened += 1

    def take(self, revision: int) -> bytes:
        self.taken_at.append(revision)
        updates = [jobs_messages_pb2.JobUpdate(uid=uid) for uid in self.new]
        self.new.clear()
        return Response(updates=updates).SerializeToString()

    def close(self) -> None:
        self.closed += 1


async def test_updates_come_after_caught_up_with_the_position_of_the_last_change(service: Service) -> None:
    await service.submit(3)
    feed = _Feed()
    feed.new.append("a")
    watch = service.log.watch(Request(include_updates=True, from_oldest=True), lambda matcher, selected: feed)
    service.watches.append(watch)
    assert revisions([await next_of(watch)]) == [1, 2, 3]
    assert feed.opened == 0, "none is computed before it has caught up"
    assert (await next_of(watch)).caught_up
    assert feed.opened == 1
    update = await next_of(watch)
    assert ([item.uid for item in update.updates], update.position.revision, len(update.events)) == (["a"], 3, 0)
    assert update.position.store_id == service.store.store_id
    reading = asyncio.ensure_future(next_of(watch))
    await asyncio.sleep(0)
    feed.new.append("b")
    service.log.wake_for_updates()
    assert [item.uid for item in (await reading).updates] == ["b"]
    await service.submit(1)
    feed.new.append("c")
    assert revisions([await next_of(watch)]) == [4], (
        "changes first: an end among them comes before no update of its job"
    )
    assert feed.taken_at[-1] == 3
    assert [item.uid for item in (await next_of(watch)).updates] == ["c"]
    assert feed.taken_at[-1] == 4
    await watch.aclose()  # type: ignore[attr-defined]
    assert feed.closed == 1


async def test_who_wants_no_updates_has_no_feed_and_is_not_woken_for_them(service: Service) -> None:
    made: list[object] = []

    def make(matcher: object, selected: bytes) -> _Feed:
        made.append(matcher)
        return _Feed()

    watch = service.log.watch(Request(), make)
    service.watches.append(watch)
    assert (await next_of(watch)).caught_up
    reading = asyncio.ensure_future(next_of(watch))
    for _ in range(10):
        await asyncio.sleep(0)
    assert service.log._wakeup._waiting
    service.log.wake_for_updates()
    await asyncio.sleep(0.02)
    assert service.log._wakeup._waiting, "it still waits"
    assert not made
    await service.submit(1)
    assert revisions([await reading]) == [1]


def test_the_ring_is_bounded_by_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MAX_EVENTS", 8)
    monkeypatch.setattr(ring, "MAX_BYTES", 1_000)
    small = Ring(0)
    small.append((number, b"x") for number in range(1, 10))
    assert (small.floor, small.head) == (3, 9)
    assert [entry.revision for entry in small.after(7, 10, 100)] == [8, 9]
    assert [entry.revision for entry in small.after(4, 2, 100)] == [5, 6]
    small.append([(10, b"x" * 2_000)])
    assert (small.floor, small.head) == (10, 10)
    small.append([(15, b"x")])
    assert (small.floor, small.head) == (14, 15)
