"""What a cluster's executor tells of a run, whatever the scheduler answers or does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from edbjobs_server.core.runs import Ending, OpenRun, Reachability, RunEnded, RunNote, RunScheduled, RunStarted
from edbjobs_server.executors.schedulers.base import Phase
from support.cluster_runs import KEY, Scene, spec


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Scene(tmp_path) as made:
        await made.update(Reachability, responding=True)
        yield made


async def scheduled(scene: Scene) -> str:
    await scene.submit()
    return (await scene.update(RunScheduled)).scheduler_job_id


async def running(scene: Scene) -> str:
    job = await scheduled(scene)
    scene.job_starts(job)
    scene.scheduler.set(job, Phase.RUNNING, "RUNNING", nodes=("n1", "n2"), start_time=1.0)
    await scene.update(RunStarted)
    return job


def open_run(job: str = "", *, started: bool = False, grace: float | None = None) -> OpenRun:
    name = spec().allocation.name  # type: ignore[union-attr]
    return OpenRun(KEY, "boot", grace, started, scheduler_job_id=job, name=name)


async def test_a_run_from_submit_to_end(scene: Scene) -> None:
    job = await running(scene)
    started = await scene.update(RunStarted)
    assert (started.pid, started.nodes) == (4711, ("n1", "n2"))
    scene.exits(0)
    scene.scheduler.set(job, Phase.ENDED, "COMPLETED", ending=Ending.EXITED, exit_code=0, end_time=9.0)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code, ended.by_scheduler) == (Ending.EXITED, 0, False)
    assert ended.start_time is not None
    assert 9.0 < ended.start_time <= ended.time  # both by the node's clock, not the scheduler's
    assert [scene.told(kind) for kind in (RunScheduled, RunStarted, RunEnded)] == [1, 1, 1]


async def test_a_start_is_told_by_the_run_before_the_scheduler_is_asked(tmp_path: Path) -> None:
    async with Scene(tmp_path, interval=60.0, floor=0.5) as scene:
        await scene.update(Reachability, responding=True)
        job = await scheduled(scene)
        scene.job_starts(job)
        assert (await scene.update(RunStarted)).nodes == ("n1", "n2")


async def test_an_end_that_the_bulk_query_does_not_explain_is_looked_at(scene: Scene) -> None:
    scene.scheduler.vague = True
    job = await running(scene)
    scene.scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=3)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code, ended.by_scheduler) == (Ending.EXITED, 3, True)


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (Ending.CANCELLED_EXTERNALLY, Ending.CANCELLED_EXTERNALLY),
        (Ending.NODE_FAIL, Ending.NODE_FAIL),
        (Ending.OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (Ending.PREEMPTED, Ending.PREEMPTED),
        (Ending.TIMEOUT, Ending.TIMEOUT),
    ],
)
async def test_the_schedulers_word_decides(scene: Scene, ending: Ending, told: Ending) -> None:
    job = await running(scene)
    scene.exits(0, "TERM")  # a program that takes TERM for a reason to end well
    scene.scheduler.set(job, Phase.ENDED, ending.name, ending=ending)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.by_scheduler) == (told, True)
    assert ending.name in ended.message


async def test_what_the_scheduler_wrote_makes_a_vague_end_precise(scene: Scene) -> None:
    job = await running(scene)
    scene.prints("*** CANCELLED DUE TO TIME LIMIT ***")
    scene.scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.SIGNALLED, signal=9)
    assert (await scene.update(RunEnded)).ending is Ending.TIMEOUT


async def test_a_refused_submit_ends_with_the_schedulers_words(scene: Scene) -> None:
    scene.scheduler.refuses = "sbatch: error: invalid partition specified: nosuch"
    await scene.submit()
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.SUBMIT_REFUSED
    assert "invalid partition specified: nosuch" in ended.message
    assert scene.told(RunScheduled) == 0


async def test_a_submit_that_happened_without_an_answer_is_found(scene: Scene) -> None:
    scene.scheduler.swallows = "Socket timed out on send/recv operation"
    job = await scheduled(scene)
    assert list(scene.scheduler.table) == [job]
    assert not (await scene.update(Reachability, responding=False)).responding


async def test_a_submit_that_did_not_happen_is_called_off_after_two_denials(scene: Scene) -> None:
    scene.scheduler.loses = "Socket timed out on send/recv operation"
    await scene.submit()
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.NEVER_RAN
    assert scene.scheduler.asked.count("find") >= 2
    assert scene.told(RunScheduled) == 0
    assert (scene.folder / "claim").read_text().startswith("kind=void")  # should it turn up after all


async def test_twins_are_cancelled_and_the_one_that_runs_is_kept(scene: Scene) -> None:
    scene.scheduler.silent = "no answer"
    await scene.submit()
    await scene.was_asked("submit")
    name = spec().allocation.name  # type: ignore[union-attr]
    first, second = scene.scheduler.add(name), scene.scheduler.add(name)
    scene.job_starts(second)
    scene.scheduler.set(second, Phase.RUNNING, "RUNNING", nodes=("n1",))
    scene.scheduler.silent = ""
    await scene.executor.adopt([])  # asks soon
    assert (await scene.update(RunScheduled, scheduler_job_id=second)).scheduler_job_id == second
    scene.scheduler.set(second, Phase.ENDED, "COMPLETED", ending=Ending.EXITED, exit_code=0)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED
    assert second not in [job for job, _ in scene.scheduler.cancelled]
    assert first != second


async def test_the_end_of_a_twin_is_not_the_end_of_the_run(scene: Scene) -> None:
    job = await scheduled(scene)
    twin = scene.scheduler.add(spec().allocation.name)  # type: ignore[union-attr]
    scene.job_starts(twin)
    scene.scheduler.set(twin, Phase.RUNNING, "RUNNING", nodes=("n1",))
    scene.scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=113)
    await scene.update(RunScheduled, scheduler_job_id=twin)
    assert scene.told(RunEnded) == 0
    scene.scheduler.set(twin, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=2)
    assert (await scene.update(RunEnded)).exit_code == 2


# A scheduler that does not answer ---------------------------------------------------------------------------


async def test_nothing_is_concluded_while_the_scheduler_is_silent(scene: Scene) -> None:
    job = await running(scene)
    scene.scheduler.silent = "Unable to contact slurm controller (connect failure)"
    scene.exits(0)
    reach = await scene.update(Reachability, responding=False, error=scene.scheduler.silent)
    assert reach.since_time > 0
    assert scene.told(RunEnded) == 0
    scene.scheduler.silent = ""
    scene.scheduler.set(job, Phase.ENDED, "COMPLETED", ending=Ending.EXITED, exit_code=0)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED


async def test_an_answer_without_the_job_is_no_end_until_it_was_denied_twice(tmp_path: Path) -> None:
    async with Scene(tmp_path, confirm=0.5) as scene:
        await scene.update(Reachability, responding=True)
        job = await running(scene)
        kept = scene.scheduler.table.pop(job)
        await scene.asked("look", 3)
        assert scene.told(RunEnded) == 0
        scene.scheduler.table[job] = kept  # it was a gap in the answers
        await scene.asked("poll", 2)
        del scene.scheduler.table[job]
        await scene.asked("look", 2)
        assert scene.told(RunEnded) == 0


async def test_a_reused_id_is_not_our_job(scene: Scene) -> None:
    job = await running(scene)
    scene.exits(0)
    scene.scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=1, name="somebody-elses")
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code) == (Ending.EXITED, 0)


# Its own record decides where the scheduler knows it no longer --------------------------------------------


async def test_purged_with_an_exit_on_record(scene: Scene) -> None:
    job = await running(scene)
    scene.exits(7)
    del scene.scheduler.table[job]
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code, ended.by_scheduler) == (Ending.EXITED, 7, False)


async def test_purged_after_a_signal_is_no_success(scene: Scene) -> None:
    job = await running(scene)
    scene._write("signal", "signal=TERM time=1")
    scene.exits(0)
    del scene.scheduler.table[job]
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.signal) == (Ending.SIGNALLED, 15)


async def test_purged_with_the_schedulers_own_line(scene: Scene) -> None:
    job = await running(scene)
    scene.prints("slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-11-23T13:08:02 DUE TO TIME LIMIT ***")
    scene.exits(0)
    del scene.scheduler.table[job]
    assert (await scene.update(RunEnded)).ending is Ending.TIMEOUT


async def test_purged_without_an_end_is_lost_once_its_heart_stands_still(scene: Scene) -> None:
    job = await running(scene)
    scene.beats()
    del scene.scheduler.table[job]
    beating = asyncio.create_task(_beat(scene))
    await scene.asked("look", 8)
    assert scene.told(RunEnded) == 0
    beating.cancel()
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.LOST
    assert ended.start_time is not None


@pytest.mark.parametrize(
    ("name", "ending", "number"),
    [("TERM", Ending.SIGNALLED, 15), ("XCPU", Ending.SIGNALLED, 24), ("USR1", Ending.LOST, None)],
)
async def test_purged_without_an_end_after_a_signal(
    scene: Scene, name: str, ending: Ending, number: int | None
) -> None:
    """A scheduler that asked for its end has killed it; USR1 can be a warning long before."""
    job = await running(scene)
    scene._write("signal", f"signal={name} time=1")
    del scene.scheduler.table[job]
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.signal) == (ending, number)
    assert ended.start_time is not None


async def _beat(scene: Scene) -> None:
    while True:
        scene.beats()
        await asyncio.sleep(0.02)


async def test_gone_before_it_began_is_lost_and_can_begin_no_more(scene: Scene) -> None:
    job = await scheduled(scene)
    del scene.scheduler.table[job]
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.start_time) == (Ending.LOST, None)
    assert (scene.folder / "claim").read_text().startswith("kind=void")


async def test_a_damaged_claim_proves_nothing(scene: Scene) -> None:
    job = await scheduled(scene)
    (scene.folder / "claim").write_text("kind=ru")
    del scene.scheduler.table[job]
    assert (await scene.update(RunEnded)).ending is Ending.LOST
    assert (scene.folder / "claim").read_text() == "kind=ru"


# Whether it answers ----------------------------------------------------------------------------------------


async def test_one_that_answers_only_a_probe_does_not_answer(scene: Scene) -> None:
    await running(scene)
    scene.updates.clear()
    scene.scheduler.silent_about = "poll"
    reach = await scene.update(Reachability, responding=False)
    scene.updates.clear()
    await scene.asked("probe", 3)
    assert scene.executor.reach == reach
    assert scene.told(Reachability) == 0
    scene.scheduler.silent_about = ""
    assert (await scene.update(Reachability)).responding


async def test_a_fault_of_ours_is_told_and_goes_by(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = await running(scene)
    scene.updates.clear()
    with monkeypatch.context() as patch:
        patch.setattr(scene.scheduler, "poll", lambda: int("odd"))
        reach = await scene.update(Reachability, responding=False)
        assert "ValueError" in reach.error
        assert "could not be dealt with" in caplog.text
    scene.updates.clear()
    assert (await scene.update(Reachability)).responding
    scene.scheduler.set(job, Phase.ENDED, "COMPLETED", ending=Ending.EXITED, exit_code=0)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED


# Waiting ----------------------------------------------------------------------------------------------------


async def test_what_can_never_run_is_told_once(scene: Scene) -> None:
    job = await scheduled(scene)
    scene.scheduler.set(job, Phase.PENDING, "PENDING", reason="PartitionTimeLimit", never=True)
    note = await scene.update(RunNote)
    assert "PartitionTimeLimit" in note.text
    await scene.asked("poll", 2)
    assert scene.told(RunNote) == 1
    status = scene.executor.status(KEY)
    assert status is not None
    assert status.never


async def test_a_requeued_run_is_not_run_again(scene: Scene) -> None:
    job = await running(scene)
    scene.scheduler.set(job, Phase.PENDING, "PENDING", reason="BeginTime")
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.NODE_FAIL
    assert "put it back into its queue" in ended.message
    assert scene.scheduler.cancelled == [(job, False)]


async def test_a_second_start_of_the_same_job_counts_as_requeued(scene: Scene) -> None:
    job = await running(scene)
    scene.is_dup(job, restart=1)
    scene.scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=113)
    assert (await scene.update(RunEnded)).ending is Ending.NODE_FAIL


async def test_a_node_that_does_not_see_the_project_says_so(scene: Scene) -> None:
    job = await scheduled(scene)
    scene.claims(job)
    scene.refuses("node n1 does not see /data")
    scene.scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=114)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.message) == (Ending.START_FAILED, "node n1 does not see /data")


# Cancel -----------------------------------------------------------------------------------------------------


async def test_cancel_of_a_waiting_run_ends_it_at_once(scene: Scene) -> None:
    job = await scheduled(scene)
    await scene.executor.cancel(KEY, 30.0)
    assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
    assert scene.scheduler.cancelled == [(job, False)]


async def test_cancel_of_a_running_run_waits_for_its_end_and_then_kills(scene: Scene) -> None:
    job = await running(scene)
    await scene.executor.cancel(KEY, 0.2)
    await scene.asked("cancel", 2)
    assert scene.scheduler.cancelled[:2] == [(job, False), (job, True)]
    assert scene.told(RunEnded) == 0
    scene.scheduler.set(job, Phase.ENDED, "CANCELLED", ending=Ending.CANCELLED_EXTERNALLY)
    assert (await scene.update(RunEnded)).ending is Ending.CANCELLED


async def test_cancel_while_the_scheduler_is_silent_is_done_when_it_answers(scene: Scene) -> None:
    job = await scheduled(scene)
    scene.scheduler.silent = "no answer"
    await scene.executor.cancel(KEY, 30.0)
    await scene.update(Reachability, responding=False)
    assert scene.told(RunEnded) == 0
    scene.scheduler.silent = ""
    await scene.executor.cancel(KEY, 30.0)
    assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
    assert scene.scheduler.cancelled == [(job, False)]


async def test_cancel_before_the_submit_submits_nothing(scene: Scene) -> None:
    await scene.submit()
    await scene.executor.cancel(KEY, 30.0)
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.NEVER_RAN
    assert all(status.phase is Phase.ENDED for status in scene.scheduler.table.values())


async def test_cancel_of_an_unanswered_submit_finds_and_ends_it(scene: Scene) -> None:
    scene.scheduler.swallows = "timed out"
    await scene.submit()
    await scene.was_asked("submit")
    await scene.executor.cancel(KEY, 30.0)
    assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
    assert [job for job, _ in scene.scheduler.cancelled] == ["1"]


# Another service takes over ---------------------------------------------------------------------------------


async def test_a_run_is_adopted_with_its_id(scene: Scene) -> None:
    job = await running(scene)
    await scene.restart()
    await scene.executor.adopt([open_run(job, started=True)])
    scene.exits(0)
    scene.scheduler.set(job, Phase.ENDED, "COMPLETED", ending=Ending.EXITED, exit_code=0)
    assert (await scene.update(RunEnded)).exit_code == 0
    assert scene.told(RunStarted) == 0
    assert scene.told(RunScheduled) == 0


async def test_a_run_is_adopted_by_its_name_if_the_id_was_not_recorded(scene: Scene) -> None:
    job = await scheduled(scene)
    await scene.restart()
    await scene.executor.adopt([open_run()])
    assert (await scene.update(RunScheduled)).scheduler_job_id == job
    assert len(scene.scheduler.table) == 1


async def test_a_reserved_run_without_a_script_never_ran(scene: Scene) -> None:
    await scene.executor.adopt([open_run()])
    assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN


async def test_an_end_while_nobody_watched_is_found(scene: Scene) -> None:
    job = await running(scene)
    await scene.executor.close()
    scene.exits(3)
    del scene.scheduler.table[job]
    await scene.restart()
    await scene.executor.adopt([open_run(job, started=True)])
    assert (await scene.update(RunEnded)).exit_code == 3


async def test_a_wanted_end_is_asked_for_again_after_a_restart(scene: Scene) -> None:
    job = await running(scene)
    await scene.restart()
    await scene.executor.adopt([open_run(job, started=True, grace=30.0)])
    await scene.asked("cancel")
    assert scene.scheduler.cancelled[-1] == (job, False)


async def test_a_run_folder_that_cannot_be_made_fails_the_start(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    async with Scene(tmp_path) as scene:
        await scene.update(Reachability, responding=True)
        await scene.submit()
        ended = await scene.update(RunEnded)
        assert ended.ending is Ending.START_FAILED
        assert str(tmp_path) in ended.message
        assert scene.scheduler.table == {}
