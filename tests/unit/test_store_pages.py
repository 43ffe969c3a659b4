from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import jobs_messages_pb2
from edbjobs.v1.job_pb2 import JOB_VIEW_BASIC, JOB_VIEW_FULL
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs.v1.job_state_pb2 import JobState
from edbjobs_server.contract.codec import job_to_message, timestamp
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job, Outcome
from edbjobs_server.core.states import EventType, Evidence, Reason, State
from edbjobs_server.store import pages
from edbjobs_server.store.database import open_checked
from edbjobs_server.store.filters import JobMatcher, labels_text, where
from edbjobs_server.store.reader import Reader
from edbjobs_server.store.transaction import Transaction
from edbjobs_server.store.writer_state import read_state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.store_jobs import config_of, new_job

Filter = jobs_messages_pb2.JobFilter
EVERYTHING = Filter()


def by_states(*states: int, **others: Any) -> Filter:
    wanted = Filter(**others)
    wanted.states.extend(map(JobState.ValueType, states))
    return wanted


def insert(sql: sqlite3.Connection, jobs: Sequence[Job]) -> list[Job]:
    sql.execute("BEGIN IMMEDIATE")
    tx = Transaction(sql, read_state_in(sql), 1.7e9)
    made = [tx.insert(job, EventType.JOB_QUEUED) for job in jobs]
    tx.flush()
    sql.execute("COMMIT")
    return made


def read_state_in(sql: sqlite3.Connection) -> Any:
    sql.execute("COMMIT")
    state = read_state(sql)
    sql.execute("BEGIN IMMEDIATE")
    return state


def all_pages(reader: Reader, wanted: Filter, size: int, newest_first: bool = False) -> list[str]:
    found: list[str] = []
    token = ""
    for _ in range(10_000):
        page = reader.page(wanted, token, size, newest_first)
        assert len(page.jobs) <= size
        found += [job.uid for job in page.jobs]
        token = page.next_token
        if not token:
            return found
    raise AssertionError("the pages do not end")


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_checked(tmp_path / "store.db")
    connection.execute("PRAGMA synchronous = OFF")
    yield connection
    connection.close()


@pytest.fixture
def reader(sql: sqlite3.Connection) -> Reader:
    return Reader(sql, "store")


STATES = list(State)
WORDS = st.sampled_from(["", "a", "b", 'a"', "a, b", "ä\n[", "['a', 'b']"])
LABELS = st.dictionaries(st.sampled_from(["k", "l", 'k"']), WORDS, max_size=2)
PROJECTS = st.sampled_from(["/p/x.aedb", "/p/x.aedt", "/p/y.aedb"])
TIMES = st.integers(0, 6).map(lambda number: 1.7e9 + number)


def job_of(
    state: State, user: str, batch: str, labels: dict[str, str], project: str, created: float, id: str, also: int
) -> Job:
    values: dict[str, Any] = {"held": also % 2 == 0}
    if state.terminal:
        outcome = Outcome(Reason(1 + also % 2), Evidence.NONE)
        values = {"id": id, "end_time": created + also, "outcome": outcome, "held": also == 0}
        values["superseded_by"] = "another" if also == 2 else ""
    config = config_of(project_path=project, batch=batch, labels=labels)
    job = new_job(config, state=state, user=user, create_time=created, **values)
    return replace(job, spec=replace(job.spec, scheduler="slurm" if also == 1 else "local"))


JOBS = st.builds(
    job_of,
    st.sampled_from(STATES),
    WORDS,
    WORDS,
    LABELS,
    PROJECTS,
    TIMES,
    st.sampled_from(["x", "y"]),
    st.integers(0, 3),
)
BOUND = st.none() | TIMES.map(timestamp)
FILTERS = st.builds(
    Filter,
    jobs=st.lists(st.sampled_from([JobRef(id="x"), JobRef(id="y"), JobRef(id="z"), JobRef(uid="no")]), max_size=2),
    states=st.lists(st.sampled_from([int(state) for state in STATES]), max_size=3),
    ended=st.none() | st.booleans(),
    held=st.none() | st.booleans(),
    end_reasons=st.lists(st.sampled_from([1, 2]), max_size=1),
    users=st.lists(WORDS, max_size=2) | st.just([str(number) for number in range(100)] + ["a", "b"]),
    batches=st.lists(WORDS, max_size=2),
    labels=LABELS,
    project_path=st.just("") | PROJECTS,
    schedulers=st.lists(st.sampled_from(["local", "slurm", "pbs"]), max_size=2),
    create_time_from=BOUND,
    create_time_before=BOUND,
    end_time_from=BOUND,
    end_time_before=BOUND,
    include_superseded=st.booleans(),
)


@given(st.lists(JOBS, max_size=25), st.lists(FILTERS, min_size=1, max_size=8), st.integers(1, 7), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_and_matcher_find_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    jobs: list[Job],
    filters: list[Filter],
    size: int,
    newest_first: bool,
) -> None:
    connection = open_checked(tmp_path_factory.mktemp("pages") / "store.db")
    try:
        made = insert(connection, jobs)
        newest = {job.id: job.uid for job in made}
        for wanted in filters:
            if made and wanted.jobs:
                wanted.jobs.append(JobRef(uid=made[0].uid))
            by_uid = Filter()
            by_uid.CopyFrom(wanted)
            for ref in by_uid.jobs:  # in a list, an id is its newest job
                if ref.id:
                    ref.CopyFrom(JobRef(uid=newest.get(ref.id, "none")))
            matches = JobMatcher(by_uid)
            expected = [
                job.uid for job in made if matches(job_to_message(job)) and (wanted.ByteSize() or not job.superseded_by)
            ]
            found = all_pages(Reader(connection, "store"), wanted, size, newest_first)
            assert found == (expected[::-1] if newest_first else expected), wanted
            total = Reader(connection, "store").page(wanted).total
            assert total in (None, len(expected))
    finally:
        connection.close()


def test_an_id_is_its_newest_job_in_a_list_and_each_of_them_in_a_watch(sql: sqlite3.Connection, reader: Reader) -> None:
    made = insert(sql, [new_job(id="x", state=State.FAILED, end_time=1.0) for _ in range(2)])
    wanted = Filter(jobs=[JobRef(id="x")])
    assert all_pages(reader, wanted, 5) == [made[1].uid]
    assert [job.uid for job in made if JobMatcher(wanted)(job_to_message(job))] == [job.uid for job in made]


@pytest.mark.parametrize("number", [0, 3, 9])
def test_superseded_jobs_are_left_out_unless_asked_for(
    sql: sqlite3.Connection, reader: Reader, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(pages, "MAX_SCAN", 5)
    old = [new_job(state=State.FAILED, end_time=1.0, superseded_by="x") for _ in range(number)]
    insert(sql, [*old, new_job(), new_job(state=State.COMPLETED, end_time=2.0)])
    assert len(all_pages(reader, EVERYTHING, 2)) == 2
    assert len(all_pages(reader, Filter(include_superseded=True), 2)) == 2 + number
    assert len(all_pages(reader, Filter(ended=True), 2)) == 1
    page = reader.page(EVERYTHING)
    assert page.total == 2
    assert reader.page(Filter(include_superseded=True)).total == 2 + number
    assert reader.page(Filter(ended=True, include_superseded=True)).total == 1 + number
    assert reader.page(Filter(ended=True, states=[JobState.ValueType(State.QUEUED)])).total == 0
    assert reader.page(Filter(ended=False)).total == 1


def test_jobs_of_no_batch_are_found_beside_those_of_one(sql: sqlite3.Connection, reader: Reader) -> None:
    made = insert(sql, [new_job(config_of(batch=batch)) for batch in ("", "b", "c")])
    assert all_pages(reader, Filter(batches=["", "b"]), 2) == [job.uid for job in made[:2]]


def test_a_job_that_was_named_is_found_superseded_or_not(sql: sqlite3.Connection, reader: Reader) -> None:
    (old,) = insert(sql, [new_job(state=State.FAILED, end_time=1.0, superseded_by="x")])
    assert all_pages(reader, Filter(jobs=[JobRef(uid=old.uid)]), 2) == [old.uid]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    "wanted",
    [
        Filter(users=["rare"]),
        by_states(2, 5, users=["rare"]),
        by_states(2, 5, labels={"k": "rare"}),
        Filter(labels={"k": "rare"}),
        Filter(create_time_from=timestamp(1.7e9 + 90), create_time_before=timestamp(1.7e9 + 110)),
        Filter(create_time_from=timestamp(1.7e9), labels={"k": "rare"}),
    ],
    ids=str,
)
def test_a_bounded_scan_misses_nothing(
    sql: sqlite3.Connection, reader: Reader, monkeypatch: pytest.MonkeyPatch, wanted: Filter, newest_first: bool
) -> None:
    monkeypatch.setattr(pages, "MAX_SCAN", 7)
    rare = {3, 50, 51, 99, 100, 101, 199}
    made = insert(
        sql,
        [
            new_job(
                config_of(labels={"k": "rare"} if number in rare else {}),
                user="rare" if number in rare else "often",
                state=State.COMPLETED if number % 3 == 0 else State.QUEUED,
                end_time=1.0,
                create_time=1.7e9 + (number * 37) % 200,
            )
            for number in range(200)
        ],
    )
    matches = JobMatcher(wanted)
    expected = [job.uid for job in made if matches(job_to_message(job))]
    assert expected
    assert all_pages(reader, wanted, 3, newest_first) == (expected[::-1] if newest_first else expected)


def test_a_scan_that_finds_nothing_goes_on_on_the_next_page(
    sql: sqlite3.Connection, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_SCAN", 10)
    insert(sql, [new_job() for _ in range(30)])
    page = reader.page(Filter(labels={"no": "such"}))
    assert page.jobs == []
    assert page.next_token


def test_jobs_accepted_meanwhile_come_last_and_the_revision_stays(sql: sqlite3.Connection, reader: Reader) -> None:
    made = insert(sql, [new_job() for _ in range(4)])
    first = reader.page(EVERYTHING, size=3)
    later = insert(sql, [new_job()])
    second = reader.page(EVERYTHING, first.next_token, 3)
    assert [job.uid for job in first.jobs + second.jobs] == [job.uid for job in made + later]
    assert (first.revision, second.revision) == (4, 4)


def test_total_is_told_without_filter_and_by_state(sql: sqlite3.Connection, reader: Reader) -> None:
    made = insert(sql, [new_job() for _ in range(5)])
    sql.execute("BEGIN IMMEDIATE")
    tx = Transaction(sql, read_state_in(sql), 1.7e9)
    tx.put(replace(made[0], state=State.FAILED, end_time=1.0), EventType.JOB_FAILED)
    tx.delete(made[1])
    tx.flush()
    sql.execute("COMMIT")
    assert reader.page(EVERYTHING, size=1).total == 4
    assert reader.page(by_states(State.FAILED, State.FAILED)).total == 1
    assert reader.page(by_states(State.QUEUED, State.RUNNING)).total == 3
    assert reader.page(Filter(users=["a"])).total is None


@pytest.mark.parametrize("size", [0, 1, 1_000, 5_000])
def test_page_size_is_bounded(sql: sqlite3.Connection, reader: Reader, size: int) -> None:
    insert(sql, [new_job() for _ in range(1_100)])
    assert len(reader.page(EVERYTHING, size=size).jobs) == {0: 50, 5_000: 1_000}.get(size, size)


def test_a_page_is_cut_before_it_is_too_large_for_a_message(sql: sqlite3.Connection, reader: Reader) -> None:
    made = insert(sql, [new_job(config_of(environment={"ANS_X": "x" * 1_000_000})) for _ in range(5)])
    page = reader.page(EVERYTHING)
    assert len(page.jobs) == 3
    assert sum(job.ByteSize() for job in page.jobs) <= pages.MAX_BYTES
    assert all_pages(reader, EVERYTHING, 5) == [job.uid for job in made]
    assert len(reader.page(EVERYTHING, view=JOB_VIEW_BASIC).jobs) == 5


def test_one_job_too_large_for_a_page_is_still_given(sql: sqlite3.Connection, reader: Reader) -> None:
    insert(sql, [new_job(config_of(environment={"ANS_X": "x" * 4_000_000})) for _ in range(2)])
    assert len(reader.page(EVERYTHING).jobs) == 1


def test_a_basic_job_has_of_its_config_what_a_table_shows(sql: sqlite3.Connection, reader: Reader) -> None:
    shown = {"batch": "b", "labels": {"k": "v"}, "design": "d", "setup": "s"}
    (made,) = insert(sql, [new_job(config_of(**shown, cores=4, environment={"ANS_X": "secret"}), warnings=("w",))])
    (job,) = reader.page(EVERYTHING, view=JOB_VIEW_BASIC).jobs
    assert job.config == config_of(**shown)
    assert (list(job.attempts), list(job.warnings), job.view) == ([], [], JOB_VIEW_BASIC)
    (whole,) = reader.page(EVERYTHING, view=JOB_VIEW_FULL).jobs
    assert whole == job_to_message(made)
    assert whole.config.environment == {"ANS_X": "secret"}


def test_pages_of_one_list_may_have_different_sizes(sql: sqlite3.Connection, reader: Reader) -> None:
    made = insert(sql, [new_job() for _ in range(6)])
    first = reader.page(EVERYTHING, size=1)
    second = reader.page(EVERYTHING, first.next_token, size=3)
    third = reader.page(EVERYTHING, second.next_token, size=100)
    assert [job.uid for page in (first, second, third) for job in page.jobs] == [job.uid for job in made]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token[:-4],
        lambda token: "BBBB" + token[4:],
        lambda token: "x",
        lambda token: "ünïcode",
        lambda token: "=" * 8,
        lambda token: "%%%%",
    ],
)
def test_a_token_that_was_tampered_with_is_refused(sql: sqlite3.Connection, reader: Reader, spoil: Any) -> None:
    insert(sql, [new_job() for _ in range(2)])
    token = reader.page(EVERYTHING, size=1).next_token
    assert reader.page(EVERYTHING, token, 1).jobs
    with pytest.raises(Refused, match="start again without a token") as refused:
        reader.page(EVERYTHING, spoil(token), 1)
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


def test_a_token_counts_for_its_own_filter_order_and_store_only(sql: sqlite3.Connection, reader: Reader) -> None:
    insert(sql, [new_job() for _ in range(2)])
    token = reader.page(EVERYTHING, size=1).next_token
    with pytest.raises(Refused):
        reader.page(Filter(users=["a"]), token)
    with pytest.raises(Refused):
        reader.page(EVERYTHING, token, newest_first=True)
    with pytest.raises(Refused):
        Reader(sql, "another").page(EVERYTHING, token)


def test_pages_of_many_jobs_use_an_index(sql: sqlite3.Connection) -> None:
    """No plan may sort, or go through all jobs for what an index serves."""
    for wanted, index in (
        (Filter(users=["a"]), "jobs_user"),
        (by_states(2, users=["a"]), "jobs_user"),
        (Filter(batches=["b"], users=["a"]), "jobs_batch"),
        (Filter(project_path="/p", batches=["b"]), "jobs_project"),
        (by_states(2), "jobs_state"),
    ):
        found = where(wanted)
        conditions = [found.drivers[0], *found.rest]
        text = " AND ".join(condition.text for condition in conditions)
        values = [value for condition in conditions for value in condition.values]
        plan = sql.execute(
            f"EXPLAIN QUERY PLAN SELECT seq, job FROM jobs WHERE {text} AND seq > 5 ORDER BY seq", values
        )
        (detail,) = [row[3] for row in plan]
        assert f"USING INDEX {index} " in detail, detail


def test_a_page_of_many_jobs_is_no_more_work_than_one_of_few(sql: sqlite3.Connection, reader: Reader) -> None:
    made = insert(sql, [new_job(user=f"user{number % 7}") for number in range(300)])
    few = steps(sql, lambda: second_page(reader))
    made += insert(sql, [new_job(user=f"user{number % 7}") for number in range(20_000)])
    many = steps(sql, lambda: second_page(reader))
    assert second_page(reader).jobs[-1].uid == made[-200].uid
    assert 0 < many < 2 * few


def second_page(reader: Reader) -> pages.Page:
    token = reader.page(EVERYTHING, size=100, newest_first=True).next_token
    return reader.page(EVERYTHING, token, 100, newest_first=True)


def steps(sql: sqlite3.Connection, work: Callable[[], object]) -> int:
    """Count the steps that SQLite takes, ten at a time."""
    taken = itertools.count()
    sql.set_progress_handler(lambda: next(taken) * 0, 10)
    work()
    sql.set_progress_handler(None, 10)
    return next(taken)


@given(LABELS, st.tuples(st.sampled_from(["k", "l", 'k"']), WORDS))
def test_a_label_is_found_as_text_only_if_it_is_there(labels: dict[str, str], pair: tuple[str, str]) -> None:
    assert (labels_text([pair]) in labels_text(labels.items())) == (labels.get(pair[0]) == pair[1])


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ({"batches": ["b"]}, "jobs_batch"),
        ({"users": ["u"]}, "jobs_user"),
        ({"project_path": "/p"}, "jobs_project"),
        ({"states": [5]}, "jobs_state"),
    ],
)
def test_each_filter_is_served_by_its_index(tmp_path: Path, values: dict[str, Any], index: str) -> None:
    connection = open_checked(tmp_path / "store.db")
    (driver,) = where(Filter(**values)).drivers
    text = f"EXPLAIN QUERY PLAN SELECT seq, job FROM jobs WHERE {driver.text} AND seq > 7 ORDER BY seq LIMIT 100"
    plan = connection.execute(text, driver.values).fetchall()
    connection.close()
    assert len(plan) == 1, "and nothing is sorted"
    assert f"USING INDEX {index} " in plan[0][-1]
