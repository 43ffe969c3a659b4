"""Work on paths: what hangs holds up itself alone."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from edbjobs_server.util import path_workers
from edbjobs_server.util.path_workers import MountTable, PathWorkers


def mount_of(path: str) -> str:
    """The first folder of a path."""
    return path.split("/")[1]


@pytest.fixture
async def workers() -> AsyncIterator[PathWorkers]:
    it = PathWorkers(mount_of=mount_of)
    yield it
    it.close()


def count_threads(name: str) -> int:
    return sum(thread.name == f"path {name}" for thread in threading.enumerate())


async def test_results_and_errors_come_through(workers: PathWorkers) -> None:
    assert await workers.run(lambda: 7, "/a/x") == 7
    with pytest.raises(KeyError):
        await workers.run(lambda: os.environ["EDBJOBS_NO_SUCH"], "/a/x")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await workers.run(lambda: next(iter(())), "/a/x")

    def leave() -> None:
        sys.exit(3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        await workers.run(leave, "/a/x")


async def test_ten_that_hang_delay_nobody_else_on_their_mount(workers: PathWorkers) -> None:
    release = threading.Event()
    hanging = [asyncio.create_task(workers.run(release.wait, "/a/x", 60.0, key=f"job{number}")) for number in range(10)]
    await asyncio.sleep(0)
    assert await workers.run(lambda: "well", "/a/y", 30.0) == "well"
    assert not any(task.done() for task in hanging)
    release.set()
    assert await asyncio.gather(*hanging) == [True] * 10


async def test_another_mount_is_not_touched_by_one_whose_threads_all_hang(
    workers: PathWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_workers, "MAX_THREADS", 3)
    release = threading.Event()
    hanging = [asyncio.create_task(workers.run(release.wait, "/a/x", 60.0, key=f"job{number}")) for number in range(9)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match=r"/a/y did not answer within 0\.5 s"):
        await workers.run(lambda: None, "/a/y", 0.5)
    assert count_threads("a") == 3
    assert await workers.run(lambda: "well", "/b/y", 30.0) == "well"
    release.set()
    await asyncio.gather(*hanging)
    assert await workers.run(lambda: "well", "/a/y", 30.0) == "well"


async def test_a_key_has_one_look_in_flight(workers: PathWorkers) -> None:
    release, started = threading.Event(), []

    def look() -> int:
        started.append(1)
        release.wait()
        return len(started)

    for _ in range(5):
        with pytest.raises(OSError) as unreachable:
            await workers.run(look, "/a/x", 0.05, key="job")
        assert unreachable.value.errno == errno.ETIMEDOUT
    assert len(started) == 1
    waiting = asyncio.create_task(workers.run(lambda: "next", "/a/x", 30.0, key="job"))
    await asyncio.sleep(0)
    release.set()
    assert await waiting == "next"


async def test_work_that_nobody_waits_for_any_more_is_not_started(
    workers: PathWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_workers, "MAX_THREADS", 1)
    release, ran = threading.Event(), []
    first = asyncio.create_task(workers.run(release.wait, "/a/x", 60.0, key="first"))
    await asyncio.sleep(0)
    with pytest.raises(OSError):
        await workers.run(lambda: ran.append(1), "/a/x", 0.05, key="second")
    third = asyncio.create_task(workers.run(lambda: ran.append(1), "/a/x", 60.0, key="third"))
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    release.set()
    await first
    assert await workers.run(lambda: "last", "/a/x", 30.0) == "last"
    assert ran == []


async def test_a_wait_can_be_cut_short(workers: PathWorkers) -> None:
    release = threading.Event()
    task = asyncio.create_task(workers.run(release.wait, "/a/x", 3600.0, key="job"))
    await asyncio.sleep(0)
    workers.hurry("job", 0.05)
    with pytest.raises(OSError, match="did not answer"):
        await task
    release.set()


async def test_threads_end_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_workers, "IDLE_SECONDS", 0.05)
    workers = PathWorkers(mount_of=lambda _: "idle")
    await workers.run(lambda: None, "/x")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "path idle"]
    await asyncio.to_thread(thread.join, 30.0)
    assert not thread.is_alive()
    assert await workers.run(lambda: 1, "/x") == 1
    workers.close()
    with pytest.raises(OSError, match="stopping"):
        await workers.run(lambda: 1, "/x")


def test_a_process_ends_though_looks_hang() -> None:
    program = """
import asyncio, threading
from edbjobs_server.util.path_workers import PathWorkers
async def main():
    workers = PathWorkers()
    for n in range(8):
        asyncio.create_task(workers.run(threading.Event().wait, "/x", 60, key=str(n)))
    await asyncio.sleep(1)
    assert sum(t.name.startswith("path") for t in threading.enumerate()) >= 1
    workers.close()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="mounts of Linux")
def test_mounts_are_known_without_touching_paths() -> None:
    table = MountTable()
    assert table.mount_of("/proc/self/fd") == "/proc"
    assert table.mount_of("/") == "/"
    assert table.mount_of("/no/such/thing") == "/"
    assert table.mount_of("/proc/../nothing") == os.sep
    assert table.mount_of("relative") in {"/", "."}


@pytest.mark.skipif(sys.platform == "win32", reason="drives are no mounts")
def test_a_mount_that_was_added_is_seen_when_the_table_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"/", "/data"}
    monkeypatch.setattr(path_workers, "_read_mounts", lambda: frozenset(table))
    mounts = MountTable()
    assert [mounts.mount_of("/data/a/b"), mounts.mount_of("/data/a/b"), mounts.mount_of("/x")] == [
        "/data",
        "/data",
        "/",
    ]
    table.add("/data/a")
    monkeypatch.setattr(path_workers, "_MOUNTS_SECONDS", 0.0)
    mounts._until = 0.0
    assert mounts.mount_of("/data/a/b") == "/data/a"
