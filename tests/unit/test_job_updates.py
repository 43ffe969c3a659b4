"""Updates: of which jobs they are sent, when, and that they are computed once for all watchers, and only for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from edbjobs.v1 import convergence_pb2, job_state_pb2, jobs_messages_pb2
from edbjobs_server.core import transitions
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.states import Waiting
from edbjobs_server.manager import job_updates
from edbjobs_server.manager.clusters import Clusters
from edbjobs_server.manager.job_updates import Feed, JobUpdates
from edbjobs_server.manager.waiting_reasons import WaitingReasons
from edbjobs_server.store.filters import JobMatcher
from support.core_jobs import Lab, changed, make_job, reserved, running

Filter = jobs_messages_pb2.JobFilter


class Bench:
    """Updates of a core, round by round as the test wants them, with progress as the test says."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.passes: dict[str, int] = {}
        self.woken = 0
        self.has_woken = asyncio.Event()
        progress: Any = SimpleNamespace(progress_of=self._progress_of, waits_for_license=lambda uid: False)
        reasons = WaitingReasons(lab.core, Clusters({}, lab.core, False), progress)
        self.updates = JobUpdates(lab.core, reasons, self._wake)

    def _progress_of(self, uid: str) -> convergence_pb2.JobProgress | None:
        return convergence_pb2.JobProgress(current_pass=self.passes[uid]) if uid in self.passes else None

    def _wake(self) -> None:
        self.woken += 1
        self.has_woken.set()

    def feed(self, **wanted: Any) -> Feed:
        selected = Filter(**wanted)
        return self.updates.feed(JobMatcher(selected), selected.SerializeToString(deterministic=True))

    async def round(self) -> None:
        await self.updates._compute()


def taken(feed: Feed, revision: int = 1) -> dict[str, jobs_messages_pb2.JobUpdate]:
    message = jobs_messages_pb2.WatchJobsResponse.FromString(feed.take(revision))
    assert not message.events, "an update has no event"
    return {update.uid: update for update in message.updates}


def reasons(feed: Feed) -> dict[str, int]:
    return {uid: int(update.waiting.reason) for uid, update in taken(feed).items()}


@pytest.fixture
def bench() -> Bench:
    """One job runs, one is held, one waits for that project, and two for their turn."""
    lab = Lab(limits=Limits(max_local_jobs=1))
    lab.put(
        running(make_job(1)), make_job(2, held=True), make_job(3, project="/p/1"), make_job(4), make_job(5, priority=-1)
    )
    return Bench(lab)


async def test_a_new_watcher_gets_what_runs_and_what_waits_for_something_of_its_own(bench: Bench) -> None:
    first = bench.feed()
    assert taken(first) == {}, "nothing has been computed yet"
    await bench.round()
    expected = {"u0001": 0, "u0002": Waiting.HELD, "u0003": Waiting.PROJECT_BUSY}
    assert reasons(first) == expected
    assert reasons(bench.feed()) == expected, "whenever it comes"
    assert taken(first) == {}, "once"
    await bench.round()
    assert taken(first) == {}, "nothing has changed"


async def test_a_job_that_waits_for_its_turn_again_says_so_once(bench: Bench) -> None:
    feed = bench.feed()
    await bench.round()
    taken(feed)
    bench.lab.put(changed(transitions.release(bench.lab.jobs["job2"])))
    await bench.round()
    assert reasons(feed) == {"u0002": Waiting.JOB_LIMIT}
    bench.lab.put(make_job(6, priority=9))
    await bench.round()
    assert reasons(feed) == {}, "how it gets on in the queue is no update"
    assert "u0002" not in taken(bench.feed())


async def test_the_number_of_jobs_before_alone_is_no_change(bench: Bench) -> None:
    feed = bench.feed()
    await bench.round()
    assert taken(feed)["u0003"].waiting.jobs_before == 1
    bench.lab.put(make_job(7, priority=9))
    await bench.round()
    assert "u0003" not in taken(feed)
    assert taken(bench.feed()).keys() >= {"u0003"}


async def test_progress_comes_with_the_number_of_its_attempt(bench: Bench) -> None:
    feed = bench.feed()
    await bench.round()
    assert not taken(feed)["u0001"].HasField("progress")
    bench.passes["u0001"] = 3
    await bench.round()
    update = taken(feed)["u0001"]
    assert (update.attempt, update.progress.current_pass) == (1, 3)
    assert not update.HasField("waiting")
    assert not update.HasField("usage"), "not known"
    bench.passes["u0001"] = 4
    await bench.round()
    assert taken(feed)["u0001"].progress.current_pass == 4


async def test_a_job_without_an_open_attempt_has_no_number(bench: Bench) -> None:
    feed = bench.feed()
    await bench.round()
    assert taken(feed)["u0002"].attempt == 0


async def test_nothing_of_a_job_that_has_ended_or_changed_since(bench: Bench) -> None:
    feed = bench.feed()
    await bench.round()
    bench.lab.end("job1")
    held = bench.lab.jobs["job2"]
    bench.lab.put(replace(held, priority=3, revision=held.revision + 1))
    assert taken(feed, revision=2).keys() == {"u0003"}
    await bench.round()
    assert reasons(feed).keys() == {"u0002", "u0003"}, "a change of a job makes its update new"


async def test_a_filter_selects_updates_of_jobs_that_agree_now(bench: Bench) -> None:
    waiting = bench.feed(states=[job_state_pb2.JOB_STATE_QUEUED])
    runs = bench.feed(states=[job_state_pb2.JOB_STATE_RUNNING])
    await bench.round()
    assert taken(waiting).keys() == {"u0002", "u0003"}
    assert taken(runs).keys() == {"u0001"}
    bench.lab.end("job1")
    bench.lab.put(reserved(bench.lab.jobs["job4"]))
    await bench.round()
    assert reasons(waiting)["u0004"] == Waiting.STARTING
    assert taken(runs) == {}
    job = bench.lab.jobs["job4"]
    bench.lab.put(changed(transitions.started(job, 1, 12.0, 7, ("h",))))
    await bench.round()
    assert taken(waiting).keys() & {"u0004"} == set()
    assert taken(runs).keys() == {"u0004"}


async def test_watchers_at_one_place_share_the_bytes(bench: Bench) -> None:
    await bench.round()
    first, second = bench.feed().take(1), bench.feed().take(1)
    assert first is second
    assert bench.feed(states=[job_state_pb2.JOB_STATE_RUNNING]).take(1) is not first
    for revision in range(2, 3 * job_updates.MAX_BUILT):
        bench.feed().take(revision)
    assert len(bench.updates.built) == job_updates.MAX_BUILT


async def test_a_message_is_bounded_and_the_rest_follows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_updates, "MAX_BYTES", 60)
    bench.lab.put(*(make_job(seq, held=True) for seq in range(10, 30)))
    feed, found = bench.feed(), list[str]()
    await bench.round()
    while update := taken(feed):
        found += update
        if len(found) == 2:  # the others are found as they are then
            bench.lab.put(changed(transitions.cancel(bench.lab.jobs["job25"], 1.0, None)))
    assert len(found) == len(set(found)) == 22
    assert "u0025" not in found


async def test_a_watcher_that_missed_many_rounds_gets_the_last_of_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.updates, "_changed", type(bench.updates._changed)(maxlen=3))
    feed = bench.feed()
    await bench.round()
    taken(feed)
    for number in range(10):
        bench.passes["u0001"] = number
        await bench.round()
    assert taken(feed)["u0001"].progress.current_pass == 9
    assert taken(feed) == {}


async def test_computed_once_a_second_and_only_while_somebody_wants_updates(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    rounds = 0
    pause = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await pause(0)

    async def compute() -> None:
        nonlocal rounds
        rounds += 1

    monkeypatch.setattr(job_updates, "asyncio", SimpleNamespace(sleep=sleep, create_task=asyncio.create_task))
    monkeypatch.setattr(bench.updates, "_compute", compute)
    feeds = [bench.feed() for _ in range(3)]
    for _ in range(5):
        await pause(0)
    assert rounds == 0, "nobody has opened one"
    for feed in feeds:
        feed.open()
    while rounds < 5:
        await pause(0)
    assert set(slept) == {job_updates.PERIOD_SECONDS} == {1.0}
    assert len(slept) == rounds or len(slept) == rounds - 1, "one computation for all"
    for feed in feeds:
        feed.close()
    await pause(0)
    after = rounds
    for _ in range(5):
        await pause(0)
    assert rounds == after
    assert bench.updates.latest == {}, "and nothing is kept"


async def test_watchers_are_woken_only_by_changes(bench: Bench) -> None:
    await bench.round()
    assert bench.woken == 1
    await bench.round()
    assert bench.woken == 1
    bench.passes["u0001"] = 1
    await bench.round()
    assert bench.woken == 2


async def test_a_round_that_fails_is_repeated_and_delays_no_watch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edbjobs_server.util.keep_running.Backoff", lambda first: SimpleNamespace(next=lambda: 0.0))
    compute = bench.updates._compute
    failures = [ValueError("once")]

    async def fail_once() -> None:
        if failures:
            raise failures.pop()
        await compute()

    monkeypatch.setattr(bench.updates, "_compute", fail_once)
    feed = bench.feed()
    feed.open()
    assert taken(feed) == {}, "it does not wait for the first round"
    await asyncio.wait_for(bench.has_woken.wait(), 10)
    feed.close()
    assert "computing updates of jobs failed" in caplog.text
