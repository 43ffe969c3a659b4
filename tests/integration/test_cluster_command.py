"""Commands of schedulers: what they print, and what becomes of those that hang, flood, or are not there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from edbjobs_server.executors.schedulers import command
from edbjobs_server.executors.schedulers.base import Unreachable

ENV = {"PATH": os.environ["PATH"]}


async def test_output_and_code_come_back() -> None:
    answer = await command.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], ENV, 10, b"in")
    assert (answer.code, answer.stdout, answer.stderr, answer.words) == (3, "in", "wrong\n", "wrong")


async def test_bytes_that_are_no_text_are_replaced() -> None:
    answer = await command.run(["printf", r"a\344b"], ENV, 10)
    assert answer.stdout == "a\ufffdb"


async def test_habits_of_the_account_are_left_out_and_english_is_asked_for() -> None:
    env = {
        **ENV,
        "SBATCH_PARTITION": "x",
        "SLURM_CONF": "/c",
        "LSB_DEFAULTQUEUE": "x",
        "LANG": "de_DE.UTF-8",
        "KEPT": "1",
    }
    seen = (await command.run(["env"], env, 10)).stdout.split()
    assert {"SLURM_CONF=/c", "LC_ALL=C", "LANG=C", "KEPT=1"} <= set(seen)
    assert not [line for line in seen if line.startswith(("SBATCH_", "LSB_"))]


async def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"did not answer within 0\.5 s"):
        await command.run(["sh", "-c", f"sleep 600 & echo $! >{pid}; wait"], ENV, 0.5)
    assert time.monotonic() - started < 10
    await _gone(int(pid.read_text()))


async def test_who_is_cancelled_ends_the_command(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    asking = asyncio.create_task(
        command.run(["sh", "-c", f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 600"], ENV, 60)
    )
    await _until(pid.exists)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await _gone(int(pid.read_text()))


async def test_a_command_that_prints_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_OUTPUT", 1 << 20)
    with pytest.raises(Unreachable, match="printed more than 1 MiB"):
        await command.run(["yes"], ENV, 30)


async def test_a_command_that_is_not_there() -> None:
    with pytest.raises(Unreachable, match="nosuch cannot be run: No such file"):
        await command.run(["nosuch"], ENV, 10)


async def test_a_command_that_does_not_read_its_input() -> None:
    answer = await command.run(["true"], ENV, 10, b"x" * (1 << 20))
    assert answer.code == 0


async def _gone(pid: int) -> None:
    def gone() -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().split()[2] == "Z"

    await _until(gone)


async def _until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end, "not within 10 s"
        await asyncio.sleep(0.01)
