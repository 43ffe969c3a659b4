"""Who a process is, and that a signal never hits a stranger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest
from edbjobs_server.executors.local import processes

MARK = f"{uuid.uuid4().hex}.1"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "1000"], env={processes.MARK: MARK, "PATH": os.environ["PATH"]})
    yield process
    process.kill()
    process.wait()


def look(pid: int) -> processes.Process:
    process = processes.look(pid)
    assert process is not None
    return process


def test_looking_at_a_process(child: subprocess.Popen[bytes]) -> None:
    process = look(child.pid)
    assert (process.pid, process.parent, process.name) == (child.pid, os.getpid(), "sleep")
    assert processes.table()[child.pid].ticks == process.ticks
    assert processes.look(2**22 + 1) is None


def test_names_may_hold_anything() -> None:
    tail = " ".join(["S", "7", *("0" for _ in range(17)), "123", "0"])
    process = processes.Process(5, f"5 (a) S (b c) {tail}".encode())
    assert (process.name, process.state, process.parent, process.ticks) == ("a) S (b c", "S", 7, 123)


def test_a_pid_with_other_ticks_is_somebody_else(child: subprocess.Popen[bytes]) -> None:
    process = look(child.pid)
    process.ticks += 1
    assert processes.open_process(process.pid, process.ticks) is None
    processes.kill([process])
    processes.terminate([process])
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    process.ticks -= 1
    processes.kill([process])
    assert child.wait(10) == -signal.SIGKILL
    processes.kill([process])


def test_a_zombie_has_ended(child: subprocess.Popen[bytes]) -> None:
    process = look(child.pid)
    pidfd = processes.open_process(process.pid, process.ticks)
    assert pidfd is not None
    assert not processes.has_ended(pidfd)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.has_ended(pidfd)
    os.close(pidfd)
    assert look(child.pid).state == "Z"
    assert processes.open_process(process.pid, process.ticks) is None
    assert child.pid not in processes.table()


@pytest.mark.parametrize("pid", [0, -1, 2**40, 2**70])
def test_numbers_that_are_no_pids(pid: int) -> None:
    assert processes.open_process(pid, 1) is None


def test_the_number_of_a_thread_is_no_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert thread.native_id is not None
    assert processes.open_process(thread.native_id, look(thread.native_id).ticks) is None
    done.set()
    thread.join()


def test_what_carries_the_mark_and_its_descendants(child: subprocess.Popen[bytes]) -> None:
    script = (
        "import subprocess as s, sys; p = s.Popen(['/bin/sleep', '1000'], env={}); print(p.pid, flush=True); p.wait()"
    )
    env = {processes.MARK: MARK, "PATH": os.environ["PATH"]}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env)
    try:
        assert parent.stdout is not None
        grandchild = int(parent.stdout.readline())
        found = {process.pid for process in processes.of_run(MARK, None, processes.table())}
        assert found == {child.pid, parent.pid, grandchild}
        assert processes.of_run(MARK + "1", None, processes.table()) == []
        everybody = processes.table()
        left = processes.without(everybody.values(), [everybody[parent.pid].name], everybody)
        assert not {parent.pid, grandchild} & {process.pid for process in left}
        solver = (grandchild, look(grandchild).ticks)
        assert [each.pid for each in processes.of_run("other", solver, everybody)] == [grandchild]
        assert processes.of_run("other", (solver[0], solver[1] + 1), everybody) == []
        os.kill(grandchild, signal.SIGKILL)
    finally:
        parent.kill()
        parent.communicate()


def test_the_launcher_loads_only_the_standard_library() -> None:
    """It outlives upgrades, and every module is copied into each supervisor."""
    script = (
        "import sys; sys.path.append(sys.argv[1]); import edbjobs_server.executors.local.launcher;"
        "print(*sorted(sys.modules))"
    )
    server = os.path.abspath(processes.__file__).rsplit(os.sep, 4)[0]
    done = subprocess.run([sys.executable, "-I", "-S", "-E", "-c", script, server], capture_output=True, check=True)
    loaded = done.stdout.decode().split()
    assert not {"asyncio", "threading", "subprocess", "logging", "grpc", "typing", "dataclasses"} & set(loaded)
    ours = {name for name in loaded if name.startswith("edbjobs")}
    others = {name.partition(".")[0] for name in loaded} - {"edbjobs_server", "__main__"}
    assert others <= set(sys.stdlib_module_names) | {"sitecustomize", "usercustomize"}
    names = ("faults", "launcher", "processes", "record", "supervisor")
    assert ours == {
        "edbjobs_server",
        "edbjobs_server.executors",
        "edbjobs_server.executors.local",
        *(f"edbjobs_server.executors.local.{name}" for name in names),
    }
