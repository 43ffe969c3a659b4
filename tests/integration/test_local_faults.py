"""Service, launcher and supervisors are killed; no run is lost, none is started twice, no end is made up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending, OpenRun, RunStarted
from edbjobs_server.executors.local import record
from edbjobs_server.executors.local.linux import inspection, processes, run
from edbjobs_server.util import failpoints
from support.local_runs import KEY, Runs, alive, clean, key_of, local_runs, owner, until, written


def edit(folder: Path, line: str, **fields: Any) -> None:
    """Change fields of a line of a record."""
    path = folder / record.NAME
    lines = [json.loads(text) for text in path.read_text().splitlines() if text]
    changed = [{**each, **fields} if each["t"] == line else each for each in lines]
    path.write_text("".join(json.dumps(each) + "\n" for each in changed))


def supervisor_of(runs: Runs) -> int:
    claim = runs.record().claim
    assert claim is not None
    pid: int = claim["pid"]
    return pid


async def killed_owner(root: Path, scripts: dict[int, str], said: set[str]) -> None:
    """Let an owner begin runs, wait until it has said what it must, kill it."""
    host = await owner(root, scripts)
    try:
        while said:
            said.discard(await host.said())
    finally:
        await host.kill()


async def test_runs_survive_the_service_and_their_ends_are_found(root: Path, tmp_path: Path) -> None:
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    scripts = {
        1: f"echo x >> {tmp_path}/ran1; {wait}; exit 7",
        2: f"echo x >> {tmp_path}/ran2; {wait}; kill -9 $$",
        3: f"echo x >> {tmp_path}/ran3; {wait}; {wait}2; exit 9".replace(
            "/go ]; do sleep 0.01; done2", "/go2 ]; do sleep 0.01; done"
        ),
    }
    try:
        await killed_owner(root, scripts, {"started 1", "started 2", "started 3"})
        (tmp_path / "go").touch()
        folders = [root / key_of(seq).folder for seq in (1, 2)]
        await until(lambda: all(record.read(str(folder)).end for folder in folders), "ends on record")
        async with local_runs(root) as runs:
            await runs.executor.adopt([_open(seq) for seq in (1, 2, 3)])
            first, second = await runs.ended(key_of(1)), await runs.ended(key_of(2))
            third = await runs.started(key_of(3))
            assert alive(third.pid)
            assert len(runs.updates) == 5
            (tmp_path / "go2").touch()
            assert (await runs.ended(key_of(3))).exit_code == 9
        assert (first.ending, first.exit_code) == (Ending.EXITED, 7)
        assert (second.ending, second.signal) == (Ending.SIGNALLED, signal.SIGKILL)
        assert [(tmp_path / f"ran{seq}").read_text() for seq in (1, 2, 3)] == ["x\n"] * 3
    finally:
        await clean(root)


async def test_a_run_adopted_is_cancelled_and_timed_as_any_other(root: Path) -> None:
    try:
        await killed_owner(
            root, {1: "sleep 1000", 2: "trap '' TERM; while :; do sleep 0.05; done"}, {"started 1", "started 2"}
        )
        async with local_runs(root) as runs:
            await runs.executor.adopt([_open(1), _open(2, cancel_grace=0.2)])
            assert (await runs.ended(key_of(2))).ending is Ending.CANCELLED
            await runs.executor.cancel(key_of(1), 5.0)
            assert (await runs.ended(key_of(1))).ending is Ending.CANCELLED
    finally:
        await clean(root)


async def test_the_service_is_killed_at_random_moments(root: Path, tmp_path: Path) -> None:
    """What it asked for either ran once or never; the record says which, the witness files agree."""
    for attempt in range(6):
        first = 100 * attempt + 1
        seqs = range(first, first + 20)
        host = await owner(root, {seq: f"echo x >> {tmp_path}/ran.{seq}; exit 3" for seq in seqs})
        try:
            if attempt:
                for _ in range(attempt * 5):
                    await host.said()
        finally:
            await host.kill()
        async with local_runs(root) as runs:
            await runs.executor.adopt([_open(seq) for seq in seqs])
            for seq in seqs:
                end = await runs.ended(key_of(seq))
                ran = tmp_path / f"ran.{seq}"
                assert end.ending in (Ending.EXITED, Ending.NEVER_RAN)
                assert ran.exists() == (end.ending is Ending.EXITED)
                assert not ran.exists() or ran.read_text() == "x\n"


BEFORE = ("launcher.before_fork", "supervisor.before_claim", "supervisor.after_claim")


@pytest.mark.parametrize("point", BEFORE)
async def test_killed_before_the_start_line_it_never_ran(
    root: Path, tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, point)
    async with local_runs(root) as runs:
        end = await runs.run(f"echo x > {tmp_path}/ran")
        assert end.ending is Ending.NEVER_RAN
        assert runs.updates == [end]
    assert not (tmp_path / "ran").exists()


async def test_killed_after_the_start_line_its_solver_leaves_unstarted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, "supervisor.after_start_line")
    async with local_runs(root) as runs:
        end = await runs.run(f"echo x > {tmp_path}/ran")
        assert end.ending is Ending.LOST
        assert not alive((await runs.started()).pid)
    assert not (tmp_path / "ran").exists()


async def test_killed_while_it_runs_what_is_left_is_followed_then_lost(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, "supervisor.after_go")
    async with local_runs(root) as runs:
        await runs.start(f"echo x >> {tmp_path}/ran; (while [ ! -e {tmp_path}/go ]; do sleep 0.01; done) & exit 0")
        start = await runs.started()
        await until(lambda: not alive(supervisor_of(runs)))
        await until(lambda: not alive(start.pid))
        assert len(inspection.left_of(runs.record(), KEY)) >= 1
        assert runs.updates == [start]
        (tmp_path / "go").touch()
        end = await runs.ended()
        assert (end.ending, end.exit_code) == (Ending.LOST, None)
        assert "killed" in end.message
    assert (tmp_path / "ran").read_text() == "x\n"


@pytest.mark.parametrize(
    ("point", "ending", "code"),
    [("supervisor.before_end", Ending.LOST, None), ("supervisor.after_end", Ending.EXITED, 4)],
)
async def test_killed_around_the_end_line(
    root: Path, point: str, ending: Ending, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, point)
    async with local_runs(root) as runs:
        end = await runs.run("exit 4")
        assert (end.ending, end.exit_code) == (ending, code)


async def test_orphans_are_cancelled(runs: Runs, tmp_path: Path) -> None:
    await runs.start(
        f"(trap '' TERM; echo $$ > {tmp_path}/stubborn; while :; do sleep 0.05; done) & "
        "env -i setsid sleep 1000 & sleep 1000"
    )
    start = await runs.started()
    await until(lambda: written(tmp_path / "stubborn"))
    os.kill(supervisor_of(runs), signal.SIGKILL)
    await until(lambda: runs.executor._runs[KEY.folder].orphans)
    await runs.executor.cancel(KEY, 1000.0)
    await until(lambda: not alive(start.pid))
    assert runs.updates == [start]
    await runs.executor.cancel(KEY, 0.1)
    assert (await runs.ended()).ending is Ending.LOST
    assert inspection.left_of(runs.record(), KEY) == []


async def test_orphans_are_adopted(root: Path) -> None:
    try:
        await killed_owner(root, {1: "sleep 1000", 2: "sleep 1000"}, {"started 1", "started 2"})
        for seq in (1, 2):
            claim = record.read(str(root / key_of(seq).folder)).claim
            assert claim is not None
            os.kill(claim["pid"], signal.SIGKILL)
        async with local_runs(root) as runs:
            await runs.executor.adopt([_open(1), _open(2, cancel_grace=5.0)])
            assert (await runs.ended(key_of(2))).ending is Ending.LOST
            start = await runs.started(key_of(1))
            assert alive(start.pid)
            processes.kill(inspection.left_of(runs.record(key_of(1)), key_of(1)))
            assert (await runs.ended(key_of(1))).ending is Ending.LOST
    finally:
        await clean(root)


async def test_a_keep_listed_orphan_holds_nothing_up(runs: Runs, tmp_path: Path) -> None:
    client = tmp_path / "ansyscl"
    client.write_text('#!/bin/sh\necho $$ > "$0.pid"\nsleep 1000\nexit\n')
    client.chmod(0o755)
    await runs.start(f"{client} & sleep 1000", keep=["ansyscl"])
    solver = await runs.pid()
    kept = int(await until(lambda: written(tmp_path / "ansyscl.pid")))
    os.kill(supervisor_of(runs), signal.SIGKILL)
    os.kill(solver, signal.SIGKILL)
    await runs.executor.cancel(KEY, 0.0)
    assert (await runs.ended()).ending is Ending.LOST
    assert alive(kept)


async def test_supervisors_shrug_off_polite_signals(runs: Runs) -> None:
    await runs.start("sleep 0.5; exit 3")
    await runs.started()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(supervisor_of(runs), number)
        os.kill(runs.launcher(), number)
    assert (await runs.ended()).exit_code == 3


async def test_the_launcher_is_killed(runs: Runs, tmp_path: Path) -> None:
    await runs.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 5")
    await runs.started()
    first = runs.launcher()
    os.kill(first, signal.SIGSTOP)  # so that it has not read these when it dies
    for seq in (11, 12):
        await runs.start(f"echo x >> {tmp_path}/ran.{seq}", key_of(seq))
    await runs.asked(3)
    os.kill(first, signal.SIGKILL)
    for seq in (11, 12):
        assert (await runs.ended(key_of(seq))).ending is Ending.NEVER_RAN
    assert not any(name.startswith("ran.") for name in os.listdir(tmp_path))
    assert (await runs.run("exit 6", key_of(13))).exit_code == 6
    assert runs.launcher() != first
    (tmp_path / "go").touch()
    assert (await runs.ended()).exit_code == 5


async def test_a_dead_service_is_still_obeyed(root: Path, tmp_path: Path) -> None:
    """The launcher reads what was sent before the service died; the claim decides between it and the adopter."""
    async with local_runs(root) as first:
        launcher = first.launcher()
        os.kill(launcher, signal.SIGSTOP)
        await first.start(f"echo x >> {tmp_path}/ran; exit 3")
        await first.start(f"echo x >> {tmp_path}/voided", key_of(2))
        await first.asked(2)
        await first.executor.close()
        async with local_runs(root) as second:
            await second.adopt(key_of(2))
            assert (await second.ended(key_of(2))).ending is Ending.NEVER_RAN
            os.kill(launcher, signal.SIGCONT)
            await until(lambda: second.record().exists)
            await second.adopt()
            assert (await second.ended()).exit_code == 3
    assert (tmp_path / "ran").read_text() == "x\n"
    assert not (tmp_path / "voided").exists()


async def test_what_nobody_claimed(runs: Runs) -> None:
    await runs.adopt()
    assert (await runs.ended()).ending is Ending.NEVER_RAN
    assert runs.record().void
    await runs.adopt(key_of(2), boot="another-boot")
    assert (await runs.ended(key_of(2))).ending is Ending.LOST
    assert not runs.record(key_of(2)).exists
    runs.updates.clear()
    await runs.adopt()
    assert (await runs.ended()).ending is Ending.NEVER_RAN


@pytest.mark.parametrize("where", ["host", "pidns"])
async def test_a_record_written_elsewhere_is_not_judged(runs: Runs, where: str) -> None:
    await _record_without_end(runs, **({"host": "other", "boot": "b"} if where == "host" else {"pidns": "pid:[1]"}))
    await runs.adopt(grace=0.0)
    await runs.executor.cancel(KEY, 0.0)
    assert [type(update) for update in runs.told()] == [RunStarted]
    assert "not visible from here" in runs.troubles()[-1]


async def test_an_end_that_is_written_elsewhere_is_found(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_ELSEWHERE_LOOK", 0.01)
    path = runs.folder() / record.NAME
    await _record_without_end(runs, host="other", boot="b")
    before = path.read_text()
    await runs.adopt()
    assert "on host other" in runs.troubles()[-1]
    end = {"t": "end", "ending": "exited", "code": 7, "signal": None, "time": 1.0, "cpu": 0, "rss": 0, "message": ""}
    path.write_text(f"{before}{json.dumps(end)}\n")
    assert (await runs.ended()).exit_code == 7
    assert runs.troubles()[-1] == ""


async def test_after_another_boot(runs: Runs) -> None:
    await _record_without_end(runs, boot="another-boot")
    await runs.adopt(boot="another-boot")
    end = await runs.ended()
    assert end.ending is Ending.LOST
    assert "went down" in end.message


async def test_a_reused_pid_is_not_our_process(runs: Runs) -> None:
    stranger = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    try:
        ticks = processes.look(stranger.pid)
        assert ticks is not None
        await _record_without_end(runs, pid=stranger.pid, ticks=ticks.ticks + 1)
        edit(runs.folder(), "start", pid=stranger.pid, ticks=ticks.ticks + 1)
        await runs.adopt(grace=0.0)
        await runs.executor.cancel(KEY, 0.0)
        assert (await runs.ended()).ending is Ending.LOST
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_claimed_but_not_started_and_the_claimer_gone(runs: Runs) -> None:
    await runs.run("exit 0")
    path = runs.folder() / record.NAME
    path.write_text(path.read_text().lstrip().splitlines()[0] + '\n{"t": "start", "pid": 1')
    runs.updates.clear()
    await runs.adopt()
    assert (await runs.ended()).ending is Ending.NEVER_RAN


async def test_a_damaged_record_is_never_run_again(runs: Runs) -> None:
    runs.folder().mkdir(parents=True)
    (runs.folder() / record.NAME).write_bytes(b"\x00" * 50)
    await runs.adopt()
    end = await runs.ended()
    assert end.ending is Ending.LOST
    assert "damaged" in end.message


async def test_adoption_in_the_moment_of_the_start(root: Path, tmp_path: Path) -> None:
    """A claimer without start line is waited for."""
    async with local_runs(root) as first:
        await first.start("exit 8")
        await until(lambda: first.record().exists)
        await first.executor.close()
        async with local_runs(root) as second:
            await second.adopt()
            assert (await second.ended()).exit_code == 8
            assert isinstance(second.updates[0], RunStarted)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.needs_root
async def test_a_full_disk_delays_the_end_but_does_not_lose_it(small: Path, tmp_path: Path) -> None:
    async with local_runs(small) as runs:
        script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 5"
        await runs.run("exit 0", key_of(9))
        before_end = (runs.folder(key_of(9)) / record.NAME).read_text().rindex('{"t": "end"')
        # The file's page is nearly full, so that the end needs another one.
        await runs.start(script, info={"padding": "x" * (4096 - before_end - 70)})
        start = await runs.started()
        _fill(small / "ballast")
        (tmp_path / "go").touch()
        await until(lambda: not alive(start.pid))
        await runs.start("exit 6", key_of(2))
        await asyncio.sleep(1.5)  # longer than the pause between attempts
        assert alive(supervisor_of(runs))
        assert runs.told()[2:] == [start]
        assert "No space left" in runs.troubles(key_of(2))[-1]
        (small / "ballast").unlink()
        assert (await runs.ended()).exit_code == 5
        assert (await runs.ended(key_of(2))).ending is Ending.NEVER_RAN


@pytest.mark.needs_root
async def test_cancel_works_on_a_full_disk(small: Path) -> None:
    async with local_runs(small) as runs:
        await runs.start("sleep 1000")
        await runs.started()
        _fill(small / "ballast")
        await runs.executor.cancel(KEY, 1.0)
        assert (await runs.ended()).ending is Ending.CANCELLED
        os.kill(runs.launcher(), signal.SIGSTOP)
        await runs.start("sleep 1000", key_of(2))
        await runs.executor.cancel(key_of(2), 1.0)
        (small / "ballast").unlink()
        os.kill(runs.launcher(), signal.SIGCONT)
        assert (await runs.ended(key_of(2))).ending in (Ending.CANCELLED, Ending.NEVER_RAN)


async def test_an_ending_of_a_later_version_is_not_guessed_at(runs: Runs) -> None:
    await runs.run("exit 0")
    edit(runs.folder(), "end", ending="teleported")
    runs.updates.clear()
    await runs.adopt()
    end = await runs.ended()
    assert end.ending is Ending.LOST
    assert "teleported" in end.message


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return


def _open(seq: int, cancel_grace: float | None = None) -> OpenRun:
    return OpenRun(key_of(seq), processes.boot_id(), cancel_grace=cancel_grace)


async def _record_without_end(runs: Runs, **claim: Any) -> None:
    """Leave the record of a run that went away without an end, with a claim changed."""
    await runs.run("exit 0")
    path = runs.folder() / record.NAME
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if line and '"end"' not in line))
    edit(runs.folder(), "claim", **claim)
    runs.updates.clear()
