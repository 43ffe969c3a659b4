"""Ids that are used again, second runs of one job, and answers that come late: each was met on a real SLURM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from edbjobs_server.core.runs import Ending, Reachability, RunEnded, RunNote, RunScheduled, RunStarted
from edbjobs_server.executors.schedulers.base import Phase, Submission
from support.cluster_runs import KEY, Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Scene(tmp_path) as made:
        await made.update(Reachability, responding=True)
        yield made


async def scheduled(scene: Scene) -> str:
    await scene.submit()
    return (await scene.update(RunScheduled)).scheduler_job_id


async def test_a_cancel_spares_the_job_that_has_the_id_now(tmp_path: Path) -> None:
    async with Scene(tmp_path, interval=60.0) as scene:
        job = await scheduled(scene)
        scene.scheduler.table[job] = replace(scene.scheduler.table[job], name="foreign")
        await scene.executor.cancel(KEY, 30.0)
        assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
        assert scene.scheduler.cancelled == []


async def test_a_cancel_waits_where_nothing_can_be_told_of_the_job(tmp_path: Path) -> None:
    async with Scene(tmp_path, interval=60.0) as scene:
        job = await scheduled(scene)
        scene.scheduler.knows_nothing = True
        await scene.executor.cancel(KEY, 30.0)
        await scene.update(Reachability, responding=False)
        assert (scene.told(RunEnded), scene.scheduler.cancelled) == (0, [])
        scene.scheduler.knows_nothing = False
        await scene.executor.cancel(KEY, 30.0)
        assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
        assert scene.scheduler.cancelled == [(job, False)]


@pytest.mark.parametrize("code", [0, 3])
async def test_the_first_run_decides_where_the_controller_began_the_job_again(scene: Scene, code: int) -> None:
    job = await scheduled(scene)
    scene.job_starts(job)
    await scene.update(RunStarted)
    scene.is_dup(job)
    scene.scheduler.set(job, Phase.ENDED, "FAILED", ending=Ending.EXITED, exit_code=113)
    beats = asyncio.create_task(beat(scene))
    await scene.asked("poll", 5)
    assert scene.told(RunEnded) == 0
    beats.cancel()
    scene.exits(code)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code) == (Ending.EXITED, code)


async def beat(scene: Scene) -> None:
    while True:
        scene.beats()
        await asyncio.sleep(0.02)


async def test_each_reason_why_it_will_never_start_is_told_once(scene: Scene) -> None:
    job = await scheduled(scene)
    for reason in ("PartitionConfig", "PartitionTimeLimit", "PartitionConfig"):
        scene.scheduler.set(job, Phase.PENDING, "PENDING", reason=reason, never=True)
        await scene.asked("poll", 2)
    notes = [update.text for update in scene.updates if isinstance(update, RunNote)]
    assert len(notes) == 2
    assert "PartitionTimeLimit" in notes[1]


async def test_a_start_is_told_after_the_id_even_if_the_submit_is_not_answered_yet(scene: Scene) -> None:
    answer = asyncio.Event()
    submit = scene.scheduler.submit

    async def late(submission: Submission) -> str:
        run_id = await submit(submission)
        await answer.wait()
        return run_id

    scene.scheduler.submit = late  # type: ignore[method-assign]
    await scene.submit()
    await scene.was_asked("submit")
    scene.job_starts("1")
    await scene.update(RunStarted)
    answer.set()
    await scene.asked("poll", 2)
    told = [type(update) for update in scene.updates if isinstance(update, RunScheduled | RunStarted)]
    assert told[:2] == [RunScheduled, RunStarted]
