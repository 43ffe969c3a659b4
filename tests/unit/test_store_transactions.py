from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from edbjobs.v1 import event_pb2, job_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.contract.codec import job_to_message
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import INITIAL_LIMITS, Limits
from edbjobs_server.core.states import EventType, State
from edbjobs_server.store.database import open_checked
from edbjobs_server.store.errors import Duplicate
from edbjobs_server.store.reader import Reader
from edbjobs_server.store.transaction import Transaction
from edbjobs_server.store.writer_state import read_state
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.store_jobs import new_job

IDS = st.sampled_from(["a", "b", "c"])
REQUESTS = st.sampled_from(["", "r1", "r2", "r3", "r4"])


class Oops(Exception):
    pass


def fail_if(wanted: bool) -> None:
    if wanted:
        raise Oops


class StoreMachine(RuleBasedStateMachine):
    """Commands in commits, some of which fail, against plain dictionaries."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.sql = open_checked(Path(self.folder.name) / "store.db")
        self.sql.execute("PRAGMA synchronous = OFF")
        self.state = read_state(self.sql)
        self.jobs: dict[str, Job] = {}  # the model: by uid, in order of seq
        self.requests: dict[str, str] = {}
        self.revision = 0
        self.paused = False
        self.limits = INITIAL_LIMITS
        self.events: list[tuple[int, EventType, str]] = []
        self.begin()

    def begin(self) -> None:
        self.sql.execute("BEGIN IMMEDIATE")
        self.tx = Transaction(self.sql, self.state, 1.7e9)

    def kept(self) -> tuple[object, ...]:
        return dict(self.jobs), dict(self.requests), self.revision, self.paused, self.limits, list(self.events)

    def restore(self, kept: tuple[object, ...]) -> None:
        self.jobs, self.requests, self.revision, self.paused, self.limits, self.events = kept  # type: ignore[assignment]

    def event(self, type: EventType, uid: str = "") -> int:
        self.revision += 1
        self.events.append((self.revision, type, uid))
        return self.revision

    def newest(self, id: str) -> Job | None:
        found = [job for job in self.jobs.values() if job.id == id]
        return max(found, key=lambda job: job.seq) if found else None

    @rule(id=IDS, request_id=REQUESTS, fail=st.booleans())
    def insert(self, id: str, request_id: str, fail: bool) -> None:
        kept, job = self.kept(), new_job(id=id, requested_by="ann", request_id=request_id, digest=b"d")
        taken = any(other.id == id and not other.state.terminal for other in self.jobs.values())
        try:
            with self.tx.request_scope():
                if taken or request_id in self.requests:
                    with pytest.raises(Duplicate):
                        self.tx.insert(job, EventType.JOB_QUEUED)
                else:
                    made = self.tx.insert(job, EventType.JOB_QUEUED)
                    assert made.revision == self.event(EventType.JOB_QUEUED, job.uid)
                    assert made.seq > max((other.seq for other in self.jobs.values()), default=0)
                    self.jobs[job.uid] = made
                    if request_id:
                        self.requests[request_id] = job.uid
                fail_if(fail)
        except Oops:
            self.restore(kept)

    @rule(data=st.data(), state=st.sampled_from([State.RUNNING, State.FAILED, State.QUEUED]), fail=st.booleans())
    def put(self, data: st.DataObject, state: State, fail: bool) -> None:
        if not self.jobs:
            return
        kept, job = self.kept(), data.draw(st.sampled_from(list(self.jobs.values())))
        state = job.state if job.state.terminal else state
        end = 1.7e9 if state.terminal else None
        try:
            with self.tx.request_scope():
                made = self.tx.put(replace(job, state=state, end_time=end), EventType.JOB_NOTE)
                assert made.revision == self.event(EventType.JOB_NOTE, job.uid)
                self.jobs[job.uid] = made
                fail_if(fail)
        except Oops:
            self.restore(kept)

    @rule(data=st.data(), fail=st.booleans())
    def delete(self, data: st.DataObject, fail: bool) -> None:
        ended = [job for job in self.jobs.values() if job.state.terminal]
        if not ended:
            return
        kept, job = self.kept(), data.draw(st.sampled_from(ended))
        try:
            with self.tx.request_scope():
                self.tx.delete(job)
                self.event(EventType.JOB_DELETED, job.uid)
                del self.jobs[job.uid]
                with pytest.raises(Refused):
                    self.tx.put(job, EventType.JOB_NOTE)
                fail_if(fail)
        except Oops:
            self.restore(kept)

    @rule(paused=st.booleans(), cores=st.integers(0, 3), fail=st.booleans())
    def settings(self, paused: bool, cores: int, fail: bool) -> None:
        kept = self.kept()
        try:
            with self.tx.request_scope():
                if paused != self.paused:
                    self.event(EventType.QUEUE_PAUSED if paused else EventType.QUEUE_RESUMED)
                self.tx.set_paused(paused)
                self.tx.set_limits(Limits(max_cores=cores))
                self.event(EventType.LIMITS_UPDATED)
                self.paused, self.limits = paused, Limits(max_cores=cores)
                fail_if(fail)
        except Oops:
            self.restore(kept)

    @rule()
    def commit(self) -> None:
        self.tx.flush()
        self.sql.execute("COMMIT")
        self.check_disk()
        self.begin()

    @invariant()
    def finds_what_the_model_has(self) -> None:
        for uid, job in self.jobs.items():
            assert self.tx.find(uid) == job
        for id in ("a", "b", "c", "no such id"):
            assert self.tx.newest(id) == self.newest(id)
        for request_id in ("r1", "r2", "r3", "r4"):
            assert self.tx.request("bob", request_id) is None
            found = self.tx.request("ann", request_id)
            assert (found[0] if found else None) == self.requests.get(request_id)
        assert (self.tx.paused, self.tx.limits, self.tx.revision) == (self.paused, self.limits, self.revision)

    def check_disk(self) -> None:
        read = read_state(self.sql)
        assert read == self.state
        assert list(read.jobs.values()) == [job for job in self.jobs.values() if not job.state.terminal]
        reader = Reader(self.sql, read.store_id)
        for job in self.jobs.values():
            assert reader.job_bytes(JobRef(uid=job.uid)) is not None
            assert reader.job(job.uid) == job
            assert job_pb2.Job.FromString(reader.job_bytes(JobRef(uid=job.uid)) or b"") == job_to_message(job)
        on_disk = [event_pb2.WatchEvent.FromString(data) for _, data in reader.events(0, 10_000, 2**30)]
        found = [(e.revision, name_of(e.job_change.type), e.job_change.job.uid) for e in on_disk]
        assert found == [(revision, kind.name if uid else "", uid) for revision, kind, uid in self.events]
        assert [e.revision for e in on_disk] == list(range(1, self.revision + 1))
        counted: dict[int, int] = {}
        for job in self.jobs.values():
            counted[job.state] = counted.get(job.state, 0) + 1
        assert reader.counts() == counted

    def teardown(self) -> None:
        if hasattr(self, "sql"):
            self.sql.close()
            self.folder.cleanup()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.fixture
def sql(tmp_path: Path) -> sqlite3.Connection:
    return open_checked(tmp_path / "store.db")


def test_a_refused_command_within_a_command_leaves_nothing_behind(sql: sqlite3.Connection) -> None:
    state = read_state(sql)
    tx = Transaction(sql, state, 1.0)

    def refused(tx: Transaction) -> None:
        tx.insert(new_job(id="gone"), EventType.JOB_QUEUED)
        raise Refused("JOB_ENDED", "no")

    with tx.request_scope():
        first = tx.attempt(lambda tx: tx.insert(new_job(id="stays"), EventType.JOB_QUEUED))
        second = tx.attempt(refused)
    assert isinstance(first, Job)
    assert isinstance(second, Refused)
    assert tx.live_id("gone") is None
    assert [item.revision for item in tx.committed] == [1]


def test_an_outer_failure_undoes_inner_successes(sql: sqlite3.Connection) -> None:
    state = read_state(sql)
    tx = Transaction(sql, state, 1.0)

    def fails_late() -> None:
        with tx.request_scope():
            tx.attempt(lambda tx: tx.insert(new_job(id="a"), EventType.JOB_QUEUED))
            raise Oops

    with pytest.raises(Oops):
        fails_late()
    assert (state.jobs, state.uids, state.revision, tx.committed) == ({}, {}, 0, [])


def test_an_id_that_ended_is_free_within_the_same_commit(sql: sqlite3.Connection) -> None:
    state = read_state(sql)
    sql.execute("BEGIN IMMEDIATE")
    tx = Transaction(sql, state, 1.0)
    first = tx.insert(new_job(id="x"), EventType.JOB_QUEUED)
    tx.flush()
    sql.execute("COMMIT")
    sql.execute("BEGIN IMMEDIATE")
    tx = Transaction(sql, state, 2.0)
    tx.put(replace(first, state=State.FAILED, end_time=2.0), EventType.JOB_FAILED)
    second = tx.insert(new_job(id="x"), EventType.JOB_QUEUED)
    tx.flush()
    sql.execute("COMMIT")
    assert read_state(sql).uids == {"x": second.uid}


def test_a_text_that_cannot_be_stored_spoils_its_own_request_only(sql: sqlite3.Connection) -> None:
    tx = Transaction(sql, read_state(sql), 1.0)
    bad = new_job()
    bad = replace(bad, spec=replace(bad.spec, project_key="/p/\udcff"))
    with pytest.raises(UnicodeEncodeError), tx.request_scope():
        tx.insert(bad, EventType.JOB_QUEUED)
    assert tx.committed == []


@pytest.mark.parametrize("number", [1, 31, 32, 33, 1000])
def test_any_number_of_jobs_fits_in_one_commit(sql: sqlite3.Connection, number: int) -> None:
    state = read_state(sql)
    sql.execute("BEGIN IMMEDIATE")
    tx = Transaction(sql, state, 1.0)
    tx.look_up([f"r{i}" for i in range(number)])
    made = [tx.insert(new_job(requested_by="ann", request_id=f"r{i}"), EventType.JOB_QUEUED) for i in range(number)]
    tx.flush()
    sql.execute("COMMIT")
    assert list(read_state(sql).jobs.values()) == made
    after = Transaction(sql, state, 2.0)
    after.look_up([f"r{i}" for i in range(number + 1)])
    assert [after.request("ann", f"r{i}") for i in range(number)] == [(job.uid, b"") for job in made]
    assert after.request("ann", f"r{number}") is None


def name_of(kind: event_pb2.JobChangeType.ValueType) -> str:
    name = event_pb2.JobChangeType.Name(kind).removeprefix("JOB_CHANGE_TYPE_")
    return "" if name == "UNSPECIFIED" else f"JOB_{name}"
