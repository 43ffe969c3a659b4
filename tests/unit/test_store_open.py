from __future__ import annotations

import os
import socket
import sqlite3
import stat
from pathlib import Path

import pytest
from edbjobs_server.core.states import EventType
from edbjobs_server.store import Store, StoreError, database
from edbjobs_server.store.queries import QUERIES
from edbjobs_server.store.state_folder import Lock, network_file_system
from support.store_jobs import new_job, started_store

MOUNTS = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:30 / /mnt/data rw - nfs4 server:/export rw
31 30 254:1 / /mnt/data/local rw - xfs /dev/vdb rw
32 21 0:32 / /mnt/with\\040space rw shared:1 - cifs //server/share rw
33 21 0:33 / /mnt/ssh rw - fuse.sshfs user@host: rw
34 21 254:2 / /mnt/over rw - ext4 /dev/vdc rw
35 21 0:35 / /mnt/over rw - lustre mgs:/fs rw
36 21 0:36 / /mnt/fuse rw - fuse.bindfs /x rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me/state", None),
        ("/mnt/data", "nfs4"),
        ("/mnt/data/state", "nfs4"),
        ("/mnt/data/local/state", None),
        ("/mnt/database", None),
        ("/mnt/with space/state", "cifs"),
        ("/mnt/ssh/state", "fuse.sshfs"),
        ("/mnt/over/state", "lustre"),
        ("/mnt/fuse/state", None),
    ],
)
def test_network_file_systems_are_recognised(path: str, expected: str | None) -> None:
    assert network_file_system(Path(path), MOUNTS) == expected


def test_this_machine_can_be_asked(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None


def test_a_state_folder_on_a_network_is_refused_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"30 21 0:30 / {tmp_path} rw - nfs server:/export rw\n")
    monkeypatch.setattr("edbjobs_server.store.state_folder._MOUNTINFO", mounts)
    with pytest.raises(StoreError, match="network file system") as refused:
        Store.open(tmp_path / "state")
    text = str(refused.value)
    assert "(nfs)" in text
    assert "--state-dir must be a local folder" in text
    assert "\n" not in text


async def test_everything_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    old = os.umask(0)
    try:
        async with started_store(folder) as (store, _):
            await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files(folder)}
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600, "lock": 0o600}


async def test_a_second_service_is_refused_by_host_and_pid(tmp_path: Path) -> None:
    async with started_store(tmp_path):
        with pytest.raises(StoreError) as refused:
            Store.open(tmp_path)
        text = str(refused.value)
        assert socket.gethostname() in text
        assert f"pid {os.getpid()}" in text
        assert "\n" not in text
    async with started_store(tmp_path):
        pass


def test_what_cannot_be_opened_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(tmp_path)
    Lock(tmp_path / "lock").release()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store.open(tmp_path / "file" / "state")


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with started_store(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreError, match=r"newer edbjobs \(schema 999, this release reads up to 3\)"):
        Store.open(tmp_path)
    assert [path.name for path in files(tmp_path)] == ["lock", "store.db"]


async def test_a_store_from_before_the_contract_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with started_store(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(
        StoreError, match=r"before edbjobs had its contract \(schema 2, this release reads from 3\)"
    ) as no:
        Store.open(tmp_path)
    assert "move store.db* away, or choose another --state-dir" in str(no.value)
    assert "\n" not in str(no.value)
    assert [path.name for path in files(tmp_path)] == ["lock", "store.db"]


async def test_an_upgrade_keeps_a_copy_of_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started_store(tmp_path) as (store, _):
        await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
    steps = {**database.migrations(), 4: "CREATE TABLE more (x);"}
    monkeypatch.setattr(database, "migrations", lambda: steps)
    async with started_store(tmp_path) as (again, _):
        assert len(again.snapshot().jobs) == 1
        assert again.store_id == store.store_id
    (copy,) = files(tmp_path, "store.db.schema3-*")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    connection = sqlite3.connect(copy)
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    connection.close()


async def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started_store(tmp_path):
        pass
    steps = {**database.migrations(), 4: "CREATE TABLE more (x); CREATE TABLE more (x);"}
    with monkeypatch.context() as patch:
        patch.setattr(database, "migrations", lambda: steps)
        with pytest.raises(StoreError, match="already exists"):
            Store.open(tmp_path)
    async with started_store(tmp_path):
        pass


def test_a_start_looks_at_live_jobs_only(tmp_path: Path) -> None:
    """However many have ended: a million of them took ten seconds."""
    connection = database.open_checked(tmp_path / "store.db")
    plan = connection.execute(f"EXPLAIN QUERY PLAN {QUERIES['live_jobs']}").fetchall()
    connection.close()
    assert [step[-1] for step in plan] == ["SEARCH jobs USING INDEX jobs_state (state<?)"]


def files(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(folder.glob(pattern))


def crash(folder: Path) -> None:
    """Leave a store as a service does that was killed."""
    connection = sqlite3.connect(folder / "store.db")
    connection.execute("UPDATE service SET clean = 0")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def test_a_corrupt_store_is_kept_and_never_replaced_by_an_empty_one(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        await store.write_all([lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED)] * 100)
    crash(tmp_path)
    path = tmp_path / "store.db"
    data = bytearray(path.read_bytes())
    data[5 * 4096 : 12 * 4096] = b"\xff" * (7 * 4096)
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(StoreError, match="edbjobs doctor --rebuild") as refused:
            Store.open(tmp_path)
        assert "\n" not in str(refused.value)
        (aside,) = files(tmp_path, "store.db.corrupt-*Z")
        assert str(aside) in str(refused.value)
        assert aside.read_bytes() == data
        assert not path.exists()


def test_a_file_that_is_no_store_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"something else\n" * 1000)
    with pytest.raises(StoreError, match="doctor --rebuild"):
        Store.open(tmp_path)
    (aside,) = tmp_path.glob("store.db.corrupt-*")
    assert aside.read_bytes().startswith(b"something else")


async def test_the_check_is_only_made_after_an_unclean_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started_store(tmp_path):
        pass
    checks: list[str] = []
    plain = database.connect

    def traced(path: Path) -> sqlite3.Connection:
        connection = plain(path)
        connection.set_trace_callback(lambda text: checks.append(text) if "quick_check" in text else None)
        return connection

    monkeypatch.setattr(database, "connect", traced)
    async with started_store(tmp_path):
        pass
    assert checks == []
    crash(tmp_path)
    async with started_store(tmp_path):
        pass
    assert len(checks) == 1


async def test_a_large_store_is_not_checked_so_that_a_start_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with started_store(tmp_path):
        pass
    crash(tmp_path)
    monkeypatch.setattr(database, "CHECK_BYTES", 1)
    async with started_store(tmp_path):
        assert "too large to be checked" in caplog.text


async def test_a_crash_while_a_store_is_put_aside_leaves_no_log_for_another_one(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (store, _):
        await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))
        copy = (tmp_path / "store.db").read_bytes()
        log = (tmp_path / "store.db-wal").read_bytes()
    (tmp_path / "store.db").rename(tmp_path / "store.db.corrupt-20260101T000000.000000Z")
    (tmp_path / "store.db-wal").write_bytes(log)
    with pytest.raises(StoreError, match="is corrupt and was kept as"):
        Store.open(tmp_path)
    assert files(tmp_path, "store.db-wal") == []
    assert len(files(tmp_path, "store.db.corrupt-*-wal")) == 1, "nothing is deleted"
    (tmp_path / "store.db").write_bytes(copy)
    database.open_checked(tmp_path / "store.db").close()
