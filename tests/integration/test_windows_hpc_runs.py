"""Runs on Windows HPC from submit to end, over TLS on a head node made from Microsoft's documents.

Neither a real head node nor a Windows node was at hand: the node is played by writing what the batch script writes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.runs import Ending, Reachability, RunEnded, RunScheduled, RunStarted
from edbjobs_server.executors.schedulers.windows_hpc.properties import PathMap
from support.fake_hpcpack import PASSWORD, USER, FakeHpcPack
from support.hpc_runs import DEADLINE, SHARE, SOLVER, HpcScene


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeHpcPack]:
    async with FakeHpcPack(tmp_path) as server:
        yield server
    assert server.violations == []


@pytest.fixture
async def scene(fake: FakeHpcPack, tmp_path: Path) -> AsyncIterator[HpcScene]:
    async with HpcScene(fake, tmp_path) as made:
        await made.update(Reachability, responding=True)
        made.updates.clear()
        yield made


async def scheduled(scene: HpcScene) -> str:
    await scene.submit()
    return (await scene.update(RunScheduled)).scheduler_job_id


async def running(scene: HpcScene) -> str:
    job_id = await scheduled(scene)
    scene.node.job_starts(job_id)
    await scene.update(RunStarted)
    return job_id


def unable() -> web.Response:
    return web.json_response("SQL timeout", status=503)


# Ends --------------------------------------------------------------------------------------------------------


async def test_success(scene: HpcScene) -> None:
    job_id = await running(scene)
    assert (await scene.update(RunStarted)).nodes == ("CN001",)
    scene.node.ends(job_id, 0)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code, ended.by_scheduler) == (Ending.EXITED, 0, False)
    assert [scene.told(kind) for kind in (RunScheduled, RunStarted, RunEnded)] == [1, 1, 1]


async def test_the_node_is_told_everything_as_it_sees_it(scene: HpcScene) -> None:
    job_id = await scheduled(scene)
    script = scene.node.script(job_id)
    assert str(scene.shared) not in script
    assert scene.node.told(job_id, "edbjobs_folder") == f"{SHARE}\\runs\\runs\\000000\\7.1"
    assert scene.node.told(job_id, "edbjobs_news") == f"{SHARE}\\runs\\news\\7.1"
    assert scene.node.told(job_id, "edbjobs_start.WorkingDirectory") == f"{SHARE}\\it's a board"
    assert scene.node.told(job_id, "edbjobs_start.FileName") == str(SOLVER)
    assert f"('{SHARE}\\it''s a board\\patch_antenna.aedt')" in script
    assert scene.run.cwd == f"{SHARE}\\it's a board"


@pytest.mark.parametrize("code", [1, 255, -1073741819])
async def test_the_exit_code_is_the_same_by_the_head_node_and_by_the_record(scene: HpcScene, code: int) -> None:
    job_id = await running(scene)
    scene.node.ends(job_id, code)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code, ended.by_scheduler) == (Ending.EXITED, code, False)


async def test_somebody_cancels_it(scene: HpcScene) -> None:
    job_id = await running(scene)
    scene.fake.cancel(job_id)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.by_scheduler) == (Ending.CANCELLED_EXTERNALLY, True)
    assert "maintenance" in ended.message


async def test_we_cancel_it_while_it_runs(scene: HpcScene) -> None:
    job_id = await running(scene)
    await scene.executor.cancel(scene.key, 30.0)
    assert (await scene.update(RunEnded)).ending is Ending.CANCELLED
    assert scene.fake.jobs[int(job_id)].job["State"] == "Canceled"


async def test_we_cancel_it_while_it_waits(scene: HpcScene) -> None:
    job_id = await scheduled(scene)
    await scene.executor.cancel(scene.key, 30.0)
    assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
    assert scene.fake.jobs[int(job_id)].job["State"] == "Canceled"
    with pytest.raises(AssertionError):  # nor can it begin any more
        scene.node.job_starts(job_id)


@pytest.mark.parametrize(
    ("number", "words", "ending"),
    [
        ("-2147218987", "実行時間の制限", Ending.TIMEOUT),
        ("", "The job exceeded its run time limit.", Ending.TIMEOUT),
        ("-2147218984", "Knoten nicht erreichbar", Ending.NODE_FAIL),
        ("", "The node CN001 is unreachable.", Ending.NODE_FAIL),
        ("-2147218978", "", Ending.PREEMPTED),
    ],
)
async def test_the_head_node_ends_it(scene: HpcScene, number: str, words: str, ending: Ending) -> None:
    job_id = await running(scene)
    scene.fake.end(job_id, "Failed", ErrorMessage=words, ErrorCode=number)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.by_scheduler) == (ending, True)
    assert words in ended.message


async def test_the_node_refuses_it(scene: HpcScene) -> None:
    job_id = await running(scene)
    scene.node.writes(job_id, "refusal", "text=the program X cannot be run on node CN001")
    scene.fake.finish(job_id, 114)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.message) == (Ending.START_FAILED, "the program X cannot be run on node CN001")


async def test_powershell_does_not_run_the_script(scene: HpcScene) -> None:
    job_id = await scheduled(scene)
    scene.fake.start(job_id)
    scene.node.prints_errors(job_id, "Datei script.ps1 kann nicht geladen werden.\r\n + PSSecurityException\r\n")
    scene.fake.finish(job_id, 1)
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.START_FAILED
    assert "kann nicht geladen werden" in ended.message


async def test_other_words_of_powershell_change_no_success(scene: HpcScene) -> None:
    job_id = await running(scene)
    scene.node.prints_errors(job_id, "its output is not whole: no space left")
    scene.node.ends(job_id, 0)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED


# Submits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "when"),
    [("/jobs", "before"), ("/jobs", "after"), (r"/jobs/\d+/tasks", "after"), (r"/jobs/\d+/submit", "before")],
)
async def test_a_submit_cut_off_before_the_queue_never_ran(scene: HpcScene, path: str, when: str) -> None:
    scene.fake.trouble("POST", path, lambda: "cut", when=when)
    await scene.submit()
    assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
    assert all(job.job["State"] == "Canceled" for job in scene.fake.jobs.values())
    assert (scene.executor.run_directory(scene.key) / "claim").read_text().startswith("kind=void")


async def test_a_submit_cut_off_after_the_queue_has_it_goes_on(scene: HpcScene) -> None:
    scene.fake.trouble("POST", r"/jobs/\d+/submit", lambda: "cut", when="after")
    job_id = await running(scene)
    scene.node.ends(job_id, 0)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED
    assert list(scene.fake.jobs) == [int(job_id)]


async def test_a_refused_submit_ends_with_the_head_nodes_words(scene: HpcScene) -> None:
    answer = web.json_response("Die Knotengruppe ist nicht vorhanden.", status=400)
    scene.fake.trouble("POST", r"/jobs/\d+/submit", lambda: answer)
    await scene.submit()
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.SUBMIT_REFUSED
    assert "Die Knotengruppe ist nicht vorhanden" in ended.message


async def test_a_project_the_nodes_do_not_see_is_refused_when_it_is_submitted(scene: HpcScene, tmp_path: Path) -> None:
    project = tmp_path / "elsewhere" / "patch.aedt"
    project.parent.mkdir()
    project.write_bytes(b"")
    with pytest.raises(Refused, match="below no folder that the nodes see") as refused:
        scene.prepared(project)
    assert refused.value.reason == "PROJECT_NOT_SHARED"
    assert list(refused.value.fields) == ["config.project_path"]


async def test_without_a_solver_on_the_nodes_a_submit_says_what_to_set(scene: HpcScene) -> None:
    with pytest.raises(Refused, match=r"hpc_solvers") as refused:
        scene.prepared(node_releases={"windows_hpc": ()})
    assert refused.value.reason == "SOLVER_NOT_FOUND"


async def test_a_map_that_was_changed_after_the_submit_fails_the_start(scene: HpcScene, tmp_path: Path) -> None:
    run = scene.prepared()
    scene.hpc._paths = PathMap({str(tmp_path / "other"): SHARE})
    await scene.executor.start(run)
    ended = await scene.update(RunEnded)
    assert ended.ending is Ending.START_FAILED
    assert "below no folder that the nodes see" in ended.message
    assert scene.fake.jobs == {}


# A head node that does not answer, and services that come and go ----------------------------------------------


async def test_the_head_node_goes_down_and_comes_back(scene: HpcScene) -> None:
    job_id = await running(scene)
    scene.fake.trouble("GET", ".*", unable, times=4)
    reach = await scene.update(Reachability, responding=False)
    assert "SQL timeout" in reach.error
    scene.node.ends(job_id, 3)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code) == (Ending.EXITED, 3)
    assert scene.executor.reach.responding


async def test_nothing_is_concluded_from_the_record_alone(scene: HpcScene) -> None:
    job_id = await running(scene)
    scene.fake.trouble("GET", ".*", unable, times=4)
    scene.node.program_ends(job_id, 0)
    await scene.update(Reachability, responding=False)
    assert scene.told(RunEnded) == 0
    scene.fake.cancel(job_id)
    assert (await scene.update(RunEnded)).ending is Ending.CANCELLED_EXTERNALLY


async def test_another_service_takes_it_over(scene: HpcScene) -> None:
    job_id = await running(scene)
    await scene.restart(job_id, started=True)
    scene.node.ends(job_id, 0)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED
    assert scene.told(RunStarted) == 0


async def test_another_service_finds_it_by_its_name(scene: HpcScene) -> None:
    job_id = await scheduled(scene)
    await scene.restart()
    assert (await scene.update(RunScheduled)).scheduler_job_id == job_id
    scene.node.job_starts(job_id)
    scene.node.ends(job_id, 0)
    assert (await scene.update(RunEnded)).exit_code == 0


async def test_the_head_node_forgot_it_while_nobody_watched(scene: HpcScene) -> None:
    job_id = await running(scene)
    await scene.executor.close()
    scene.node.ends(job_id, -1073741819)
    scene.fake.purge(job_id)
    await scene.restart(job_id, started=True)
    ended = await scene.update(RunEnded)
    assert (ended.ending, ended.exit_code) == (Ending.EXITED, -1073741819)


async def test_a_password_file_gone_bad_is_told_and_mended(scene: HpcScene) -> None:
    def bad() -> tuple[str, str]:
        raise ValueError("/etc/hpc is open to others (mode 0644): chmod 600, and change the password")

    job_id = await running(scene)
    scene.credentials = bad
    assert "chmod 600" in (await scene.update(Reachability, responding=False)).error
    scene.node.ends(job_id, 0)
    scene.credentials = lambda: (USER, PASSWORD)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED


async def test_a_fault_of_ours_does_not_end_the_asking(
    scene: HpcScene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await running(scene)
    poll, times, often = scene.hpc.poll, [], asyncio.Event()

    async def faulty() -> object:
        times.append(time.monotonic())
        if len(times) > 4:
            often.set()
            return await poll()
        raise KeyError("State")

    monkeypatch.setattr(scene.hpc, "poll", faulty)
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(often.wait(), DEADLINE)
    scene.node.ends(job_id, 0)
    assert (await scene.update(RunEnded)).ending is Ending.EXITED
    assert caplog.text.count("KeyError: 'State'") == 4
    assert times[4] - times[3] > 0.05 * 2**3  # ever less often


async def test_a_fault_of_ours_in_a_submit_leaves_no_run_behind(
    scene: HpcScene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def faulty(_: object) -> str:
        raise KeyError("Name")

    monkeypatch.setattr(scene.hpc, "submit", faulty)
    with caplog.at_level(logging.ERROR):
        await scene.submit()
        assert (await scene.update(RunEnded)).ending is Ending.NEVER_RAN
    assert "KeyError: 'Name'" in caplog.text
