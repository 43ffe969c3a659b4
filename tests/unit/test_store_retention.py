from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import EventType, State
from edbjobs_server.store import Store, Transaction
from edbjobs_server.store.retention import REQUEST_SECONDS, cut_events, expire, forget_requests
from support.store_jobs import new_job, started_store


async def ended(store: Store, times: list[float]) -> list[Job]:
    def command(tx: Transaction) -> list[Job]:
        return [
            tx.insert(
                replace(new_job(request_id=f"r{time}"), state=State.COMPLETED, end_time=time), EventType.JOB_COMPLETED
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


async def test_a_request_is_remembered_a_week_though_its_job_is_gone(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        (job,) = await ended(store, [1.0])
        await store.write(lambda tx: expire(tx, max_number=0))
        assert await store.write(lambda tx: tx.request("r1.0")) == (job.uid, b"")
        assert await store.write(lambda tx: forget_requests(tx)) == 0

        def in_a_week(tx: Transaction) -> int:
            tx.now += REQUEST_SECONDS + 1
            return forget_requests(tx)

        assert await store.write(in_a_week) == 1
        assert await store.write(lambda tx: tx.request("r1.0")) is None


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
