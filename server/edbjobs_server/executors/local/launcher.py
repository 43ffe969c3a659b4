"""The launcher: one small process, started with the service, that forks a supervisor for each run.

Started as ``python -I -S -E launcher.py SOCKET PIPE`` with two inherited file descriptors. It detaches itself,
so that it is nobody's child and lives on when the service ends; then it reads what was already sent, stays
only to reap its supervisors, and leaves with the last one. It has one thread and loads nothing but a few
modules of the standard library, because each fork copies it.

The service sends requests, the launcher answers each of them in order.

=========  ============================================================================================
request    4 bytes of length (network order), then JSON: ``name`` and ``folder`` of the run, ``seq``, ``uid``,
           ``attempt``, ``argv``, ``cwd``, ``env``, ``keep``, ``info``, ``limit`` (seconds of wall-clock time or null),
           ``grace`` (seconds between TERM and KILL), ``linger`` (seconds for what a solver leaves behind),
           ``unkillable`` (seconds after KILL until processes that are still there are reported)
answer     a JSON line ``{"name", "pid"}`` with the supervisor's pidfd attached, or ``{"name", "error"}``.
           The first line is ``{"launcher": pid}``
=========  ============================================================================================

Through the pipe supervisors show what they put on record. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback

assert sys.platform != "win32"

if __name__ == "__main__":  # nothing is on the path but the standard library; add the folder that holds our package
    sys.path.append(os.path.abspath(__file__).rsplit(os.sep, 4)[0])

from edbjobs_server.executors.local import faults, processes, supervisor  # noqa: E402

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_NAME = b"edbjobs-run"
_LIBC = ctypes.CDLL(None, use_errno=True)
_LOADED = (resource,)  # needed by wait4, which would load it in each supervisor, perhaps after an upgrade


class Launcher:
    """Forks and reaps supervisors.

    Parameters
    ----------
    channel : socket
        Stream to the service.
    notify : int
        Pipe to the service, handed on to the supervisors.
    """

    def __init__(self, channel: socket.socket, notify: int) -> None:
        self._channel: socket.socket | None = channel
        self._notify = notify
        self._here = processes.here().facts()
        self._received = bytearray()
        self._supervisors: dict[int, int] = {}  # pidfd: pid
        self._poller = select.poll()
        self._poller.register(channel, select.POLLIN)
        self._answer({"launcher": os.getpid()})

    def serve(self) -> None:
        """Work until the service is gone and no supervisor is left."""
        while self._channel is not None or self._supervisors:
            for number, _ in self._poller.poll():
                if number in self._supervisors:
                    self._reap(number)
                else:
                    self._receive()

    def _reap(self, pidfd: int) -> None:
        self._poller.unregister(pidfd)
        os.close(pidfd)
        os.waitpid(self._supervisors.pop(pidfd), 0)

    def _receive(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(1 << 18)
        except ConnectionResetError:  # it ended without reading our last answer
            data = b""
        if not data:
            self._poller.unregister(self._channel)
            self._channel.close()
            self._channel = None
            return
        self._received += data
        while len(self._received) >= 4:
            end = 4 + int.from_bytes(self._received[:4], "big")
            if len(self._received) < end:
                return
            request = json.loads(self._received[4:end])
            del self._received[:end]
            self._launch(request)

    def _launch(self, request: dict[str, object]) -> None:
        faults.point("launcher.before_fork")
        try:
            pid = os.fork()
        except OSError as error:
            self._answer({"name": request["name"], "error": str(error)})
            return
        if pid == 0:
            self._become_supervisor(request)
        pidfd = os.pidfd_open(pid)
        self._supervisors[pidfd] = pid
        self._poller.register(pidfd, select.POLLIN)
        self._answer({"name": request["name"], "pid": pid}, pidfd)

    def _become_supervisor(self, request: dict[str, object]) -> None:
        status = 1
        try:
            _lead_session()
            self._let_go()
            supervisor.supervise(request, self._here, self._notify)
            status = 0
        except BaseException:
            supervisor.complain(traceback.format_exc())
        finally:
            os._exit(status)

    def _let_go(self) -> None:
        """In a supervisor: close what is the launcher's, or the service would never see the launcher's end."""
        if self._channel is not None:
            self._channel.close()
        for pidfd in self._supervisors:
            os.close(pidfd)

    def _answer(self, answer: dict[str, object], *pidfds: int) -> None:
        if self._channel is None:
            return
        try:
            socket.send_fds(self._channel, [json.dumps(answer).encode() + b"\n"], pidfds)
        except OSError:  # the service is gone; its successor finds the run by its record
            return


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
    for number in supervisor.IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.WANTED)
    for inherited in sys.argv[1:]:
        os.set_inheritable(int(inherited), False)
    os.get_exec_path()  # loads what it needs now: after an upgrade the files on disk may be others
    gc.disable()  # nothing here makes cycles, and a collection would touch, hence copy, every page
    gc.freeze()
    Launcher(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
