"""What was acknowledged is there, whatever happens to the process or the disk."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.states import EventType
from edbjobs_server.store import Store, StoreError
from support.store_jobs import config_of, new_job, started_store

TESTS = Path(__file__).parent.parent
WAL_HEADER, WAL_FRAME = 32, 24 + 4096  # bytes; a frame holds one page


def child(folder: Path, callers: int, *prefix: str) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-m", "support.store_child", str(folder), str(callers)]
    return subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True, start_new_session=True)


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Kill a process with all it started; returns the lines it had written and that were not read yet."""
    os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    with process:
        return process.stdout.read().splitlines()


def read_until(process: subprocess.Popen[str], enough: Callable[[list[str]], bool]) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not enough(lines):
        line = process.stdout.readline()
        assert line, f"the process ended: {lines[-3:]}"
        lines.append(line.strip())
    return lines


def acknowledged(lines: list[str]) -> dict[str, tuple[int, int]]:
    """Newest revision and state by uid."""
    found: dict[str, tuple[int, int]] = {}
    for line in lines:
        word, *rest = line.split()
        if word == "ok" and len(rest) == 3:
            uid, revision, state = rest
            found[uid] = int(revision), int(state)
    return found


def check(folder: Path, lines: list[str]) -> None:
    """Hold a store against what was acknowledged: nothing lost, no gap, nothing torn."""
    connection = sqlite3.connect(folder / "store.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = dict(connection.execute("SELECT uid, state FROM jobs"))
        for uid, (_, state) in acknowledged(lines).items():
            # A later change may be on disk without having been acknowledged, an earlier one may not.
            assert rows.get(uid, 0) >= state, uid
        (revision,) = connection.execute("SELECT revision FROM service").fetchone()
        revisions = [row[0] for row in connection.execute("SELECT revision FROM events ORDER BY revision")]
        assert revisions == list(range(1, revision + 1))
        assert revision >= max((item[0] for item in acknowledged(lines).values()), default=0)
        counted = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        assert counted == dict(connection.execute("SELECT state, number FROM counts WHERE number > 0"))
        requests = connection.execute("SELECT count(*) FROM requests").fetchone()
        assert requests == connection.execute("SELECT count(*) FROM jobs").fetchone()
    finally:
        connection.close()


async def open_and_close(folder: Path) -> None:
    async with started_store(folder):
        pass


@pytest.mark.parametrize("seed", range(12))
def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    rounds = random.Random(seed)
    lines: list[str] = []
    for _ in range(2):
        number = rounds.choice([0, 1, 5, 50, 500])
        process = child(tmp_path, rounds.choice([1, 16, 200]))
        try:
            lines += read_until(process, lambda seen, number=number: len(seen) > number)  # type: ignore[misc]
        finally:
            lines += kill(process)
        check(tmp_path, lines)
    asyncio.run(open_and_close(tmp_path))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of a size."""
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.needs_root
async def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk:
        async with started_store(disk / "state") as (store, heard):
            kept: list[str] = []
            config = config_of(environment={"ANS_PAD": "x" * 5_000})
            refused: Refused | None = None
            while refused is None:
                job = new_job(config)
                try:
                    kept.append((await store.write(lambda tx, job=job: tx.insert(job, EventType.JOB_QUEUED))).uid)  # type: ignore[misc]
                except Refused as error:
                    refused = error
            assert refused.reason == "STORE_UNAVAILABLE"
            assert "full" in refused.message
            assert not store.writable
            assert {job.uid for job in heard.resets[-1].jobs} >= set(kept)
            assert len(await store.read(lambda reader: reader.live_jobs())) >= len(kept)
            remount(disk, "size=60m")
            await eventually(lambda: store.writable)
            kept.append((await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))).uid)
        async with started_store(disk / "state") as (again, _):
            assert {job.uid for job in again.snapshot().jobs} >= set(kept)


@pytest.mark.needs_root
def test_a_store_on_a_full_disk_says_so_when_it_is_opened(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "rest").write_bytes(b"x" * (1024 * 1024 - 3 * 4096))
        with pytest.raises(StoreError) as refused:
            Store.open(disk / "state")
        assert "full" in str(refused.value) or "No space" in str(refused.value)
        assert list((disk / "state").glob("*corrupt*")) == []


@pytest.mark.needs_root
async def test_a_read_only_disk_is_refused_in_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk:
        async with started_store(disk / "state"):
            pass
        remount(disk, "ro")
        with pytest.raises(StoreError, match="Read-only") as refused:
            Store.open(disk / "state")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "fault",
    [
        "fdatasync:error=EIO:when=9..12",
        "fdatasync:error=EIO:when=10+7",
        "pwrite64:error=EIO:when=60..64",
        "pwrite64:error=ENOSPC:when=40..90",
    ],
)
@pytest.mark.system
def test_errors_of_the_disk_lose_nothing_that_was_acknowledged(tmp_path: Path, fault: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    state = tmp_path / "state"
    asyncio.run(open_and_close(state))
    process = child(state, 4, "strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"inject={fault}")
    lines: list[str] = []
    try:
        lines += read_until(process, lambda seen: len(acknowledged(seen)) >= 150)
    finally:
        lines += kill(process)
    assert "INJECTED" in (tmp_path / "trace").read_text()
    assert "no STORE_UNAVAILABLE" in lines
    check(state, lines)
    # And what it says to be on disk can be opened by the next one.
    asyncio.run(open_and_close(state))


def test_a_log_cut_off_anywhere_keeps_what_came_before(tmp_path: Path) -> None:
    """A power cut may leave any beginning of what was not synced: each must open, without a gap."""
    process = child(tmp_path / "state", 4)
    try:
        lines = read_until(process, lambda seen: len(acknowledged(seen)) >= 40)
    finally:
        lines += kill(process)
    log = (tmp_path / "state" / "store.db-wal").read_bytes()
    cuts = random.Random(1)
    last = 0
    schema = range(WAL_HEADER, WAL_HEADER + 60 * WAL_FRAME, WAL_FRAME)  # each end of a page of the first commits
    for size in sorted({*schema, *cuts.sample(range(len(log)), 15)}):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        shutil.copy(tmp_path / "state" / "store.db", copy)
        (copy / "store.db-wal").write_bytes(log[:size])
        connection = sqlite3.connect(copy / "store.db")
        made = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'service'").fetchone()[0]
        (revision,) = connection.execute("SELECT revision FROM service").fetchone() if made else (0,)
        connection.close()
        if made:  # else the cut came before the schema: an empty file, which is what was there at that moment
            check(copy, [])
        assert revision >= last
        last = revision
