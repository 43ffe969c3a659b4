"""Who a process is, and that a signal never hits a stranger."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from edbjobs_server.executors.local.linux import processes

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
        "import sys; sys.path.append(sys.argv[1]); import edbjobs_server.executors.local.linux.launcher;"
        "print(*sorted(sys.modules))"
    )
    server = os.path.abspath(processes.__file__).rsplit(os.sep, 5)[0]
    done = subprocess.run([sys.executable, "-I", "-S", "-E", "-c", script, server], capture_output=True, check=True)
    loaded = done.stdout.decode().split()
    assert not {"asyncio", "threading", "subprocess", "logging", "grpc", "typing", "dataclasses"} & set(loaded)
    ours = {name for name in loaded if name.startswith("edbjobs")}
    others = {name.partition(".")[0] for name in loaded} - {"edbjobs_server", "__main__"}
    assert others <= set(sys.stdlib_module_names) | {"sitecustomize", "usercustomize"}
    names = ("launcher", "processes", "solver_process", "supervisor")
    assert ours == {
        "edbjobs_server",
        "edbjobs_server.executors",
        "edbjobs_server.executors.local",
        "edbjobs_server.executors.local.linux",
        "edbjobs_server.executors.local.record",
        "edbjobs_server.util",
        "edbjobs_server.util.failpoints",
        *(f"edbjobs_server.executors.local.linux.{name}" for name in names),
    }


def test_the_descriptor_limit_is_raised_and_the_old_one_known() -> None:
    code = (
        "import resource; from edbjobs_server.executors.local.linux import processes as p;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard));"
        "print(p.soft_descriptor_limit(), p.raise_descriptor_limit(), p.raise_descriptor_limit(),"
        "p.soft_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, p.DESCRIPTORS), hard))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["100", "100", "100", "100", "True"]


def test_a_lock_is_waited_for_so_long(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.touch()
    with path.open() as one, path.open() as other, path.open() as third:
        assert processes.lock(one.fileno(), fcntl.LOCK_SH, 0.0)
        assert processes.lock(other.fileno(), fcntl.LOCK_SH, 0.0)
        assert not processes.lock(third.fileno(), fcntl.LOCK_EX, 0.02)
        one.close()
        other.close()
        assert processes.lock(third.fileno(), fcntl.LOCK_EX, 0.0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        processes.lock(10_000_000, fcntl.LOCK_EX, 0.0)


def test_what_lives(child: subprocess.Popen[bytes]) -> None:
    process = look(child.pid)
    assert processes.is_alive(process.pid, process.ticks)
    assert not processes.is_alive(process.pid, process.ticks + 1)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.is_alive(process.pid, process.ticks), "a zombie does not"


@pytest.mark.parametrize(
    ("number", "transient"),
    [(errno.EMFILE, True), (errno.ENOMEM, True), (errno.EAGAIN, True), (errno.ENOENT, False), (None, False)],
)
def test_which_errors_are_transient(number: int | None, transient: bool) -> None:
    assert processes.is_transient(number) is transient
