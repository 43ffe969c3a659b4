"""The demo solver's log, written line by line in the grammar of AEDT's batch log, and its witness file."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

LABEL = "edbjobs demo solver: nothing is really solved"


def clock(now: float) -> str:
    """Time as in the log's header: local, twelve hours, no zone."""
    local = time.localtime(now)
    return f"{local.tm_hour % 12 or 12}:{time.strftime('%M:%S %p  %b %d, %Y', local)}"


def day_time(now: float) -> str:
    """Time as inside the log's lines."""
    return time.strftime("%m/%d/%Y %H:%M:%S", time.localtime(now))


def duration(seconds: float) -> str:
    """Duration as in the log."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def host_name() -> str:
    """Name of this host, without the weight of the socket module."""
    return os.uname().nodename if sys.platform != "win32" else os.environ.get("COMPUTERNAME", "localhost")


def emit(data: bytes) -> bool:
    """Write on stdout past any buffer, so that nothing is left to fail at the exit; False where it cannot be."""
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        return False
    return True


class Journal:
    """Writes each line at once, so that the log can be followed while it grows.

    Parameters
    ----------
    paths : tuple of Path
        Log files; each is appended to, as AEDT does.
    project, design : str
        Names that appear in each message.
    echo : bool
        Print the same on stdout: AEDT's ``-monitor``.
    """

    def __init__(self, paths: tuple[Path, ...], project: str, design: str, echo: bool) -> None:
        self.project = project
        self.design = design
        self._echo = echo
        self._files = []
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            self._files.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))

    def raw(self, text: str) -> None:
        """Write lines as they are."""
        data = (text + "\n").encode()
        for file in self._files:
            os.write(file, data)
        if self._echo:
            self._echo = emit(data)  # where the reader is gone or the disk is full, the solve itself continues

    def message(self, text: str, level: str = "info") -> None:
        """Write a message of the design."""
        stamp = clock(time.time())
        self.raw(f"[{level}] Project:{self.project}, Design:{self.design}, {text} ({stamp})")

    def profile(self, setup: str, text: str, kind: str = "PROFILE") -> None:
        """Write a line of a setup's profile or convergence."""
        self.raw(f"[info] Project:{self.project}, {setup} : [{kind}] {text} ({clock(time.time())})")


class Witness:
    """Records for a test, in a separate file, what each run observed: synced, so that a kill loses nothing.

    A line is ``start|end|sigterm <jobid> <pid> <start ticks> <boot id> <monotonic ns>``.
    """

    def __init__(self, folder: str, job_id: str) -> None:
        self._job_id = job_id or "none"
        self._path = os.path.join(folder, self._job_id) if folder else ""

    def note(self, what: str) -> None:
        """Append a line."""
        if not self._path:
            return
        pid = os.getpid()
        line = f"{what} {self._job_id} {pid} {_ticks(pid)} {_boot_id()} {time.monotonic_ns()}\n"
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)


def _ticks(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return "0"


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "-"
