from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import EventType, State
from edbjobs_server.store import Store, Transaction, transaction, writer, writer_state
from edbjobs_server.store.retention import REQUEST_SECONDS, cut_events, expire, forget_requests
from support.store_jobs import new_job, started_store


class Clock:
    """The clock of the system and the monotonic one, as the store sees them."""

    def __init__(self) -> None:
        self.wall, self.running = time.time(), time.monotonic()

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.running += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    shown = SimpleNamespace(time=lambda: made.wall, monotonic=lambda: made.running)
    for module in (writer, transaction, writer_state):
        monkeypatch.setattr(module, "time", shown)
    # A default of a dataclass is bound when the class is made.
    monkeypatch.setattr(writer_state, "State", partial(writer_state.State, age_mark=made.running))
    return made


async def ended(store: Store, times: list[float]) -> list[Job]:
    def command(tx: Transaction) -> list[Job]:
        return [
            tx.insert(
                replace(new_job(requested_by="ann", request_id=f"r{time}"), state=State.COMPLETED, end_time=time),
                EventType.JOB_COMPLETED,
            )
            for time in times
        ]

    return await store.write(command)


@pytest.mark.parametrize(
    ("max_age", "max_number", "kept"),
    [
        (None, None, [1, 2, 3, 4, 5]),
        (35.0, None, [3, 4, 5]),
        (None, 2, [4, 5]),
        (25.0, 4, [4, 5]),
        (1000.0, 4, [2, 3, 4, 5]),
        (0.0, None, []),
        (None, 0, []),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3, 200])
async def test_the_oldest_ends_go_first(
    tmp_path: Path, max_age: float | None, max_number: int | None, kept: list[int], batch_size: int
) -> None:
    async with started_store(tmp_path) as (store, heard):
        now = await store.write(lambda tx: tx.now)
        await store.write(lambda tx: tx.insert(new_job(id="live"), EventType.JOB_QUEUED))
        # Ends 50, 40, … 10 seconds ago.
        jobs = await ended(store, [now - 60 + 10 * number for number in range(1, 6)])
        removed: list[Job] = []
        while batch := await store.write(lambda tx: expire(tx, max_age, max_number, batch_size=batch_size)):
            assert len(batch) <= batch_size
            removed += batch
        assert [job.uid for job in removed] == [job.uid for n, job in enumerate(jobs, 1) if n not in kept]
        left = await store.read(lambda reader: [uid for uid in map(reader.job, [j.uid for j in jobs]) if uid])
        assert [job.uid for job in left] == [jobs[n - 1].uid for n in kept]
        assert len(await store.read(lambda reader: reader.live_jobs())) == 1
        deleted = [item for item in heard.events if item.type is EventType.JOB_DELETED]
        assert [item.job.uid for item in deleted if item.job] == [job.uid for job in removed]


async def test_the_log_is_cut_from_its_beginning_only(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        for _ in range(10):
            await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
        assert await store.write(lambda tx: cut_events(tx)) == 0
        assert await store.write(lambda tx: cut_events(tx, max_age=3600.0)) == 0
        assert await store.write(lambda tx: cut_events(tx, max_number=4, batch_size=2)) == 2
        assert await store.read(lambda reader: reader.floor()) == 2
        assert await store.write(lambda tx: cut_events(tx, max_number=4)) == 4
        assert await store.write(lambda tx: cut_events(tx, max_number=4)) == 0
        events = await store.read(lambda reader: reader.events(0, 100, 10**6))
        assert [revision for revision, _ in events] == [7, 8, 9, 10]
        assert await store.write(lambda tx: cut_events(tx, max_age=0.0)) == 4
        assert await store.read(lambda reader: (reader.floor(), reader.revision())) == (10, 10)
    async with started_store(tmp_path) as (again, _):
        job = await again.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
        assert job.revision == 11


async def test_a_request_is_remembered_a_week_though_its_job_is_gone(tmp_path: Path, clock: Clock) -> None:
    async with started_store(tmp_path) as (store, _):
        (job,) = await ended(store, [1.0])
        await store.write(lambda tx: expire(tx, max_number=0))
        assert await store.write(lambda tx: tx.request("ann", "r1.0")) == (job.uid, b"")
        assert await store.write(lambda tx: forget_requests(tx)) == 0

        clock.pass_time(REQUEST_SECONDS + 1)
        assert await store.write(lambda tx: forget_requests(tx)) == 1
        assert await store.write(lambda tx: tx.request("ann", "r1.0")) is None


async def test_what_is_cut_by_a_command_that_fails_stays(tmp_path: Path) -> None:
    def failing(tx: Transaction) -> None:
        cut_events(tx, max_number=0)
        expire(tx, max_number=0)
        raise ZeroDivisionError

    async with started_store(tmp_path) as (store, _):
        (job,) = await ended(store, [1.0])
        with pytest.raises(ZeroDivisionError):
            await store.write(failing)
        assert await store.read(lambda reader: reader.floor()) == 0
        assert await store.read(lambda reader: reader.job(job.uid)) == job


DAY = 86_400.0


async def removed(store: Store, days: float = 30.0) -> tuple[int, int, int]:
    """Tidy up as at a start; gives how many jobs, events and requests were removed."""
    jobs = await store.write(lambda tx: expire(tx, max_age=days * DAY))
    events = await store.write(lambda tx: cut_events(tx, max_age=days * DAY))
    return len(jobs), events, await store.write(lambda tx: forget_requests(tx))


async def test_a_start_with_the_clock_far_ahead_removes_nothing(tmp_path: Path, clock: Clock) -> None:
    async with started_store(tmp_path) as (store, _):
        await ended(store, [clock.wall - DAY, clock.wall - DAY / 2])
    clock.wall += 40 * DAY
    for _ in range(3):  # also not at the starts that follow, with events of the wrong time on record
        async with started_store(tmp_path) as (store, _):
            await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
            assert await removed(store) == (0, 0, 0)
            clock.pass_time(3600)
            assert await removed(store) == (0, 0, 0)
    clock.wall -= 40 * DAY
    async with started_store(tmp_path) as (store, _):
        assert await removed(store) == (0, 0, 0)


async def test_after_a_long_stop_the_records_go_by_and_by(tmp_path: Path, clock: Clock) -> None:
    async with started_store(tmp_path) as (store, _):
        await ended(store, [clock.wall - day * DAY for day in range(30)])
    clock.wall += 40 * DAY
    async with started_store(tmp_path) as (store, _):
        assert (await removed(store))[0] <= 1
        for _ in range(41):
            clock.pass_time(3600)
            assert (await removed(store))[0] <= 2, "no more than the records of a day go in an hour"
        assert await store.read(lambda reader: reader.counts()) == {}


async def test_age_is_measured_exactly_while_the_service_runs(tmp_path: Path, clock: Clock) -> None:
    async with started_store(tmp_path) as (store, _):
        await ended(store, [clock.wall])
        clock.pass_time(30 * DAY - 1)
        assert (await removed(store))[0] == 0
        clock.pass_time(2)
        assert (await removed(store))[0] == 1


async def test_a_clock_set_back_does_not_change_the_order_of_ends(tmp_path: Path, clock: Clock) -> None:
    """Else, of those that ended last, the newest would be the first to go."""

    def end(tx: Transaction, uid: str) -> Job:
        return tx.put(replace(tx.job(uid), state=State.FAILED, end_time=tx.now), EventType.JOB_FAILED)

    clock.wall += 40 * DAY
    uids = []
    async with started_store(tmp_path) as (store, _):
        for number in range(4):
            job = await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
            made = await store.write(partial(end, uid=job.uid))
            assert made.end_time == clock.wall, "what is told is the time of the end all the same"
            uids.append(job.uid)
            clock.wall -= 40 * DAY if number == 1 else -1
    async with started_store(tmp_path) as (store, _):
        gone = await store.write(lambda tx: expire(tx, max_number=2))
        assert [job.uid for job in gone] == uids[:2]


async def test_times_do_not_go_back_when_the_clock_is_corrected(tmp_path: Path, clock: Clock) -> None:
    async with started_store(tmp_path) as (store, heard):
        for step in (0.0, -5.0, -50.0, 10.0, 50.0):
            clock.wall += step
            await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
        times = [item.time for item in heard.events]
        assert times == sorted(times)
        assert store.newest_time == times[-1] == clock.wall
        clock.wall -= 3600.0
        await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
        assert store.newest_time == clock.wall, "it was wrong before"


async def test_requests_are_bounded_by_number_too(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        await ended(store, [float(number) for number in range(10)])
        assert await store.write(lambda tx: forget_requests(tx, max_number=4, batch_size=5)) == 5
        assert await store.write(lambda tx: forget_requests(tx, max_number=4, batch_size=5)) == 1
        assert await store.write(lambda tx: forget_requests(tx, max_number=4, batch_size=5)) == 0
        known = await store.write(
            lambda tx: [tx.request("ann", f"r{float(number)}") is not None for number in range(10)]
        )
        assert known == [False] * 6 + [True] * 4
