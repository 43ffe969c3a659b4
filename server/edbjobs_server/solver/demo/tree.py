"""The demo solver's processes: the same tree as AEDT's, so that ending a run is tested on a real tree.

On Linux ``ansysedt`` is a shell script; the program is a second process, ``ansysedt.exe``, and its engines
are further ones (read in process listings, pyaedt issue 7196); ending the script alone leaves them running.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

MAX_ENGINES = 8
CAN_FORK = hasattr(os, "fork")  # not on Windows: there the demo solver is one process


def run_wrapped(program: Callable[[], int]) -> int:
    """Run the program as a second process and give its exit code as a shell does: 128 + n for signal n."""
    if not CAN_FORK:
        return program()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        rename("ansysedt.exe")
        _leave(program)
    rename("ansysedt")
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def rename(name: str) -> None:
    """Give this process the name that ``ps`` and ``/proc`` show; nothing where there is no /proc."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write(name)
    except OSError:
        return


class Engines:
    """The solver's children. They live while the program holds the other end of their pipe.

    Parameters
    ----------
    kind : str
        normal, stubborn, daemon or ansyscl: see `behavior.CHILDREN`.
    linger : float
        Longest time that a child which does not end with the program lives on, in seconds.
    """

    def __init__(self, kind: str, linger: float) -> None:
        self._kind = kind
        self._linger = linger
        self._pids: list[int] = []
        self._pipe: tuple[int, int] | None = None

    def start(self, count: int) -> None:
        """Start the engines, at most `MAX_ENGINES` of them."""
        if not CAN_FORK:
            return
        self._pipe = os.pipe()
        if self._kind == "ansyscl":
            self._fork("ansyscl", self._detached)
        for _ in range(min(count, MAX_ENGINES)):
            self._fork(
                "hf3d",
                {"stubborn": self._stubborn, "daemon": self._detached}.get(self._kind, self._until_eof),
            )

    def stop(self) -> None:
        """End the engines that can be ended and collect them; one that ignores this is left behind."""
        if self._pipe is None:
            return
        os.close(self._pipe[0])
        os.close(self._pipe[1])
        self._pipe = None
        for pid in self._pids if self._kind != "stubborn" else ():
            os.waitpid(pid, 0)

    def _fork(self, name: str, life: Callable[[], int]) -> None:
        # TERM waits meanwhile: in the new process the program's handler would abort the solve a second time.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            rename(name)
            if self._pipe is not None:
                os.close(self._pipe[1])  # else it would keep its siblings from seeing the program's end
            _leave(life)
        self._pids.append(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def _until_eof(self) -> int:
        if self._pipe is not None:
            os.read(self._pipe[0], 1)
        return 0

    def _stubborn(self) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(self._linger)
        return 0

    def _detached(self) -> int:
        if os.fork() == 0:
            os.setsid()
            time.sleep(self._linger)
        return 0


def _leave(program: Callable[[], int]) -> None:
    """End a forked process with the program's exit code, without the parent's clean-up."""
    code = 1
    try:
        code = program()
    finally:
        os._exit(code)
