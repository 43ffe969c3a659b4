from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.core.states import EventType
from edbjobs_server.store import Reader, Snapshot, Store, Transaction, writer
from support.store_jobs import new_job, started_store


def inserting(job: Job) -> Callable[[Transaction], Job]:
    return lambda tx: tx.insert(job, EventType.JOB_QUEUED, Principal("a", Role.USER))


async def test_what_was_acknowledged_is_there_after_reopening(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        made = await store.write(inserting(new_job(requested_by="ann", request_id="r")))
        await store.write(lambda tx: tx.set_limits(Limits(max_cores=3, users={"a": UserLimits(max_priority=1)})))
        await store.write(lambda tx: tx.set_paused(True))
    async with started_store(tmp_path) as (again, _):
        limits = Limits(max_cores=3, users={"a": UserLimits(max_priority=1)})
        assert again.snapshot() == Snapshot(store.store_id, 3, (made,), limits, paused=True)
        assert await again.write(lambda tx: tx.request("ann", "r")) == (made.uid, b"")
        assert (await again.write(inserting(new_job()))).seq == made.seq + 1


async def test_commits_are_told_in_order_and_before_their_callers_hear(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, heard):
        seen: list[tuple[int, int]] = []

        async def submit() -> None:
            job = await store.write(inserting(new_job()))
            seen.append((job.revision, heard.events[-1].revision))

        await asyncio.gather(*[submit() for _ in range(300)])
        assert [item.revision for item in heard.events] == list(range(1, 301))
        assert all(told >= revision for revision, told in seen)
        assert store.revision == 300


async def test_all_that_wait_share_one_commit(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, heard):
        go = threading.Event()
        first = asyncio.ensure_future(store.write(lambda tx: go.wait(10)))
        others = [asyncio.ensure_future(store.write(inserting(new_job()))) for _ in range(100)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *others)
        assert len(heard.commits) <= 2


async def test_a_refused_command_spoils_no_other(tmp_path: Path) -> None:
    def refusing(tx: Transaction) -> None:
        tx.insert(new_job(), EventType.JOB_QUEUED)
        raise Refused("JOB_ENDED", "no")

    def failing(tx: Transaction) -> None:
        tx.insert(new_job(), EventType.JOB_QUEUED)
        raise ZeroDivisionError

    async with started_store(tmp_path) as (store, heard):
        results = await asyncio.gather(
            store.write(inserting(new_job())),
            store.write(refusing),
            store.write(failing),
            store.write(inserting(new_job())),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [Job, Refused, ZeroDivisionError, Job]
        assert [item.revision for item in heard.events] == [1, 2]
        assert len(await store.read(lambda reader: reader.live_jobs())) == 2
        assert store.writable


async def test_write_all_answers_each(tmp_path: Path) -> None:
    def refusing(tx: Transaction) -> Job:
        raise Refused("JOB_ENDED", "no")

    async with started_store(tmp_path) as (store, heard):
        first, second, third = await store.write_all([inserting(new_job()), refusing, inserting(new_job())])
        assert isinstance(first, Job)
        assert isinstance(second, Refused)
        assert isinstance(third, Job)
        assert len(heard.commits) == 1


async def test_a_cancelled_caller_does_not_take_its_command_back(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, heard):
        go = threading.Event()
        blocker = asyncio.ensure_future(store.write(lambda tx: go.wait(10)))
        caller = asyncio.ensure_future(store.write(inserting(new_job(uid="mine"))))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go.set()
        await blocker
        await store.write(lambda tx: None)
        assert [item.job.uid for item in heard.events if item.job] == ["mine"]


async def test_too_many_waiting_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 2)
    async with started_store(tmp_path) as (store, _):
        go = threading.Event()
        waiting = [asyncio.ensure_future(store.write(lambda tx: go.wait(10))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await store.write(lambda tx: None)
        assert refused.value.reason == "OVERLOADED"
        go.set()
        await asyncio.gather(*waiting)
        await store.write(lambda tx: None)


async def test_close_finishes_what_waits_and_refuses_the_rest(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, heard):
        waiting = [asyncio.ensure_future(store.write(inserting(new_job()))) for _ in range(50)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*waiting)
        assert len(heard.events) == 50
        with pytest.raises(Refused) as refused:
            await store.write(lambda tx: None)
        assert refused.value.reason == "DRAINING"
    async with started_store(tmp_path) as (again, _):
        assert len(again.snapshot().jobs) == 50


async def test_a_listener_that_fails_keeps_nobody_waiting(tmp_path: Path) -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    store = Store.open(tmp_path)

    def broken(_: object) -> None:
        raise ZeroDivisionError

    store.start(asyncio.get_running_loop(), broken, lambda _: None)
    await store.write(inserting(new_job()))
    await store.close()
    assert [type(error) for error in failed] == [ZeroDivisionError]


async def test_a_mistake_in_a_query_is_the_callers_own(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, heard):
        with pytest.raises(sqlite3.ProgrammingError):
            await store.write(lambda tx: tx._sql.execute("SELECT ?"))
        assert store.writable
        assert heard.resets == []


async def test_a_read_sees_what_was_committed_before(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        for _ in range(50):
            job = await store.write(inserting(new_job()))
            assert await store.read(lambda reader: reader.revision()) == job.revision
            assert await store.read(partial(Reader.job, uid=job.uid)) == job
        assert await store.read(lambda reader: reader.job_bytes(JobRef(id="nobody"))) is None
        assert await store.read(lambda reader: reader.job(uid="nobody")) is None


async def test_a_commit_that_fails_is_told_to_all_and_state_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started_store(tmp_path) as (store, heard):
        kept = await store.write(inserting(new_job()))

        def broken(self: Transaction) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "flush", broken)
            results = await asyncio.gather(
                *[store.write(inserting(new_job())) for _ in range(5)], return_exceptions=True
            )
            assert [getattr(result, "reason", None) for result in results] == ["STORE_UNAVAILABLE"] * 5
            assert "disk I/O error" in str(results[0])
            assert heard.resets[-1].jobs == (kept,)
            assert heard.resets[-1].revision == 1
        after = await store.write(inserting(new_job()))
        assert (after.revision, after.seq) == (2, 2)
        assert store.writable


async def test_the_store_recovers_without_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_PROBE_SECONDS", 0.01)
    async with started_store(tmp_path) as (store, heard):

        def broken(path: Path) -> sqlite3.Connection:
            raise sqlite3.OperationalError("database or disk is full")

        def full(tx: Transaction) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(writer, "connect", broken)
            with pytest.raises(Refused, match="disk is full"):
                await store.write(full)
            assert not store.writable
            assert store.last_error == "database or disk is full"
            assert heard.resets == []
        deadline = asyncio.get_running_loop().time() + 10
        while not store.writable:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        assert [snapshot.revision for snapshot in heard.resets] == [0]


async def test_a_read_that_fails_is_told_and_the_next_one_works(tmp_path: Path) -> None:
    def failing(reader: Reader) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with started_store(tmp_path) as (store, _):
        for _ in range(4):
            with pytest.raises(Refused, match="disk I/O error") as refused:
                await store.read(failing)
            assert refused.value.reason == "STORE_UNAVAILABLE"
        assert await store.read(lambda reader: reader.revision()) == 0
        assert len(store._readers._connections) <= 3


async def test_too_many_reads_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edbjobs_server.store.reader._MAX_WAITING", 1)
    async with started_store(tmp_path) as (store, _):
        go = threading.Event()
        waiting = asyncio.ensure_future(store.read(lambda reader: go.wait(10)))
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await store.read(lambda reader: None)
        assert refused.value.reason == "OVERLOADED"
        go.set()
        await waiting


async def test_whoever_posts_commits_and_nothing_is_lost(tmp_path: Path) -> None:
    """Threads that post and commit by themselves, beside commands of the loop: each is answered, one at a time."""
    loop = asyncio.get_running_loop()
    busy = threading.Lock()

    def command(tx: Transaction) -> str:
        assert busy.acquire(blocking=False), "two threads commit at once"
        try:
            return tx.insert(new_job(), EventType.JOB_QUEUED).uid
        finally:
            busy.release()

    async with started_store(tmp_path) as (store, heard):
        answers: list[asyncio.Future[str]] = [loop.create_future() for _ in range(400)]

        def post(part: list[asyncio.Future[str]]) -> None:
            for answer in part:
                store.post(command, answer)
                store.commit_posted()

        threads = [asyncio.to_thread(post, answers[start::4]) for start in range(4)]
        written = [store.write(command) for _ in range(100)]
        uids = await asyncio.gather(*written, *threads, *answers)
        assert len({uid for uid in uids if uid}) == 500
        assert [item.revision for item in heard.events] == list(range(1, 501))


async def test_what_was_posted_is_committed_though_another_thread_is_at_it(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        go = threading.Event()
        blocker = asyncio.ensure_future(store.write(lambda tx: go.wait(10)))
        await asyncio.sleep(0.01)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        store.post(lambda tx: tx.insert(new_job(uid="posted"), EventType.JOB_QUEUED).uid, answer)
        await asyncio.to_thread(store.commit_posted)  # does not wait for the other
        assert not answer.done()
        go.set()
        assert await answer == "posted"
        await blocker
