"""The adapter on a real SLURM: what it says of a job is what became of the job."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import (
    ClusterJobStatus,
    Phase,
    Scheduler,
    Submission,
    SubmitRefused,
    Unreachable,
)
from edbjobs_server.executors.schedulers.slurm import Slurm
from support.slurm_cluster import PATH, SlurmCluster

pytestmark = pytest.mark.system

DEADLINE = 60.0  # the controller looks at time limits every 30 s
_count = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def slurm(cluster: SlurmCluster) -> Scheduler:
    return Slurm(cluster.env)


def prepared(slurm: Scheduler, folder: Path, body: str, *, output: str = "out.txt", **values: Any) -> Submission:
    """Write a batch script; `values` are those of `Allocation` and `SchedulerOptions`."""
    number = next(_count)
    known = Allocation.__dataclass_fields__
    options = SchedulerOptions(**{name: value for name, value in values.items() if name not in known})
    allocation = replace(
        Allocation(f"edb-t{number}-0123456789abcdef-1", f'edbjobs:uid:Jörg "J" #{number}'),
        options=options,
        **{name: value for name, value in values.items() if name in known},
    )
    script = folder / f"job {number}.sh"
    lines = "".join(f"#SBATCH --{line}\n" for line in slurm.directives(allocation))
    script.write_text(f"#!/bin/bash\n{lines}{body}\n")
    return Submission(allocation, script, folder / output, folder, {"PATH": PATH})


async def started(slurm: Scheduler, folder: Path, body: str, **values: Any) -> tuple[str, str]:
    """Submit; gives id and name."""
    submission = prepared(slurm, folder, body, **values)
    return await slurm.submit(submission), submission.allocation.name


async def until(slurm: Scheduler, id: str, check: Callable[[ClusterJobStatus], bool]) -> ClusterJobStatus:
    end = time.monotonic() + DEADLINE
    while True:
        seen = (await slurm.poll()).get(id)
        if seen and check(seen):
            return seen
        assert time.monotonic() < end, f"waited too long; last seen: {seen}"
        await asyncio.sleep(0.05)


async def closely(slurm: Scheduler, id: str) -> ClusterJobStatus:
    """Look at a job once it has ended."""
    await until(slurm, id, lambda seen: seen.phase is Phase.ENDED)
    seen = (await slurm.look([id]))[id]
    assert seen is not None
    assert seen.phase is Phase.ENDED
    return seen


def running(seen: ClusterJobStatus) -> bool:
    return seen.phase is Phase.RUNNING


async def test_it_answers_with_its_release(slurm: Scheduler) -> None:
    assert (await slurm.probe())[0].isdigit()


async def test_from_submit_to_end(cluster: SlurmCluster, slurm: Scheduler, tmp_path: Path) -> None:
    folder = tmp_path / "a b %j"
    folder.mkdir()
    go = folder / "go"
    body = f"pwd; until [ -e '{go}' ]; do sleep 0.05; done; exit 3"
    submission = prepared(
        slurm,
        folder,
        body,
        nodes=2,
        tasks_per_node=2,
        cores_per_node=4,
        memory_bytes_per_node=100 << 20,
        time_limit=95_400.0,
        priority="low",
    )
    id = await slurm.submit(submission)
    seen = await until(slurm, id, running)
    assert (seen.name, len(seen.nodes)) == (submission.allocation.name, 2)
    assert seen.start_time is not None
    assert abs(seen.start_time - time.time()) < 60
    assert [each.id for each in await slurm.find(seen.name)] == [id]
    (ours,) = [job for job in await slurm.jobs() if job.id == id]
    assert (ours.name, ours.user, ours.partition, ours.state) == (seen.name, "root", "normal", "RUNNING")
    assert (ours.node_count, ours.core_count) == (2, 8)
    normal = next(row for row in await slurm.partitions() if row.name == "normal")
    assert (normal.nodes_total, normal.nodes_used, normal.cores_total, normal.cores_used) == (4, 2, 32, 8)
    shown = cluster.run("scontrol", "-o", "show", "job", id)
    for part in ('Comment=edbjobs:uid:Jörg "J" #', "TimeLimit=1-02:30:00", "Requeue=0", "Nice=200", "CPUs/Task=2"):
        assert part in shown
    go.touch()
    ended = await closely(slurm, id)
    assert (ended.ending, ended.exit_code, ended.name) == (Ending.EXITED, 3, seen.name)
    assert ended.end_time is not None
    assert (folder / "out.txt").read_text() == f"{folder}\n"


@pytest.mark.parametrize(
    ("body", "ending", "exit_code", "number"),
    [
        ("exit 0", Ending.EXITED, 0, None),
        ("exit 137", Ending.EXITED, 137, None),
        ("kill -9 $$", Ending.SIGNALLED, None, 9),
        ("kill -TERM $$", Ending.SIGNALLED, None, 15),
    ],
)
async def test_ends_by_itself(
    slurm: Scheduler, tmp_path: Path, body: str, ending: Ending, exit_code: int | None, number: int | None
) -> None:
    id, _ = await started(slurm, tmp_path, body)
    seen = await closely(slurm, id)
    assert (seen.ending, seen.exit_code, seen.signal) == (ending, exit_code, number)
    assert slurm.end_in_output((tmp_path / "out.txt").read_text()) is None


async def test_cancelled_while_it_runs(slurm: Scheduler, tmp_path: Path) -> None:
    id, _ = await started(slurm, tmp_path, "sleep 60")
    await until(slurm, id, running)
    await slurm.cancel([id, "999999", "--all"])
    assert (await closely(slurm, id)).ending is Ending.CANCELLED_EXTERNALLY
    told = slurm.end_in_output((tmp_path / "out.txt").read_text())
    assert told is not None
    assert told[0] is Ending.CANCELLED_EXTERNALLY
    await slurm.cancel([id])


async def test_killed_though_it_resists(slurm: Scheduler, tmp_path: Path) -> None:
    id, _ = await started(slurm, tmp_path, "trap '' TERM; touch ready; while :; do sleep 0.1; done")
    end = time.monotonic() + DEADLINE
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    await slurm.cancel([id], kill=True)
    assert (await slurm.poll())[id].phase is Phase.ENDING
    assert (await closely(slurm, id)).ending is Ending.CANCELLED_EXTERNALLY


async def test_cancelled_while_it_waits(slurm: Scheduler, tmp_path: Path) -> None:
    id, name = await started(slurm, tmp_path, "exit 0", extra={"begin": "now+1hour"})
    (seen,) = await slurm.find(name)
    assert (seen.phase, seen.never, seen.start_time) == (Phase.PENDING, False, None)
    await slurm.cancel([id])
    ended = await closely(slurm, id)
    assert (ended.ending, ended.start_time, ended.nodes) == (Ending.CANCELLED_EXTERNALLY, None, ())


async def test_memory(slurm: Scheduler, tmp_path: Path) -> None:
    body = "python3 -c 'import time; x = bytearray(300 << 20); time.sleep(60)'"
    id, _ = await started(slurm, tmp_path, body, memory_bytes_per_node=20 << 20)
    assert (await closely(slurm, id)).ending is Ending.SIGNALLED, "without cgroups SLURM does not say it itself"
    told = slurm.end_in_output((tmp_path / "out.txt").read_text())
    assert told is not None
    assert told[0] is Ending.OUT_OF_MEMORY


async def test_a_run_folder_that_is_not_on_the_node(slurm: Scheduler, tmp_path: Path) -> None:
    id, _ = await started(slurm, tmp_path, "exit 0", output="no/such/folder/out.txt")
    seen = await closely(slurm, id)
    assert seen.ending is Ending.START_FAILED
    assert "shared folder" in seen.message


async def test_node_down(cluster: SlurmCluster, slurm: Scheduler, tmp_path: Path) -> None:
    id, _ = await started(slurm, tmp_path, "sleep 60", include_nodes=("n4",))
    await until(slurm, id, running)
    cluster.down_node("n4")
    try:
        assert (await closely(slurm, id)).ending is Ending.NODE_FAIL
    finally:
        cluster.up_node("n4")


async def test_a_drained_node_is_neither_used_nor_free(cluster: SlurmCluster, slurm: Scheduler) -> None:
    cluster.drain_node("n4")
    try:
        normal = next(row for row in await slurm.partitions() if row.name == "normal")
        assert (normal.nodes_total, normal.cores_total) == (4, 32)
        assert (normal.nodes_free or 0) + (normal.nodes_used or 0) == 3
        assert (normal.cores_free or 0) + (normal.cores_used or 0) == 24
    finally:
        cluster.up_node("n4")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"partition": "nosuch"}, "invalid partition"),
        ({"constraint": "nosuch"}, "Invalid feature"),
        ({"include_nodes": ("nosuch",)}, "Invalid node"),
        ({"licenses": {"nosuch": 1}}, "license"),
        ({"gpus_per_node": 1}, "generic resource"),
        ({"memory_bytes_per_node": 10**6 << 20}, "Memory specification"),
        ({"extra": {"begin": "nonsense"}}, "begin"),
        ({"extra": {"nosuchoption": "1"}}, "unrecognized"),
    ],
)
async def test_refused(slurm: Scheduler, tmp_path: Path, values: dict[str, Any], words: str) -> None:
    submission = prepared(slurm, tmp_path, "exit 0", **values)
    with pytest.raises(SubmitRefused, match=f"(?i){words}"):
        await slurm.submit(submission)
    for seen in await slurm.find(submission.allocation.name):
        assert seen.phase is Phase.ENDED, "too much memory leaves a record that has ended"
        ended = (await slurm.look([seen.id]))[seen.id]
        assert ended is not None
        assert ended.ending is Ending.SUBMIT_REFUSED


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"nodes": 99}, "PartitionConfig"),
        ({"partition": "short", "nodes": 2}, "PartitionNodeLimit"),
        ({"partition": "short", "time_limit": 3600.0}, "PartitionTimeLimit"),
        ({"partition": "closed"}, "PartitionDown"),
        ({"extra": {"hold": ""}}, "JobHeldUser"),
    ],
)
async def test_what_waits_for_ever_says_so(
    slurm: Scheduler, tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    id, _ = await started(slurm, tmp_path, "exit 0", **values)
    seen = await until(slurm, id, lambda seen: seen.reason == reason)  # at first it may be PartitionConfig
    assert (seen.phase, seen.never) == (Phase.PENDING, True)
    assert seen.message
    await slurm.cancel([id])


async def test_many_are_seen_and_ended_at_once(slurm: Scheduler, tmp_path: Path) -> None:
    ids = [(await started(slurm, tmp_path, "exit 0", extra={"begin": "now+1hour"}))[0] for _ in range(30)]
    polled, looked = await slurm.poll(), await slurm.look([*ids, "999999", "x"])
    assert set(ids) <= set(polled)
    assert all(looked[id] == polled[id] for id in ids)
    assert looked["999999"] is None
    assert "x" not in looked
    await slurm.cancel(ids)
    for id in ids:
        assert (await closely(slurm, id)).ending is Ending.CANCELLED_EXTERNALLY


async def test_time_limit_in_slurms_words(cluster: SlurmCluster, slurm: Scheduler, tmp_path: Path) -> None:
    id, _ = await started(slurm, tmp_path, "sleep 100", time_limit=60.0)
    await until(slurm, id, running)
    # SLURM strikes after 80 s of its own; a limit below the time it has run for strikes at the next look.
    cluster.run("scontrol", "update", f"jobid={id}", "EndTime=now")
    seen = await closely(slurm, id)
    assert seen.ending is Ending.TIMEOUT
    told = slurm.end_in_output((tmp_path / "out.txt").read_text())
    assert told is not None
    assert told[0] is Ending.TIMEOUT


async def test_nothing_follows_from_silence(cluster: SlurmCluster, tmp_path: Path) -> None:
    """Controller down, hung, munge hung, a command that takes too long: no answer is no answer."""
    slurm = Slurm(cluster.env, deadline=1.0)
    id, name = await started(slurm, tmp_path, "sleep 60")
    await until(slurm, id, running)

    async def silent() -> None:
        submission = prepared(slurm, tmp_path, "exit 0")
        asked: list[Any] = [
            *(slurm.probe(), slurm.poll(), slurm.look([id]), slurm.find(name), slurm.cancel([id])),
            *(slurm.submit(submission), slurm.partitions(), slurm.jobs()),
        ]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, Unreachable)
            assert str(answer)

    cluster.pause_munge()
    try:
        await silent()
    finally:
        cluster.resume_munge()
    cluster.pause_controller()
    try:
        await silent()
    finally:
        cluster.resume_controller()
    await asyncio.to_thread(cluster.stop_controller)
    with pytest.raises(Unreachable, match="DOWN"):
        await slurm.probe()
    await silent()
    await asyncio.to_thread(cluster.start_controller)
    patient = Slurm(cluster.env)
    await closely(patient, id)  # its cancel was heard, or is repeated
    assert (await patient.look([id]))[id] is not None


async def test_slurms_own_words_when_it_is_down(cluster: SlurmCluster, tmp_path: Path) -> None:
    slurm = Slurm(cluster.env)
    submission = prepared(slurm, tmp_path, "exit 0")
    await asyncio.to_thread(cluster.stop_controller)
    try:
        asked: list[Any] = [slurm.submit(submission), slurm.poll(), slurm.cancel(["1"])]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, Unreachable)
            assert "Unable to contact slurm controller" in str(answer)
    finally:
        await asyncio.to_thread(cluster.start_controller)


async def test_without_slurm(tmp_path: Path) -> None:
    slurm = Slurm({"PATH": str(tmp_path)})
    with pytest.raises(Unreachable, match="cannot be run"):
        await slurm.probe()
    with pytest.raises(Unreachable, match="not installed"):
        await slurm.submit(prepared(slurm, tmp_path, "exit 0"))


async def test_the_accounting_knows_what_the_controller_has_forgotten(tmp_path: Path) -> None:
    cluster = SlurmCluster(tmp_path / "slurm", nodes=2, min_job_age=2, accounting=True)
    await asyncio.to_thread(cluster.start)
    try:
        slurm = Slurm(cluster.env)
        with pytest.raises(SubmitRefused, match="account"):
            await slurm.submit(prepared(slurm, tmp_path, "exit 0", account="nosuch"))
        done = await started(slurm, tmp_path, "exit 0", account="proj1")
        failed = await started(slurm, tmp_path, "exit 3")
        cancelled = await started(slurm, tmp_path, "exit 0", extra={"begin": "now+1hour"})
        await slurm.cancel([cancelled[0]])
        ids = [done[0], failed[0], cancelled[0]]
        end = time.monotonic() + 40
        while set(await slurm.poll()) & set(ids):
            assert time.monotonic() < end, "MinJobAge is 2 s"
            await asyncio.sleep(0.2)
        seen = await slurm.look([*ids, "999999"])
        assert seen["999999"] is None
        ends = [(each.name, each.ending, each.exit_code) for id in ids if (each := seen[id])]
        assert ends == [
            (done[1], Ending.EXITED, 0),
            (failed[1], Ending.EXITED, 3),
            (cancelled[1], Ending.CANCELLED_EXTERNALLY, None),
        ]
        assert [each.id for each in await slurm.find(failed[1])] == [failed[0]]
        assert await slurm.find("edb-none-0123456789abcdef-1") == []
    finally:
        await asyncio.to_thread(cluster.stop)
