"""The launcher: one small process, started with the service, that gives each run a supervisor.

Started as ``python -I -S -E launcher.py SOCKET PIPE LIMIT`` with two inherited file descriptors, and the soft limit
of open files for solvers. It detaches itself, so that it has no parent in the service and outlives it; then
it reads what was already sent, stays only to reap its supervisors, and leaves with the last one. It has one thread
and loads nothing but a few modules of the standard library, because each fork copies it.

A run gets a supervisor that has ended its last run and waits for another, or else one that is forked for it. A few
supervisors have a socket to the launcher and can be used again; of more than that, those that have been on their
runs for longest lose it, and end with their runs: so the launcher's descriptors do not grow with the runs.

The service sends requests; for a run without errors the launcher sends nothing. What most runs have in their
environment is sent once, so that a request is short.

=========  ============================================================================================
base       4 bytes of length (network order), a newline, and JSON: names and values of the environment that the
           requests refer to; comes once, before them
request    4 bytes of length, then the run's ``name``, a newline, and JSON: ``name`` and ``folder`` of the run,
           ``seq``, ``uid``, ``attempt``, ``argv``, ``cwd``, ``env`` (what is added to the base, or has another
           value), ``unset`` (names in the base that the run does not get), ``keep``, ``info``, ``limit``
           (seconds of wall-clock time or null), ``umask``, ``grace`` (seconds between TERM and KILL), ``linger``
           (seconds for what a solver leaves behind), ``unkillable`` (seconds after KILL until processes that are
           still there are reported)
answer     a JSON line: ``{"launcher": pid, "base": true}`` at the start (``base``: it can be sent one),
           ``{"name", "error", "errno"}`` if there can be no supervisor, ``{"gone": name}`` when the supervisor of a
           run has ended with it
=========  ============================================================================================

Through the pipe supervisors show what they put on record. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback

assert sys.platform != "win32"

if __name__ == "__main__":  # nothing is on the path but the standard library; add the folder that holds our package
    sys.path.append(os.path.abspath(__file__).rsplit(os.sep, 5)[0])

from edbjobs_server.executors.local.linux import processes, supervisor  # noqa: E402
from edbjobs_server.util import failpoints  # noqa: E402

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_NAME = b"edbjobs-run"
_LIBC = ctypes.CDLL(None, use_errno=True)
_REUSABLE = 16  # supervisors with a socket, at most
_IDLE = 8  # of them without a run
_IDLE_SECONDS = 20.0  # after which one without a run ends
_QUIET_SECONDS = 1.0  # without a request, after which supervisors that are free are noticed at once
_LARGEST_READ = 1 << 16  # a larger buffer would be mapped and unmapped for each request


class _Supervisor:
    """One supervisor: the run that it has, and the socket through which it can get the next one."""

    __slots__ = ("idle_since", "name", "work")

    def __init__(self, name: str, work: socket.socket | None) -> None:
        self.name = name  # empty: it is idle
        self.work = work
        self.idle_since = 0.0


class Launcher:
    """Forks, reuses and reaps supervisors.

    Parameters
    ----------
    channel : socket
        Stream to the service.
    host : Host
        Handed on to the supervisors.
    """

    def __init__(self, channel: socket.socket, host: supervisor.Host) -> None:
        self._channel: socket.socket | None = channel
        self._host = host
        self._received = bytearray()
        self._supervisors: dict[int, _Supervisor] = {}  # by pid
        self._working: dict[int, int] = {}  # pid by the number of its socket; who has been on its run for longest first
        self._idle: list[int] = []  # pids; who has waited for longest first
        self._children = _open_child_signals()
        self._poller = select.poll()
        self._poller.register(self._children, select.POLLIN)
        self._poller.register(channel, select.POLLIN)
        self._callers = select.poll()  # all but the supervisors
        self._callers.register(self._children, select.POLLIN)
        self._callers.register(channel, select.POLLIN)
        self._requested = False  # within the last _QUIET_SECONDS
        self._answer({"launcher": os.getpid(), "base": True})

    def serve(self) -> None:
        """Work until the service is gone and no supervisor is left."""
        while self._channel is not None or self._supervisors:
            numbers = self._wait()
            for number in numbers & self._working.keys():  # before the requests, which they may take
                self._set_free(number)
            if self._children in numbers:
                self._reap()
            if self._channel is not None and self._channel.fileno() in numbers:
                self._receive()
            self._retire_idle()

    def _wait(self) -> set[int]:
        """Return the descriptors that can be read, once there are some, or it is time to look at those without a run.

        While requests come one after the other, supervisors that are free are noticed with the next request: to be
        woken for each of them costs as much as the request.
        """
        if self._requested and self._callers.poll(_QUIET_SECONDS * 1000):
            ready = self._poller.poll(0)
        else:
            self._requested = False
            ready = self._poller.poll(_IDLE_SECONDS * 500 if self._idle else None)
        return {number for number, _ in ready}

    def _set_free(self, number: int) -> None:
        """Take a supervisor back that has ended its run, or notice that it will end itself."""
        pid = self._working[number]
        one = self._supervisors[pid]
        assert one.work is not None
        try:
            received = one.work.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received or one.name == "":
            self._let_end(pid)
            return
        one.name = ""
        one.idle_since = time.monotonic()
        self._idle.append(pid)

    def _let_end(self, pid: int) -> None:
        """Close the socket of a supervisor: it ends after its run, or at once if it has none."""
        one = self._supervisors[pid]
        if one.work is not None:
            self._poller.unregister(one.work)
            del self._working[one.work.fileno()]
            one.work.close()
            one.work = None
        if pid in self._idle:
            self._idle.remove(pid)

    def _retire_idle(self) -> None:
        before = time.monotonic() - _IDLE_SECONDS
        while self._idle and (len(self._idle) > _IDLE or self._supervisors[self._idle[0]].idle_since < before):
            self._let_end(self._idle[0])

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._children, 4096)  # one signal may stand for many children
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._let_end(pid)
            name = self._supervisors.pop(pid).name
            if name:
                self._answer({"gone": name})

    def _receive(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(_LARGEST_READ)
        except OSError as error:
            if processes.is_transient(error.errno):
                return
            data = b""  # it ended without reading our last answer
        if not data:
            self._poller.unregister(self._channel)
            self._callers.unregister(self._channel)
            self._channel.close()
            self._channel = None
            for pid in list(self._working.values()):
                self._let_end(pid)
            return
        self._received += data
        while len(self._received) >= 4:
            end = 4 + int.from_bytes(self._received[:4], "big")
            if len(self._received) < end:
                return
            name, _, request = bytes(self._received[4:end]).partition(b"\n")
            del self._received[:end]
            if name:
                self._requested = True
                self._launch(name.decode(), request)
            else:
                self._host.environment = json.loads(request)

    def _launch(self, name: str, request: bytes) -> None:
        failpoints.point("launcher.before_fork")
        if len(request) > supervisor.LARGEST_REQUEST or not self._hand_over(name, request):
            self._fork(name, request)

    def _hand_over(self, name: str, request: bytes) -> bool:
        """Hand a run to an idle supervisor. One that dies now has not claimed it; its end is reported."""
        while self._idle:
            pid = self._idle.pop()
            one = self._supervisors[pid]
            assert one.work is not None
            try:
                one.work.send(request, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:
                self._let_end(pid)
                continue
            one.name = name
            number = one.work.fileno()
            del self._working[number]
            self._working[number] = pid
            return True
        return False

    def _fork(self, name: str, request: bytes) -> None:
        ours, theirs = _work_sockets()
        try:
            pid = os.fork()
        except OSError as error:
            for end in (ours, theirs):
                if end is not None:
                    end.close()
            self._answer({"name": name, "error": str(error), "errno": error.errno})
            return
        if pid == 0:
            self._become_supervisor(request, ours, theirs)
        self._supervisors[pid] = _Supervisor(name, ours)
        if ours is not None and theirs is not None:
            theirs.close()
            self._working[ours.fileno()] = pid
            self._poller.register(ours, select.POLLIN)
            if len(self._working) > _REUSABLE:
                self._let_end(next(iter(self._working.values())))

    def _become_supervisor(self, request: bytes, ours: socket.socket | None, theirs: socket.socket | None) -> None:
        status = 1
        try:
            _lead_session()
            if ours is not None:
                ours.close()
            self._let_go()
            with contextlib.suppress(OSError, ValueError):  # the limit was lowered from outside
                resource.setrlimit(resource.RLIMIT_NOFILE, self._host.descriptors)  # for solvers; we need few
            supervisor.serve(request, self._host, -1 if theirs is None else theirs.fileno())
            status = 0
        except BaseException:
            supervisor.complain(traceback.format_exc())
        finally:
            os._exit(status)

    def _let_go(self) -> None:
        """In a supervisor: close what is the launcher's, or the others would never see the launcher's end."""
        os.close(self._children)
        if self._channel is not None:
            self._channel.close()
        for number in self._working:
            os.close(number)

    def _answer(self, answer: dict[str, object]) -> None:
        if self._channel is None:
            return
        try:
            self._channel.sendall(json.dumps(answer).encode() + b"\n", socket.MSG_NOSIGNAL)
        except OSError:  # the service is gone; its successor finds the run by its record
            return


def _work_sockets() -> tuple[socket.socket, socket.socket] | tuple[None, None]:
    """Make the connection to a supervisor that can be used again; none if there are no descriptors left."""
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return None, None


def _open_child_signals() -> int:
    """Open a descriptor that reports children that have ended (``signalfd``, which Python does not have)."""
    numbers = (ctypes.c_ulong * (128 // ctypes.sizeof(ctypes.c_ulong)))()
    _LIBC.sigemptyset(numbers)
    _LIBC.sigaddset(numbers, int(signal.SIGCHLD))
    opened: int = _LIBC.signalfd(-1, numbers, os.O_NONBLOCK | os.O_CLOEXEC)
    if opened < 0:
        raise OSError(ctypes.get_errno(), "cannot wait for supervisors")
    return opened


def _lead_session() -> None:
    os.setsid()
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot adopt the run's orphaned processes")
    _LIBC.prctl(_PR_SET_NAME, _NAME, 0, 0, 0)


def main() -> None:
    """Detach, get ready, serve."""
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # ours may have been started with some of them ignored
    signal.pthread_sigmask(signal.SIG_BLOCK, (*supervisor.SIGNALS, *supervisor.IGNORED))
    channel, notify, soft_limit = map(int, sys.argv[1:])
    for inherited in (channel, notify):
        os.set_inheritable(inherited, False)
    os.get_exec_path()  # loads what it needs now: after an upgrade the files on disk may be others
    processes.raise_descriptor_limit()
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    host = supervisor.Host(processes.here().facts(), notify, (soft_limit, hard_limit))
    gc.disable()  # nothing here makes cycles, and a collection would touch, hence copy, every page
    gc.freeze()
    Launcher(socket.socket(fileno=channel), host).serve()


if __name__ == "__main__":
    main()
