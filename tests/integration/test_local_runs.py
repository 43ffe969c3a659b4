"""Local runs from start to end, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending, RunEnded, RunKey, RunStarted
from edbjobs_server.executors.local import record
from support.local_runs import KEY, Runs, alive, key_of, local_runs, until, written

STUBBORN = "trap '' TERM; echo $$ > {pids}/stubborn; while :; do sleep 0.05; done"
DAEMON = (
    'setsid sh -c \'setsid sh -c "trap \\"\\" TERM; echo \\$\\$ > {pids}/daemon; sleep 1000; sleep 1000" & exit 0\''
)


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    async with local_runs(tmp_path / "runs", linger=0.3, unkillable_after=0.5) as it:
        yield it


def pid_in(path: Path) -> int:
    return int(written(path) or 0)


async def test_a_run_that_ends_well(runs: Runs) -> None:
    before = time.time()
    end = await runs.run("echo out; echo err >&2")
    start = runs.updates[0]
    assert isinstance(start, RunStarted)
    assert start.nodes == (os.uname().nodename,)
    assert (end.ending, end.exit_code, end.signal) == (Ending.EXITED, 0, None)
    assert before <= start.time <= end.time <= time.time()
    assert end.start_time == start.time
    assert end.cpu_duration is not None
    assert end.cpu_duration > 0
    assert end.peak_memory_bytes is not None
    assert end.peak_memory_bytes > 100_000
    assert (runs.folder() / "stdout").read_text() == "out\n"
    assert (runs.folder() / "stderr").read_text() == "err\n"
    assert sorted(path.name for path in runs.folder().iterdir()) == ["record", "stderr", "stdout"]


async def test_exit_code(runs: Runs) -> None:
    end = await runs.run("exit 3")
    assert (end.ending, end.exit_code, end.signal) == (Ending.EXITED, 3, None)


async def test_signal(runs: Runs) -> None:
    end = await runs.run("kill -SEGV $$")
    assert (end.ending, end.exit_code, end.signal) == (Ending.SIGNALLED, None, signal.SIGSEGV)


@pytest.mark.parametrize(
    ("program", "fields", "words"),
    [
        ("/nowhere/solver", {}, "execute /nowhere/solver: No such file"),
        ("no-such-solver", {}, "execute no-such-solver: No such file"),
        ("/etc/passwd", {}, "execute /etc/passwd: Permission denied"),
        ("/bin/true", {"cwd": "/nowhere"}, "enter its working directory /nowhere: No such file"),
        ("/bin/true", {"env": {"A": "b\0c"}}, "execute /bin/true: embedded null byte"),
    ],
)
async def test_what_cannot_be_executed(runs: Runs, program: str, fields: dict[str, Any], words: str) -> None:
    end = await runs.run([program], **fields)
    assert (end.ending, end.exit_code, end.signal) == (Ending.START_FAILED, None, None)
    assert words in end.message


async def test_exit_code_127_of_a_program_is_its_own(runs: Runs) -> None:
    end = await runs.run("exit 127")
    assert (end.ending, end.exit_code, end.message) == (Ending.EXITED, 127, "")


async def test_the_solver_gets_a_clean_process(runs: Runs, tmp_path: Path) -> None:
    script = "env; pwd; readlink /proc/self/fd/0; ls /proc/$$/fd; cat /proc/self/status; cat /proc/$$/stat"
    await runs.run(script, cwd=str(tmp_path), env={"PATH": os.environ["PATH"], "A": "ä b"})
    lines = (runs.folder() / "stdout").read_text().splitlines()
    environment = {line for line in lines[: lines.index(str(tmp_path))] if not line.startswith(("_=", "SHLVL"))}
    assert environment == {
        f"PATH={os.environ['PATH']}",
        "A=ä b",
        f"EDBJOBS_RUN={KEY.uid}.1",
        f"PWD={tmp_path}",
    }
    at = lines.index(str(tmp_path)) + 1
    assert lines[at] == "/dev/null"
    assert {"0", "1", "2"} <= set(lines[at + 1 :])
    assert not {"3", "4", "5", "6", "7", "8", "9"} & set(lines[at + 1 : lines.index("0", at) + 4])
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    internal = 1 << 31 | 1 << 32  # signals 32 and 33 are the C library's own: no program can set or reset them
    assert int(status["SigIgn"], 16) & ~internal == 0
    assert int(status["SigBlk"], 16) == 0
    pid, _, _, _, group, session, *_ = lines[-1].split()
    assert group == pid
    assert session != pid


async def test_time_limit(runs: Runs) -> None:
    end = await runs.run("sleep 1000", time_limit=0.2)
    assert (end.ending, end.signal) == (Ending.TIMEOUT, signal.SIGTERM)
    assert "limit of 0.2 s" in end.message


async def test_time_limit_of_one_that_ignores_term(runs: Runs) -> None:
    end = await runs.run("trap '' TERM; while :; do sleep 0.05; done", time_limit=0.1, cancel_grace_period=0.2)
    assert (end.ending, end.signal) == (Ending.TIMEOUT, signal.SIGKILL)


async def test_cancel(runs: Runs) -> None:
    await runs.start("sleep 1000")
    start = await runs.started()
    await runs.executor.cancel(KEY, 5.0)
    end = await runs.ended()
    assert (end.ending, end.signal) == (Ending.CANCELLED, signal.SIGTERM)
    assert not alive(start.pid)


async def test_cancel_lets_the_solver_save(runs: Runs) -> None:
    await runs.start("trap 'echo saved; exit 4' TERM; echo ready > ready; while :; do sleep 0.01; done")
    await until(lambda: written(runs.root / "ready"))
    await runs.executor.cancel(KEY, 5.0)
    end = await runs.ended()
    assert (end.ending, end.exit_code) == (Ending.CANCELLED, 4)
    assert (runs.folder() / "stdout").read_text() == "saved\n"


async def test_cancel_wakes_a_stopped_solver(runs: Runs) -> None:
    await runs.start("trap 'exit 5' TERM; echo ready > ready; while :; do sleep 0.01; done")
    await until(lambda: written(runs.root / "ready"))
    os.kill(await runs.pid(), signal.SIGSTOP)
    await runs.executor.cancel(KEY, 20.0)
    assert (await runs.ended()).exit_code == 5


async def test_cancel_ends_stubborn_and_daemonised_children(runs: Runs, tmp_path: Path) -> None:
    script = f"({STUBBORN}) & {DAEMON}; sleep 1000".replace("{pids}", str(tmp_path))
    await runs.start(script)
    stubborn = await until(lambda: pid_in(tmp_path / "stubborn"))
    daemon = await until(lambda: pid_in(tmp_path / "daemon"))
    await runs.executor.cancel(KEY, 0.2)
    end = await runs.ended()
    assert end.ending is Ending.CANCELLED
    assert not alive(stubborn)
    assert not alive(daemon)


async def test_cancel_again_with_a_shorter_grace(runs: Runs, tmp_path: Path) -> None:
    await runs.start(STUBBORN.replace("{pids}", str(tmp_path)))
    await until(lambda: pid_in(tmp_path / "stubborn"))
    await runs.executor.cancel(KEY, 1000.0)
    await runs.executor.cancel(KEY, 1000.0)
    assert not any(isinstance(update, RunEnded) for update in runs.updates)
    await runs.executor.cancel(KEY, 0.0)
    assert (await runs.ended()).signal == signal.SIGKILL
    await runs.executor.cancel(KEY, 0.0)


async def test_cancel_at_any_moment_ends_it_or_proves_that_it_never_ran(runs: Runs, tmp_path: Path) -> None:
    endings = set()
    for number in range(60):
        key = key_of(number)
        await runs.start(f"echo x >> {tmp_path}/ran.{number}; sleep 1000", key)
        await asyncio.sleep(number * 0.0003)
        # What the shell forks while it is asked to end is not asked itself: it goes when the grace is over.
        await runs.executor.cancel(key, 0.3)
        end = await runs.ended(key)
        endings.add(end.ending)
        ran = (tmp_path / f"ran.{number}").exists()
        assert end.ending is Ending.CANCELLED or not ran
    assert endings <= {Ending.CANCELLED, Ending.NEVER_RAN}
    assert Ending.CANCELLED in endings


async def test_cancel_before_the_launcher_reads_the_request(runs: Runs, tmp_path: Path) -> None:
    os.kill(runs.launcher(), signal.SIGSTOP)
    await runs.start(f"echo x > {tmp_path}/ran")
    await runs.executor.cancel(KEY, 5.0)
    assert runs.record().void
    os.kill(runs.launcher(), signal.SIGCONT)
    assert (await runs.ended()).ending is Ending.NEVER_RAN
    assert not (tmp_path / "ran").exists()


async def test_what_a_solver_leaves_behind_is_ended(runs: Runs, tmp_path: Path) -> None:
    script = f"({STUBBORN}) & {DAEMON}; sleep 0.2; exit 2".replace("{pids}", str(tmp_path))
    end = await runs.run(script, cancel_grace_period=0.2)
    assert (end.ending, end.exit_code) == (Ending.EXITED, 2)
    assert not alive(pid_in(tmp_path / "stubborn"))
    assert not alive(pid_in(tmp_path / "daemon"))


async def test_what_ends_by_itself_in_time_is_left_alone(tmp_path: Path) -> None:
    async with local_runs(tmp_path / "runs", linger=20.0) as runs:
        end = await runs.run(
            f"(trap 'echo term > {tmp_path}/late' TERM; sleep 0.3; echo done > {tmp_path}/late) & exit 0"
        )
        assert end.exit_code == 0
        assert (tmp_path / "late").read_text() == "done\n"
        assert end.time - (end.start_time or 0) >= 0.3


async def test_the_keep_list_outlives_the_run(runs: Runs, tmp_path: Path) -> None:
    client = tmp_path / "ansyscl"
    client.write_text('#!/bin/sh\necho $$ > "$0.pid"\nwhile :; do sleep 0.05; done\n')
    client.chmod(0o755)
    script = f"setsid {client} & while [ ! -s {client}.pid ]; do sleep 0.01; done; sleep 1000 & exit 0"
    end = await runs.run(script, keep=["ansyscl"], cancel_grace_period=1.0)
    assert end.exit_code == 0
    kept = pid_in(tmp_path / "ansyscl.pid")
    assert alive(kept)
    os.kill(kept, signal.SIGKILL)


async def test_starting_again_starts_nothing(runs: Runs, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/ran"
    await runs.start(script)
    await runs.run(script)
    first = list(runs.updates)
    await runs.start(script)
    await until(lambda: len(runs.updates) == 2 * len(first))
    assert runs.updates[-1] == first[-1]
    assert (tmp_path / "ran").read_text() == "x\n"


async def test_many_at_once_each_exactly_once(runs: Runs, tmp_path: Path) -> None:
    keys = [key_of(number) for number in range(1990, 2030)]
    for key in keys:
        await runs.start(f"echo $EDBJOBS_RUN >> {tmp_path}/{key.seq}; exit {key.seq % 7}", key)
    for key in keys:
        end = await runs.ended(key)
        assert end.exit_code == key.seq % 7
        assert (tmp_path / str(key.seq)).read_text() == f"{key.uid}.1\n"


async def test_large_environment_and_output(runs: Runs) -> None:
    env = {"PATH": os.environ["PATH"], **{f"V{number}": "x" * 100_000 for number in range(12)}}
    end = await runs.run("head -c 3000000 /dev/zero; echo ${#V11} >&2", env=env)
    assert end.exit_code == 0
    assert (runs.folder() / "stdout").stat().st_size == 3_000_000
    assert (runs.folder() / "stderr").read_text() == "100000\n"


async def test_the_record_tells_the_whole_story(runs: Runs) -> None:
    await runs.run("exit 1", RunKey(4, KEY.uid, 2), info={"jobid": "A-1"}, keep=["ansyscl"])
    lines = [line for line in (runs.folder(RunKey(4, KEY.uid, 2)) / "record").read_text().splitlines() if line]
    assert len(lines) == 4
    found = runs.record(RunKey(4, KEY.uid, 2))
    assert found.claim is not None
    assert found.start is not None
    assert found.end is not None
    assert [found.claim[name] for name in ("format", "kind", "seq", "uid", "attempt")] == [1, "run", 4, KEY.uid, 2]
    assert found.claim["info"] == {"jobid": "A-1"}
    assert found.claim["time"] <= found.start["time"] <= found.end["time"]
    assert record.NAME == "record"


async def test_processes_that_cannot_be_killed_are_told(runs: Runs, tmp_path: Path) -> None:
    freezer = Path("/sys/fs/cgroup/freezer")
    if not os.access(freezer / "cgroup.procs", os.W_OK):
        pytest.skip("needs a freezer cgroup: a frozen process cannot be killed")
    frozen = freezer / f"edbjobs-test-{os.getpid()}"
    frozen.mkdir()
    try:
        await runs.start(["/bin/sleep", "1000"])
        start = await runs.started()
        (frozen / "cgroup.procs").write_text(str(start.pid))
        (frozen / "freezer.state").write_text("FROZEN")
        await runs.executor.cancel(KEY, 0.1)
        assert (await runs.stuck()).pids == (start.pid,)
        assert len(runs.updates) == 2
    finally:
        (frozen / "freezer.state").write_text("THAWED")
        assert (await runs.ended()).ending is Ending.CANCELLED
        frozen.rmdir()


async def test_a_run_goes_on_when_the_service_lets_go(tmp_path: Path) -> None:
    async with local_runs(tmp_path / "runs") as first:
        await first.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 6")
        start = await first.started()
        await first.executor.close()
        async with local_runs(tmp_path / "runs") as second:
            await second.adopt()
            assert second.updates == [start]
            (tmp_path / "go").touch()
            end = await second.ended()
    assert (end.ending, end.exit_code) == (Ending.EXITED, 6)
    assert first.updates == [start]
