"""Processes of this host: who they are, which belong to a run, and signals that never hit a stranger.

A pid alone is no identity: it is given out again. Here a process is its pid and its start ticks; a pidfd is
opened first and the ticks are compared afterwards, so that what passed the comparison is what the pidfd holds.
Linux only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import sys
import time

from edbjobs_server.executors.local import record

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:  # the launcher imports this file: every module it loads is copied into each supervisor
    from collections.abc import Collection, Iterable, Mapping

MARK = "EDBJOBS_RUN"  # environment variable that every process of a run inherits: <uid>.<attempt>
_DEAD = "ZXx"
_NOBODY = (errno.ESRCH, errno.EINVAL, errno.ENOENT)  # no such process, or the number is a thread's by now
_COMM_LENGTH = 15  # the kernel cuts names of programs to this
_TRANSIENT = frozenset(
    (
        *(errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EINTR),
        *(errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT, errno.ETXTBSY),
    )
)
_LOCK_PAUSE = 0.005  # seconds between attempts to lock a file that another process has locked

DESCRIPTORS = 65_536  # at most
_soft_limit: int | None = None  # of file descriptors, before it was raised


class Process:
    """One process as it was when it was looked at."""

    __slots__ = ("name", "parent", "pid", "state", "ticks")

    def __init__(self, pid: int, stat: bytes) -> None:
        # The name stands in parentheses and may itself hold spaces and parentheses.
        head, _, tail = stat.rpartition(b")")
        fields = tail.split()
        self.pid = pid
        self.name = os.fsdecode(head.partition(b"(")[2])
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.ticks = int(fields[19])


def is_transient(number: int | None) -> bool:
    """Return whether an error number means a temporary shortage, from which nothing is concluded."""
    return number in _TRANSIENT


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to the hard one, but not above 65,536.

    That is enough, and commands that are started with it, which may close all that could be open, are not slowed down.

    Returns
    -------
    int
        The soft limit as it was before the first call, for programs that are started and may not expect another:
        `select` does not work above 1,024.
    """
    global _soft_limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _soft_limit is None:
        _soft_limit = soft
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < limit:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError):  # the kernel allows less than the hard limit
            return _soft_limit
    return _soft_limit


def soft_descriptor_limit() -> int:
    """Return the soft limit of open files that programs should be started with."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _soft_limit is None else _soft_limit


def lock(file: int, how: int, seconds: float) -> bool:
    """Lock an open file (``flock``); closing it unlocks it.

    Parameters
    ----------
    file : int
        A record. A supervisor locks it exclusively to write the end of the run; a service that asks it to end the run
        makes sure under a shared lock that the end is not there. So no request meant for one run reaches the
        supervisor when it has gone on to another.
    how : int
        ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.
    seconds : float
        How long to try.

    Returns
    -------
    bool
        False if another process still has it.

    Raises
    ------
    OSError
        If files cannot be locked here; supervisors are not reused then.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        else:
            return True
        time.sleep(_LOCK_PAUSE)


def here() -> record.Here:
    """Say where this process lives."""
    return record.Here(os.uname().nodename, boot_id(), os.readlink("/proc/self/ns/pid"))


def boot_id() -> str:
    """Return the id of the running kernel's boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def look(pid: int) -> Process | None:
    """Look at one process; None if there is none."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Process(pid, os.read(file, 4096))
        finally:
            os.close(file)
    except (FileNotFoundError, ProcessLookupError):  # it may go between the two, too
        return None


def own_ticks() -> int:
    """Return the start ticks of this process."""
    process = look(os.getpid())
    assert process is not None
    return process.ticks


def is_alive(pid: int, ticks: int) -> bool:
    """Return whether a process lives; a zombie does not, nor one that bears its pid by now."""
    process = look(pid)
    return process is not None and process.ticks == ticks and process.state not in _DEAD


def open_process(pid: int, ticks: int) -> int | None:
    """Open a pidfd on a live process.

    Returns
    -------
    int or None
        None if it has ended (a zombie has, too) or the pid belongs to another process by now.
    """
    if pid <= 0:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OverflowError:
        return None
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    ours = False
    try:
        process = look(pid)
        ours = process is not None and process.ticks == ticks and not has_ended(pidfd)
    finally:  # also if there is no descriptor left to look with
        if not ours:
            os.close(pidfd)
    return pidfd if ours else None


def has_ended(pidfd: int) -> bool:
    """Return whether the process behind a pidfd has ended."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def send(process: Process, number: int) -> None:
    """Send a signal to exactly this process; to none if it has ended.

    One that belongs to another account cannot be sent anything; it stays and is reported as stuck.
    """
    pidfd = open_process(process.pid, process.ticks)
    if pidfd is None:
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(pidfd)


def terminate(processes: Iterable[Process]) -> None:
    """Ask processes to end; a stopped one is woken, or it could not heed."""
    for process in processes:
        send(process, signal.SIGTERM)
        send(process, signal.SIGCONT)


def kill(processes: Iterable[Process]) -> None:
    """End processes."""
    for process in processes:
        send(process, signal.SIGKILL)


def table() -> dict[int, Process]:
    """Look at every process that has not ended."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None and process.state not in _DEAD}


def descendants(roots: Collection[int], everybody: Mapping[int, Process]) -> list[Process]:
    """Return the children of some processes, their children and so on, without the roots."""
    children: dict[int, list[Process]] = {}
    for process in everybody.values():
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    parents = list(roots)
    while parents:
        for process in children.get(parents.pop(), ()):
            if process.pid not in found:
                found[process.pid] = process
                parents.append(process.pid)
    return [process for pid, process in found.items() if pid not in roots]


def without(processes: Iterable[Process], keep: Collection[str], everybody: Mapping[int, Process]) -> list[Process]:
    """Leave out the programs of a keep-list and what they started."""
    names = {name[:_COMM_LENGTH] for name in keep}
    spared = {pid for pid, process in everybody.items() if process.name in names}
    spared.update(process.pid for process in descendants(spared, everybody))
    return [process for process in processes if process.pid not in spared]


def of_run(mark: str, solver: tuple[int, int] | None, everybody: Mapping[int, Process]) -> list[Process]:
    """Find what is left of a run whose supervisor is gone.

    Parameters
    ----------
    mark : str
        Value of the run's mark.
    solver : (pid, ticks) or None
        The solver itself, which a user's wrapper may run with an environment of its own.
    everybody : dict
        What `table` found.

    Returns
    -------
    list of Process
        The solver, all that carry the mark, and all their descendants.
    """
    entry = os.fsencode(f"{MARK}={mark}")
    roots = {pid: process for pid, process in everybody.items() if _carries(pid, entry)}
    process = None if solver is None else everybody.get(solver[0])
    if process is not None and solver is not None and process.ticks == solver[1]:
        roots[process.pid] = process
    return [*roots.values(), *descendants(roots, everybody)]


def _carries(pid: int, entry: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return entry in file.read().split(b"\0")
    except (OSError, ValueError):  # it has ended, or belongs to another account
        return False
