from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1.job_pb2 import Job
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.core.states import EventType, Evidence, Reason, State
from edbjobs_server.executors.local import record
from edbjobs_server.store import Reader, Store, StoreError
from edbjobs_server.store.rebuild import project_key, rebuild
from edbjobs_server.store.state_folder import Lock
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_jobs import config_of, new_job, started_store

CONFIG = config_of(project_path="/p/x.aedb", cores=3, memory_bytes=5 << 20, labels={"k": "v"}, batch="b")
INFO = {
    "id": "mine",
    "user": "me",
    "project": "/p/x.aedb",
    "priority": "4",
    "create_time": "1700000000.5",
    "config": CONFIG.SerializeToString(deterministic=True).hex(),
}
END = {"t": "end", "code": None, "signal": None, "time": 30.0, "cpu": 1.5, "rss": 9, "message": ""}
START = {"t": "start", "pid": 77, "ticks": 1, "time": 20.0}


def write_run(
    runs: Path,
    seq: int,
    attempt: int,
    lines: list[Mapping[str, Any]],
    info: Mapping[str, str] = INFO,
    kind: str = "run",
) -> Path:
    folder = runs / f"{seq // 1000:06d}" / f"{seq}.{attempt}"
    facts = {
        "kind": kind,
        "host": "h",
        "boot": "b-1",
        "pidns": "",
        "pid": 5,
        "ticks": 6,
        "seq": seq,
        "uid": f"u{seq}",
        "attempt": attempt,
        "keep": [],
        "info": dict(info),
    }
    file = record.claim(str(folder), facts)
    assert file is not None
    for line in lines:
        record.append(file, line)
    os.close(file)
    return folder


def uid_of(reader: Reader, id: str) -> str:
    return Job.FromString(reader.job_bytes(JobRef(id=id)) or b"").uid


async def test_an_open_run_stays_open_to_be_taken_over(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", 1234, 2, [START, {"t": "cancel", "grace": 7, "time": 25.0}])
    write_run(tmp_path / "runs", 1234, 1, [START, {**END, "ending": "signalled", "signal": 11}])
    report = rebuild(tmp_path / "state", tmp_path / "runs")
    assert (report.jobs, report.live, report.damaged, report.kept) == (1, 1, (), "")
    async with started_store(tmp_path / "state") as (store, _):
        (job,) = store.snapshot().jobs
        assert (job.uid, job.seq, job.id, job.user, job.priority) == ("u1234", 1234, "mine", "me", 4)
        assert (job.state, job.create_time, job.start_time) == (State.RUNNING, 1700000000.5, 20.0)
        assert (job.cancel_request_time, job.cancel_grace_period, job.run_directory) == (25.0, 7.0, str(folder))
        assert (job.spec.cores, job.spec.memory_bytes, job.spec.batch) == (3, 5 << 20, "b")
        assert (job.spec.labels, job.spec.project_key) == ((("k", "v"),), "/p/x")
        first, last = job.attempts
        assert first.outcome is not None
        assert (first.outcome.reason, first.outcome.signal, first.end_time) == (Reason.SIGNAL, 11, 30.0)
        assert (last.number, last.boot_id, last.pid, last.nodes) == (2, "b-1", 77, ("h",))
        assert job.open_attempt == last
        assert (await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))).seq == 1235


@pytest.mark.parametrize(
    ("ending", "code", "reason", "evidence"),
    [
        ("exited", 0, Reason.NORMAL, Evidence.EXIT_CODE),
        ("exited", 3, Reason.EXIT_CODE, Evidence.EXIT_CODE),
        ("signalled", None, Reason.SIGNAL, Evidence.EXIT_CODE),
        ("cancelled", None, Reason.CANCELLED, Evidence.SERVICE),
        ("timeout", None, Reason.TIMEOUT, Evidence.SERVICE),
        ("start_failed", None, Reason.START_FAILED, Evidence.SERVICE),
        ("lost", None, Reason.LOST, Evidence.NONE),
        ("never_ran", None, Reason.LOST, Evidence.NONE),
    ],
)
async def test_an_ended_run_tells_how_its_job_ended(
    tmp_path: Path, ending: str, code: int | None, reason: Reason, evidence: Evidence
) -> None:
    write_run(tmp_path / "runs", 7, 1, [START, {**END, "ending": ending, "code": code}])
    assert rebuild(tmp_path / "state", tmp_path / "runs").live == 0
    async with started_store(tmp_path / "state") as (store, _):
        job = await store.read(lambda reader: reader.job(uid_of(reader, "mine")))
        assert job is not None
        assert job.outcome is not None
        assert (job.state, job.outcome.reason, job.outcome.evidence) == (reason.state, reason, evidence)
        assert (job.end_time, job.outcome.exit_code) == (30.0, code)
        assert job.outcome.message.startswith("rebuilt from the record")


async def test_a_run_that_was_claimed_and_not_started_may_still_start(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", 7, 1, [])
    write_run(tmp_path / "runs", 8, 1, [], kind="void", info={**INFO, "id": "void"})
    assert rebuild(tmp_path / "state", tmp_path / "runs").live == 1
    async with started_store(tmp_path / "state") as (store, _):
        (job,) = store.snapshot().jobs
        assert (job.state, job.open_attempt is not None) == (State.QUEUED, True)
        void = await store.read(lambda reader: reader.job(uid_of(reader, "void")))
        assert void is not None
        assert void.outcome is not None
        assert (void.state, void.outcome.reason) == (State.FAILED, Reason.LOST)
        assert void.outcome.evidence is Evidence.NONE


async def test_what_tells_too_little_is_named_and_its_number_not_given_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    good = write_run(runs, 1, 1, [START])
    damaged = [
        write_run(runs, 2, 1, [], info={}),
        write_run(runs, 3, 1, [], info={**INFO, "config": "zz"}),
        write_run(runs, 4, 1, [], info={**INFO, "config": "ffff"}),
        write_run(runs, 5, 1, [{**END, "ending": "something new"}]),
    ]
    empty = runs / "000000" / "9.1"
    empty.mkdir()
    (empty / "record").write_text("half a li")
    (runs / "000000" / "notes.txt").write_text("")
    report = rebuild(tmp_path / "state", runs)
    assert sorted(report.damaged) == sorted(map(str, [*damaged, empty]))
    assert report.jobs == 1
    async with started_store(tmp_path / "state") as (store, _):
        assert [job.run_directory for job in store.snapshot().jobs] == [str(good)]
        assert (await store.write(lambda tx: tx.insert(new_job(), EventType.JOB_QUEUED))).seq == 10


async def test_a_request_id_that_was_used_twice_belongs_to_the_newest(tmp_path: Path) -> None:
    """It may be: a week after the first."""
    for seq in (1, 2, 3):
        info = {**INFO, "id": f"j{seq}", "requested_by": "ann", "request_id": "again" if seq < 3 else ""}
        write_run(tmp_path / "runs", seq, 1, [START, {**END, "ending": "exited", "code": 0}], info=info)
    report = rebuild(tmp_path / "state", tmp_path / "runs")
    assert (report.jobs, report.damaged) == (3, ())
    assert "never ran" in report.note
    async with started_store(tmp_path / "state") as (store, _):
        assert await store.write(lambda tx: tx.request("ann", "again")) == ("u2", b"")


async def test_a_job_that_another_one_retries_is_superseded(tmp_path: Path) -> None:
    for seq, retry_of in ((1, ""), (2, "u1"), (3, "u-lost")):
        info = {**INFO, "retry_of": retry_of}
        write_run(tmp_path / "runs", seq, 1, [START, {**END, "ending": "exited", "code": 0}], info=info)
    rebuild(tmp_path / "state", tmp_path / "runs")
    async with started_store(tmp_path / "state") as (store, _):
        jobs = [await store.read(partial(Reader.job, uid=uid)) for uid in ("u1", "u2", "u3")]
        assert [(job.retry_of, job.superseded_by) for job in jobs if job] == [("", "u2"), ("u1", ""), ("u-lost", "")]


async def test_a_copy_of_a_run_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", 1, 1, [START])
    shutil.copytree(folder, folder.with_name("2.1"))
    shutil.copytree(folder, tmp_path / "runs" / "000001" / "1.1")
    report = rebuild(tmp_path / "state", tmp_path / "runs")
    assert report.jobs == 1
    assert len(report.damaged) == 2


@pytest.mark.parametrize(
    "lines",
    [
        [{**END, "ending": "something new"}],
        [{**START, "time": 253402300800.0}],
        [START, {"t": "cancel", "grace": 7, "time": 253402300800.0}],
    ],
)
async def test_one_damaged_record_does_not_take_the_others_of_its_job_along(
    tmp_path: Path, lines: list[Mapping[str, Any]]
) -> None:
    write_run(tmp_path / "runs", 1, 1, [START, {**END, "ending": "exited", "code": 3}])
    bad = write_run(tmp_path / "runs", 1, 2, lines)
    report = rebuild(tmp_path / "state", tmp_path / "runs")
    assert (report.jobs, report.damaged) == (1, (str(bad),))
    async with started_store(tmp_path / "state") as (store, _):
        job = await store.read(lambda reader: reader.job(uid_of(reader, "mine")))
        assert job is not None
        assert job.outcome is not None
        assert (job.outcome.exit_code, job.outcome.evidence) == (3, Evidence.NONE)
        assert "damaged" in job.outcome.message


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
INFO_NAMES = [*INFO, "requested_by", "request_id", "retry_of", "digest", "aedt_version", "demo"]


@st.composite
def records(draw: st.DrawFn) -> tuple[str, bytes, bool]:
    """Folder and content of a record, and whether it is as the service writes it."""
    seq, attempt = draw(st.integers(1, 6)), draw(st.integers(1, 2))
    request_id = draw(st.sampled_from(["", "r"]))
    claim: dict[str, Any] = {
        "t": "claim",
        "format": 1,
        "time": 10.0,
        "kind": draw(st.sampled_from(["run", "void"])),
        "host": "h",
        "boot": "b",
        "pidns": "",
        "pid": 5,
        "ticks": 6,
        "seq": seq,
        "uid": f"u{seq}",
        "attempt": attempt,
        "keep": [],
        "info": (info := {**INFO, "request_id": request_id}),
    }
    endings = ["exited", "signalled", "cancelled", "timeout", "start_failed", "lost", "never_ran"]
    end = {**END, "ending": draw(st.sampled_from(endings))}
    lines: list[dict[str, Any]] = [claim, dict(START), {"t": "cancel", "grace": 7, "time": 25.0}, end]
    lines = lines[: draw(st.integers(1, 4))]
    whole = True
    for _ in range(draw(st.integers(0, 2))):
        whole = False
        line = draw(st.sampled_from([*lines, info]))
        line[draw(st.sampled_from([*line, *(INFO_NAMES if line is info else [])]))] = draw(ODD)
    data = b"".join(b"\n" + json.dumps(line).encode() + b"\n" for line in lines)
    if draw(st.integers(0, 9)) == 0:
        whole = False
        data = data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=20))
    name = f"{seq}.{attempt}"
    if draw(st.integers(0, 9)) == 0:
        whole = False
        name = draw(st.sampled_from(["\u00b2.1", "9223372036854775807.1", "0.0", "7.4294967296", "5.99999999999"]))
    return name, data, whole


@given(st.lists(records(), max_size=8, unique_by=lambda item: item[0]))
@settings(max_examples=150, deadline=None)
def test_whatever_the_records_say_there_is_a_store_and_a_report(found: list[tuple[str, bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, data, _ in found:
            (root / "runs" / "000000" / folder).mkdir(parents=True)
            (root / "runs" / "000000" / folder / "record").write_bytes(data)
        report = rebuild(root / "state", root / "runs")
        store = Store.open(root / "state")
        live = {job.seq for job in store.snapshot().jobs}
        asyncio.run(store.close())
        connection = sqlite3.connect(root / "state" / "store.db")
        on_record = {seq for (seq,) in connection.execute("SELECT seq FROM jobs")}
        connection.close()
        assert (len(on_record), len(live)) == (report.jobs, report.live)
        left_out = {Path(folder).name for folder in report.damaged}
        for folder, _, whole in found:
            if whole:
                assert folder not in left_out
                assert int(folder.partition(".")[0]) in on_record


async def test_two_open_runs_of_one_id_are_both_kept(tmp_path: Path) -> None:
    for seq in (1, 2):
        write_run(tmp_path / "runs", seq, 1, [START])
    assert rebuild(tmp_path / "state", tmp_path / "runs").live == 2
    async with started_store(tmp_path / "state") as (store, _):
        assert [job.id for job in store.snapshot().jobs] == ["mine", "mine.2"]


async def test_the_old_store_is_kept_and_a_new_one_has_another_identity(tmp_path: Path) -> None:
    async with started_store(tmp_path) as (old, _):
        with pytest.raises(StoreError, match="in use"):
            rebuild(tmp_path, tmp_path / "runs")
    report = rebuild(tmp_path, tmp_path / "runs")
    assert report.jobs == 0
    assert (await asyncio.to_thread(Path(report.kept).stat)).st_size > 0
    async with started_store(tmp_path) as (new, _):
        assert new.store_id != old.store_id


async def test_a_rebuild_lets_a_service_with_a_corrupt_store_start_again(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no store" * 1000)
    with pytest.raises(StoreError, match="rebuild"):
        async with started_store(tmp_path):
            pass
    write_run(tmp_path / "runs", 1, 1, [START])
    rebuild(tmp_path, tmp_path / "runs")
    async with started_store(tmp_path) as (store, _):
        assert len(store.snapshot().jobs) == 1
    Lock(tmp_path / "lock").release()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/p/x.aedb", "/p/x"),
        ("/p/x.aedb/", "/p/x"),
        ("/p//./x.AEDT", "/p/x"),
        ("/p/x.aedtz", "/p/x"),
        ("/p/x.txt", "/p/x.txt"),
        ("/p.aedb/x", "/p.aedb/x"),
        ("C:\\p\\.\\x.aedb", "C:\\p\\x"),
        ("", ""),
    ],
)
def test_a_project_is_one_whatever_its_suffix(path: str, expected: str) -> None:
    assert project_key(path) == expected
