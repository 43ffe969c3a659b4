"""Lacks, crashes and bugs while local runs are started and followed: every run keeps an owner, and says its trouble."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.core.runs import Ending, RunEnded, RunStarted, RunUpdate
from edbjobs_server.executors.local.linux import channel, executor, inspection, processes, run
from support.local_runs import DEADLINE, KEY, Runs, clean, key_of, local_runs, until


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_FIRST_RETRY", 0.02)
    monkeypatch.setattr(run, "_LAST_RETRY", 0.1)
    monkeypatch.setattr(executor, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(executor, "_LAST_DELAY", 0.05)


def failing(error: BaseException, times: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that fails so many times."""
    left = [error] * times

    def work(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return then(*arguments, **named)

    return work


async def trouble(runs: Runs, words: str) -> None:
    await until(lambda: any(words in text for text in runs.troubles()), f"the trouble {words!r}")


# The launcher -------------------------------------------------------------------------------------------------


def killed(*_: Any) -> subprocess.CompletedProcess[bytes]:
    """A launcher that is killed before it detaches itself."""
    return subprocess.run(["/bin/sh", "-c", "kill -9 $$"], check=False, capture_output=True)


def killed_later(*_: Any) -> subprocess.CompletedProcess[bytes]:
    """A launcher that has detached itself, and is killed before it says a word."""
    return subprocess.run(["/bin/true"], check=True, capture_output=True)


@pytest.mark.parametrize("death", [killed, killed_later])
async def test_a_launcher_that_is_killed_at_its_start_is_started_again(
    runs: Runs, death: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill_launcher(runs)
    deaths = [death] * 3
    real = channel._run
    monkeypatch.setattr(channel, "_run", lambda *arguments: (deaths.pop() if deaths else real)(*arguments))
    assert (await runs.run("exit 3")).exit_code == 3
    assert not deaths


async def test_a_launcher_that_is_killed_again_and_again_is_no_failure(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill_launcher(runs)
    real = channel._run
    monkeypatch.setattr(channel, "_run", killed)
    end = await runs.run("exit 3")
    assert end.ending is Ending.NEVER_RAN
    assert "no supervisor could be started" in end.message
    monkeypatch.setattr(channel, "_run", real)
    assert (await runs.run("exit 3", key_of(2))).exit_code == 3


async def test_a_launcher_that_cannot_be_executed_is_a_failure(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    await kill_launcher(runs)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    end = await runs.run("exit 3")
    assert end.ending is Ending.START_FAILED
    assert "/nowhere/python" in end.message
    monkeypatch.undo()
    assert (await runs.run("exit 3", key_of(2))).exit_code == 3


async def test_the_launcher_is_killed_at_any_moment_of_a_start(runs: Runs, tmp_path: Path) -> None:
    for number in range(25):
        key = key_of(number)
        await runs.start(f"echo x >> {tmp_path}/ran.{number}; exit 3", key)
        await asyncio.sleep(number * 0.0005)
        launcher = runs.executor._channel
        assert launcher is not None
        os.kill(launcher.pid, signal.SIGKILL)
        end = await runs.ended(key)
        ran = tmp_path / f"ran.{number}"
        assert end.ending in (Ending.EXITED, Ending.NEVER_RAN), end
        assert ran.exists() == (end.ending is Ending.EXITED)
        assert not ran.exists() or ran.read_text() == "x\n"
        await until(lambda launcher=launcher: launcher.gone)  # type: ignore[misc]
        assert (await runs.run("exit 4", key_of(100 + number))).exit_code == 4


@pytest.mark.parametrize(
    ("number", "ending"),
    [(errno.EAGAIN, Ending.NEVER_RAN), (errno.ENOMEM, Ending.NEVER_RAN), (errno.ENOSYS, Ending.START_FAILED)],
)
async def test_only_a_definite_error_of_the_fork_is_a_failure(runs: Runs, number: int, ending: Ending) -> None:
    os.kill(runs.launcher(), signal.SIGSTOP)
    await runs.start("exit 3")
    await runs.asked(1)
    say(runs, {"name": KEY.folder, "error": "cannot fork", "errno": number})
    end = await runs.ended()
    os.kill(runs.launcher(), signal.SIGCONT)
    assert end.ending is ending
    assert "cannot fork" in end.message


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"no JSON", b"[]", b"1", b'"launcher"', b"{}", b'{"name": 1}', b'{"gone": {}}', b'{"launcher": "x"}'),
        *(
            b"\xff\xfe",
            b'{"name": [], "error": {}, "errno": "x"}',
            b'{"name": "", "error": "", "errno": {}}',
            b"[" * 100_000,
        ),
    ],
)
async def test_an_answer_that_makes_no_sense_disturbs_nobody(runs: Runs, answer: bytes) -> None:
    assert runs.executor._channel is not None
    runs.executor._channel._understand(answer)
    assert (await runs.run("exit 3")).exit_code == 3


def say(runs: Runs, answer: dict[str, Any]) -> None:
    assert runs.executor._channel is not None
    runs.executor._channel._understand(json.dumps(answer).encode())


async def kill_launcher(runs: Runs) -> None:
    launcher = runs.executor._channel
    assert launcher is not None
    os.kill(launcher.pid, signal.SIGKILL)
    await until(lambda: launcher.gone)


# Bugs and errors in the service -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError(errno.EMFILE, "too many"), MemoryError()])
async def test_a_run_that_cannot_be_settled_is_settled_later(
    root: Path, tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with local_runs(root) as first:
        await first.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 5")
        await first.started()
        await first.executor.close()
        async with local_runs(root) as second:
            monkeypatch.setattr(inspection, "settle", failing(error, 3, inspection.settle))
            await second.adopt()  # comes back although it cannot be settled
            assert type(error).__name__ in second.troubles()[0] or "too many" in second.troubles()[0]
            await until(lambda: second.troubles()[-1] == "", "the trouble to be over")
            assert len(second.troubles()) == 2, "told once, and when it was over"
            (tmp_path / "go").touch()
            assert (await second.ended()).exit_code == 5


async def test_a_bug_in_the_manager_loses_no_end(root: Path) -> None:
    async with local_runs(root) as runs:
        listen = runs.executor._listener
        assert listen is not None
        bugs = {RunStarted: 1, RunEnded: 2}

        def bad(update: RunUpdate) -> None:
            if bugs.get(type(update), 0):
                bugs[type(update)] -= 1
                raise RuntimeError("a bug")
            listen(update)

        runs.executor._listener = bad
        assert (await runs.run("exit 3")).exit_code == 3
        assert [type(update) for update in runs.told()] == [RunStarted, RunEnded]
        assert "a bug" in runs.troubles()[0]


async def test_a_request_that_cannot_be_made_is_a_run_that_never_ran(runs: Runs) -> None:
    end = await runs.run("exit 3", info={"a": object()})
    assert end.ending is Ending.NEVER_RAN
    assert "TypeError" in runs.troubles()[0]


async def test_a_cancellation_that_cannot_be_passed_on_is_passed_on_later(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runs.start("sleep 1000")
    await runs.started()
    monkeypatch.setattr(inspection, "ask_end", failing(OSError(errno.EIO, "bad disk"), 3, inspection.ask_end))
    await runs.executor.cancel(KEY, 5.0)
    assert "cannot be passed on: [Errno 5] bad disk" in runs.troubles()[0]
    assert (await runs.ended()).ending is Ending.CANCELLED
    assert runs.troubles()[1:] == [""]


async def test_a_record_that_cannot_be_looked_at_is_a_trouble_until_it_can(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_LAST_LOOK", 0.05)
    monkeypatch.setattr(inspection, "look", failing(OSError(errno.EIO, "bad disk"), 3, inspection.look))
    await runs.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 5")
    await trouble(runs, "bad disk")
    await until(lambda: runs.troubles()[-1] == "")
    (tmp_path / "go").touch()
    assert (await runs.ended()).exit_code == 5


# A file system that hangs while the solver is executed -----------------------------------------------------


@pytest.mark.system
async def test_a_start_that_hangs_says_so_when_it_is_cancelled(runs: Runs, tmp_path: Path) -> None:
    """The supervisor waits for the system and cannot end its run; when it comes back, it does."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert (await runs.run("exit 0", key_of(1))).exit_code == 0
    claim = runs.record(key_of(1)).claim
    assert claim is not None
    hang = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", "trace=execve", "-e"]
    tracer = await asyncio.create_subprocess_exec(
        *hang, "inject=execve:delay_enter=600s", "-p", str(claim["pid"]), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert tracer.stderr is not None
        assert b"attached" in await asyncio.wait_for(tracer.stderr.readline(), DEADLINE)
        await runs.start(f"echo x >> {tmp_path}/ran; sleep 600", key_of(2))
        await until(lambda: runs.record(key_of(2)).start is not None)
        await runs.executor.cancel(key_of(2), 0.1)
        assert (await runs.stuck(key_of(2))).pids == (claim["pid"],)
        assert not [update for update in runs.updates if isinstance(update, RunStarted) and update.key == key_of(2)]
    finally:
        tracer.kill()
        await tracer.wait()
    assert (await runs.ended(key_of(2))).ending is Ending.CANCELLED


# Descriptors --------------------------------------------------------------------------------------------------


async def test_a_launcher_without_descriptors_fails_no_run(runs: Runs, tmp_path: Path) -> None:
    """At some of these limits it has no socket for the supervisor, or none for its own work."""
    endings = set()
    for number in range(14):
        launcher = runs.launcher()
        limits = resource.prlimit(launcher, resource.RLIMIT_NOFILE)
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, (6 + number, limits[1]))
        end = await runs.run(f"echo x >> {tmp_path}/ran.{number}; exit 3", key_of(number))
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, limits)
        endings.add(end.ending)
        assert (tmp_path / f"ran.{number}").exists() == (end.ending is Ending.EXITED), end
        assert (await runs.run("exit 4", key_of(100 + number))).exit_code == 4
        os.kill(launcher, signal.SIGKILL)  # the next limit meets a launcher that has no idle supervisor
        await until(lambda: runs.executor._channel is None or runs.executor._channel.gone)
        assert (await runs.run("exit 4", key_of(200 + number))).exit_code == 4
        claim = runs.record(key_of(200 + number)).claim
        assert claim is not None
        os.kill(claim["pid"], signal.SIGKILL)
        await until(lambda pid=claim["pid"]: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]
    assert endings <= {Ending.EXITED, Ending.NEVER_RAN}
    assert Ending.EXITED in endings


async def test_a_service_without_descriptors_loses_nothing(root: Path, tmp_path: Path) -> None:
    """Its runs are in `_exhausted`, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(root),
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
        assert process.returncode == 0
        assert out.decode().splitlines()[-1] == "all is well"
    finally:
        await clean(root)


async def _exhausted(root: Path, place: Path) -> None:
    wait = f"while [ ! -e {place}/go ]; do sleep 0.01; done"
    async with local_runs(root) as earlier:
        await earlier.start(f"{wait}; exit 5")
        await earlier.start("sleep 1000", key_of(2))
        for key in (KEY, key_of(2)):
            await earlier.started(key)
        await earlier.executor.close()
        async with local_runs(root) as runs:
            await runs.start(f"{wait}; exit 6", key_of(3))
            await runs.start("sleep 1000", key_of(4))
            for key in (key_of(3), key_of(4)):
                await runs.started(key)
            boot = processes.boot_id()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            await runs.start("exit 7", key_of(5))
            assert (await runs.ended(key_of(5))).exit_code == 7, "needs no descriptor here"
            await asyncio.wait_for(runs.adopt(KEY, boot), DEADLINE)
            await asyncio.wait_for(runs.adopt(key_of(2), boot), DEADLINE)
            await runs.executor.cancel(key_of(2), 1.0)
            await runs.executor.cancel(key_of(4), 1.0)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            (place / "go").touch()
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            assert (await runs.ended(key_of(3))).exit_code == 6
            for key in (KEY, key_of(2), key_of(4)):
                assert "Too many open files" in runs.troubles(key)[-1], key
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert (await runs.ended()).exit_code == 5
            assert (await runs.ended(key_of(2))).ending is Ending.CANCELLED
            assert (await runs.ended(key_of(4))).ending is Ending.CANCELLED
    print("all is well")


if __name__ == "__main__":
    asyncio.run(_exhausted(Path(sys.argv[1]), Path(sys.argv[2])))
