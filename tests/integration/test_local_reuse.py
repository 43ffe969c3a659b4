"""Supervisors that take one run after the other: nothing of a run reaches the next, and none is lost between them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending, OpenRun, RunKey
from edbjobs_server.executors.local import record
from edbjobs_server.executors.local.linux import inspection, processes, run
from edbjobs_server.util import failpoints
from support.local_runs import KEY, Runs, alive, clean, key_of, local_runs, owner, until, written


def supervisor_of(runs: Runs, key: RunKey = KEY) -> int:
    claim = runs.record(key).claim
    assert claim is not None
    pid: int = claim["pid"]
    return pid


def idle(runs: Runs) -> list[int]:
    """Supervisors that live, and have no run."""
    children = Path(f"/proc/{runs.launcher()}/task/{runs.launcher()}/children").read_text().split()
    return [int(pid) for pid in children if alive(int(pid))]


async def free(runs: Runs, pid: int) -> None:
    """Wait until a supervisor that has ended its run waits for another, and the launcher knows."""
    await until(lambda: not holds_record(pid) and state(pid) == "S", "it to wait")
    await until(lambda: state(runs.launcher()) == "S", "the launcher to take note")


def holds_record(pid: int) -> bool:
    descriptors = Path(f"/proc/{pid}/fd")
    return any(os.readlink(path).endswith(f"/{record.NAME}") for path in descriptors.iterdir())


def state(pid: int) -> str:
    process = processes.look(pid)
    assert process is not None
    return process.state


async def test_one_after_the_other_have_one_supervisor(runs: Runs) -> None:
    pids = set()
    for number in range(20):
        end = await runs.run(f"exit {number}", key_of(number))
        assert (end.ending, end.exit_code) == (Ending.EXITED, number)
        pids.add(supervisor_of(runs, key_of(number)))
        await free(runs, supervisor_of(runs, key_of(number)))  # the end may be found by looking, before it is free
    assert len(pids) == 1
    assert set(idle(runs)) == pids


async def test_runs_at_once_have_a_supervisor_each(runs: Runs, tmp_path: Path) -> None:
    keys = [key_of(number) for number in range(24)]
    for key in keys:
        await runs.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; exit {key.seq}", key)
    for key in keys:
        await runs.started(key)
    assert len({supervisor_of(runs, key) for key in keys}) == len(keys)
    assert len(os.listdir(f"/proc/{runs.launcher()}/fd")) < 24, "the launcher's descriptors do not grow with the runs"
    (tmp_path / "go").touch()
    for key in keys:
        assert (await runs.ended(key)).exit_code == key.seq
    await until(lambda: len(idle(runs)) <= 8, "the others to end")


async def test_nothing_of_a_run_reaches_the_next(runs: Runs, tmp_path: Path) -> None:
    first = "export B=b; ulimit -n 64; umask 000; cd /; head -c 60000000 /dev/zero | tail -c 50000000 > /dev/null; true"
    before = await runs.run(first, cwd=str(tmp_path), umask=0o027, env={"PATH": os.environ["PATH"], "A": "a"})
    pid = supervisor_of(runs)
    await free(runs, pid)
    script = "env; umask; pwd; ulimit -n; ls /proc/$$/fd"
    end = await runs.run(script, key_of(2), umask=0o022)
    assert supervisor_of(runs, key_of(2)) == pid
    lines = (runs.folder(key_of(2)) / "stdout").read_text().splitlines()
    assert not any(line.startswith(("A=", "B=")) for line in lines)
    assert f"EDBJOBS_RUN={key_of(2).uid}.1" in lines
    at = lines.index("0022")
    assert lines[at + 1 : at + 3] == [str(runs.root), str(processes.soft_descriptor_limit())]
    assert not {"4", "5", "6", "7", "8", "9"} & set(lines[at + 3 :])
    assert end.cpu_duration is not None
    assert end.cpu_duration < 1.0
    assert before.peak_memory_bytes is not None
    assert end.peak_memory_bytes is not None
    assert end.peak_memory_bytes < 40_000_000 < before.peak_memory_bytes


ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {"PATH": os.environ["PATH"], "A": "a", "B": "b"},
    {"PATH": os.environ["PATH"], "A": "a", "B": "b"},
    {"A": "", "C": "\u00e4 \udcff\n="},  # another value, one that is no text, two that are gone
    {},
    {"PATH": os.environ["PATH"], "A": "a", "B": "b", **{f"N{number}": "x" * 100 for number in range(1000)}},
)


@pytest.mark.parametrize("first", range(len(ENVIRONMENTS)))
@pytest.mark.parametrize("base", [True, False])
async def test_each_run_has_exactly_its_environment(runs: Runs, first: int, base: bool) -> None:
    """Whichever run was the first of the launcher, to which the requests of the others refer."""
    assert runs.executor._channel is not None
    assert runs.executor._channel._takes_base
    runs.executor._channel._takes_base = base  # one of an earlier version does not
    order = [*ENVIRONMENTS[first:], *ENVIRONMENTS[:first]]
    for number, environment in enumerate(order):
        key = key_of(number)
        end = await runs.run(["/bin/cat", "/proc/self/environ"], key, env=environment)
        assert end.exit_code == 0
        found = (runs.folder(key) / "stdout").read_bytes().split(b"\0")[:-1]
        wanted = {**environment, processes.MARK: f"{key.uid}.1"}
        assert sorted(found) == sorted(os.fsencode(f"{name}={value}") for name, value in wanted.items())


async def test_a_request_has_only_what_is_different(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large environment does not make each run pay for the fork of a supervisor."""
    assert runs.executor._channel is not None
    large = {f"N{number}": "x" * 100 for number in range(1000)}
    await runs.run("exit 0", env=large)
    await free(runs, supervisor_of(runs))
    sent: list[bytes] = []
    send = runs.executor._channel._send

    def note(data: bytes) -> None:
        sent.append(data)
        send(data)

    monkeypatch.setattr(runs.executor._channel, "_send", note)
    assert (await runs.run('exit "$CODE"', key_of(2), env={**large, "CODE": "5"})).exit_code == 5
    assert len(sent[0]) < 1000
    assert supervisor_of(runs, key_of(2)) == supervisor_of(runs)


async def test_another_launcher_gets_the_environment_again(runs: Runs) -> None:
    script = 'exit "$CODE"'
    assert (await runs.run(script, env={"CODE": "3", "OTHER": "x"})).exit_code == 3
    os.kill(runs.launcher(), signal.SIGKILL)
    await until(lambda: runs.executor._channel is None or runs.executor._channel.gone)
    assert (await runs.run(script, key_of(2), env={"CODE": "3", "OTHER": "x"})).exit_code == 3
    assert (await runs.run(script, key_of(3), env={"CODE": "4", "OTHER": "x"})).exit_code == 4


async def test_descriptors_of_a_supervisor_do_not_grow(runs: Runs) -> None:
    await runs.run("exit 0")
    pid = supervisor_of(runs)
    await free(runs, pid)
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(2, 10):
        await runs.run("exit 0", key_of(number))
        await free(runs, pid)
    assert supervisor_of(runs, key_of(9)) == pid
    assert len(os.listdir(f"/proc/{pid}/fd")) == before


async def test_one_that_dies_idle_is_missed_by_nobody(runs: Runs) -> None:
    for number in range(10):
        await runs.run("exit 0", key_of(2 * number))
        os.kill(supervisor_of(runs, key_of(2 * number)), signal.SIGKILL)
        end = await runs.run("exit 3", key_of(2 * number + 1))
        assert end.ending in (Ending.EXITED, Ending.NEVER_RAN)
        assert end.exit_code in (3, None)
        assert (end.ending is Ending.EXITED) == (runs.record(key_of(2 * number + 1)).start is not None)


@pytest.mark.parametrize(
    ("point", "ending", "ran"),
    [
        ("supervisor.before_claim", Ending.NEVER_RAN, False),
        ("supervisor.after_claim", Ending.NEVER_RAN, False),
        ("supervisor.after_start_line", Ending.LOST, False),
        ("supervisor.after_go", Ending.LOST, True),
        ("supervisor.before_end", Ending.LOST, True),
        ("supervisor.after_end", Ending.EXITED, True),
    ],
)
async def test_killed_in_its_second_run(
    root: Path, tmp_path: Path, point: str, ending: Ending, ran: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, f"{point}:2")
    async with local_runs(root) as runs:
        assert (await runs.run("exit 4")).exit_code == 4
        first = supervisor_of(runs)
        await free(runs, first)
        end = await runs.run(f"echo x >> {tmp_path}/ran", key_of(2))
        assert end.ending is ending
        assert (
            not runs.record(key_of(2)).exists or runs.record(key_of(2)).void or supervisor_of(runs, key_of(2)) == first
        )
        assert (tmp_path / "ran").exists() == ran
        assert (await runs.run("exit 5", key_of(3))).exit_code == 5
        assert supervisor_of(runs, key_of(3)) != first


async def test_the_orphans_of_a_second_run_are_followed_and_cancelled(runs: Runs) -> None:
    await runs.run("exit 0")
    await runs.start("sleep 1000", key_of(2))
    start = await runs.started(key_of(2))
    os.kill(supervisor_of(runs, key_of(2)), signal.SIGKILL)
    await until(lambda: runs.executor._runs[key_of(2).folder].orphans)
    assert alive(start.pid)
    await runs.executor.cancel(key_of(2), 5.0)
    assert (await runs.ended(key_of(2))).ending is Ending.LOST
    assert not alive(start.pid)


async def test_the_launcher_dies_while_supervisors_wait(runs: Runs, tmp_path: Path) -> None:
    await runs.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 5")
    await runs.started()
    await runs.run("exit 0", key_of(2))
    waiting, busy = supervisor_of(runs, key_of(2)), supervisor_of(runs)
    await free(runs, waiting)
    os.kill(runs.launcher(), signal.SIGKILL)
    await until(lambda: not alive(waiting), "the idle one to end")
    await until(lambda: runs.executor._channel is None or runs.executor._channel.gone)
    assert alive(busy)
    assert (await runs.run("exit 6", key_of(3))).exit_code == 6
    (tmp_path / "go").touch()
    assert (await runs.ended()).exit_code == 5
    await until(lambda: not alive(busy), "the other to end after its run")


async def test_supervisors_that_wait_end_with_the_service(root: Path) -> None:
    host = await owner(root, {1: "exit 0"})
    try:
        while await host.said() != "ended 1":
            pass
        claim = record.read(str(root / key_of(1).folder)).claim
        assert claim is not None
        assert alive(claim["pid"])
    finally:
        await host.kill()
        await clean(root)
    await until(lambda: not alive(claim["pid"]), "the supervisor to end with the service")


async def test_adopted_while_its_supervisor_has_another_run(root: Path, tmp_path: Path) -> None:
    """A live claimer is no sign that a run goes on once its end is there."""
    async with local_runs(root) as first:
        await first.run("exit 7")
        await free(first, supervisor_of(first))
        await first.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 8", key_of(2))
        await first.started(key_of(2))
        assert supervisor_of(first) == supervisor_of(first, key_of(2))
        async with local_runs(root) as second:
            await second.executor.adopt([OpenRun(key, processes.boot_id()) for key in (KEY, key_of(2))])
            assert (await second.ended()).exit_code == 7
            await second.executor.cancel(KEY, 0.0)
            (tmp_path / "go").touch()
            assert (await second.ended(key_of(2))).exit_code == 8


async def test_adopted_between_the_end_of_a_run_and_the_next(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is read without an end, and the claimer still lives, on another run, when it is looked for."""
    async with local_runs(root) as first:
        await first.run("exit 7")
        await free(first, supervisor_of(first))
        await first.start("sleep 1000", key_of(2))
        await first.started(key_of(2))
        assert supervisor_of(first) == supervisor_of(first, key_of(2))
        stale = first.record()
        stale.end, stale.size = None, stale.size - 100
        monkeypatch.setattr(inspection, "settle", _once(inspection.settle, inspection.Standing(stale, alive=True)))
        async with local_runs(root) as second:
            await second.adopt()
            assert (await second.ended()).exit_code == 7


def _once(after: Any, answer: inspection.Standing) -> Any:
    answers = [answer]
    return lambda *arguments: answers.pop() if answers else after(*arguments)


async def test_a_cancel_that_comes_as_the_run_ends_does_not_hit_the_next(runs: Runs, tmp_path: Path) -> None:
    """The end waits for a signal that is being sent, and what was sent is gone when the next run comes."""
    for number in range(1, 6):
        key, following = key_of(2 * number), key_of(2 * number + 1)
        await runs.start(f"while [ ! -e {tmp_path}/go.{number} ]; do sleep 0.01; done; exit 3", key)
        start = await runs.started(key)
        pid = supervisor_of(runs, key)
        with (runs.folder(key) / record.NAME).open() as held:
            fcntl.flock(held, fcntl.LOCK_SH)
            assert runs.record(key).end is None
            (tmp_path / f"go.{number}").touch()
            await until(lambda pid=start.pid: not alive(pid))  # type: ignore[misc]
            await until(lambda pid=start.pid: processes.look(pid) is None, "it to be reaped")  # type: ignore[misc]
            os.kill(pid, signal.SIGUSR1)
            assert runs.record(key).end is None
        assert (await runs.ended(key)).exit_code == 3
        await free(runs, pid)
        end = await runs.run("exit 4", following)
        assert (end.ending, end.exit_code) == (Ending.EXITED, 4)
        assert supervisor_of(runs, following) == pid


async def test_cancels_that_race_the_ends_of_short_runs(runs: Runs, tmp_path: Path) -> None:
    for number in range(40):
        key, following = key_of(2 * number), key_of(2 * number + 1)
        await runs.start("exit 3", key)
        await runs.started(key)
        asked = asyncio.create_task(runs.executor.cancel(key, 1.0))
        await runs.start(f"sleep 0.02; echo x > {tmp_path}/ran.{number}; exit 4", following)
        await asked
        assert (await runs.ended(key)).ending in (Ending.EXITED, Ending.CANCELLED)
        end = await runs.ended(following)
        assert (end.ending, end.exit_code) == (Ending.EXITED, 4)
        assert (tmp_path / f"ran.{number}").exists()


async def test_a_lock_that_is_held_for_ever_delays_the_end_only(runs: Runs) -> None:
    """As by a service that was stopped in that moment; a supervisor that cannot be sure is not used again."""
    await runs.start("sleep 0.1; exit 3")
    await runs.started()
    with (runs.folder() / record.NAME).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert (await runs.ended()).exit_code == 3
        await until(lambda: not alive(supervisor_of(runs)))
    assert (await runs.run("exit 4", key_of(2))).exit_code == 4


async def test_an_exception_in_a_supervisor_ends_it(runs: Runs, tmp_path: Path) -> None:
    limit: Any = "soon"
    await runs.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done", time_limit=limit)
    await until(lambda: runs.record().start)
    await until(lambda: not alive(supervisor_of(runs)))
    (tmp_path / "go").touch()
    assert (await runs.ended()).ending is Ending.LOST
    assert (await runs.run("exit 3", key_of(2))).exit_code == 3
    assert supervisor_of(runs, key_of(2)) != supervisor_of(runs)
    assert "TypeError" in (runs.root / "launcher.log").read_text()


async def test_one_that_keeps_a_child_is_not_used_again(runs: Runs, tmp_path: Path) -> None:
    client = tmp_path / "ansyscl"
    client.write_text('#!/bin/sh\necho $$ > "$0.pid"\nwhile :; do sleep 0.05; done\n')
    client.chmod(0o755)
    script = f"setsid {client} & while [ ! -s {client}.pid ]; do sleep 0.01; done; exit 0"
    assert (await runs.run(script, keep=["ansyscl"])).exit_code == 0
    kept = int(written(Path(f"{client}.pid")))
    await until(lambda: not alive(supervisor_of(runs)))
    assert alive(kept)
    assert (await runs.run("exit 3", key_of(2))).exit_code == 3
    os.kill(kept, signal.SIGKILL)


async def test_a_run_that_was_claimed_by_another_ends_its_supervisor(runs: Runs) -> None:
    await runs.run("exit 0")
    os.kill(runs.launcher(), signal.SIGSTOP)
    await runs.start("exit 3", key_of(2))
    await runs.asked(2)
    assert inspection.void(str(runs.folder(key_of(2))), key_of(2), runs.executor.here)
    os.kill(runs.launcher(), signal.SIGCONT)
    assert (await runs.ended(key_of(2))).ending is Ending.NEVER_RAN
    assert (await runs.run("exit 3", key_of(3))).exit_code == 3


async def test_news_that_gets_lost_is_found_by_looking(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_LAST_LOOK", 0.1)
    asyncio.get_running_loop().remove_reader(runs.executor._news[0])
    for number in range(3):
        assert (await runs.run("exit 3", key_of(number))).exit_code == 3


async def test_an_end_too_long_for_the_pipe_is_read_at_once(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_FIRST_LOOK", 1000.0)
    monkeypatch.setattr(run, "_LAST_LOOK", 1000.0)
    end = await runs.run([f"/{'x' * 4050}"])
    assert end.ending is Ending.START_FAILED
    assert len(end.message) > 4000
