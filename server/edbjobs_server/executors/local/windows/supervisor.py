"""The supervisor of one run under Windows, and what it shares with the service; see `windows`.

Type-checked for win32, but never run on a Windows host yet. Started by the service with its request, JSON as on
Linux, on standard input.
"""

from __future__ import annotations

import ctypes
import json
import msvcrt
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[4]))

from edbjobs_server.executors.local import record

assert sys.platform == "win32"

import winreg  # noqa: E402

import pywintypes  # noqa: E402
import win32api  # noqa: E402
import win32con  # noqa: E402
import win32event  # noqa: E402
import win32job as _win32job  # noqa: E402
import win32process  # noqa: E402

win32job: Any = _win32job  # its stubs say that functions which return handles return None
ACCESS = win32con.SYNCHRONIZE | 0x1000  # PROCESS_QUERY_LIMITED_INFORMATION
_BOOT = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
_RETRY = 1.0  # seconds between attempts at what must succeed in the end
_LOOK = 0.2  # seconds between looks at processes that were left behind


def boot_id() -> str:
    """Return a number that Windows raises with every boot."""
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _BOOT) as key:
        return str(winreg.QueryValueEx(key, "BootId")[0])


def here() -> record.Here:
    """Say where this process lives."""
    return record.Here(socket.gethostname(), boot_id(), "")


def ticks_of(process: int) -> int:
    """Return the creation time of a process."""
    created: float = win32process.GetProcessTimes(process)["CreationTime"].timestamp()
    return round(created * 1000)


def has_ended(process: int) -> bool:
    """Return whether a process has ended."""
    return win32event.WaitForSingleObject(process, 0) == win32con.WAIT_OBJECT_0


def open_process(pid: int, ticks: int) -> int | None:
    """Open a live process; None if it has ended or is another one by now."""
    try:
        process = win32api.OpenProcess(ACCESS, False, pid)
    except pywintypes.error:
        return None
    return None if ticks_of(process) != ticks or has_ended(process) else process


def name_of(uid: str, attempt: int, what: str) -> str:
    """Name of a run's kernel object."""
    return f"Global\\edbjobs-{what}-{uid}-{attempt}"


def pids_of(job: int) -> list[int]:
    """List the processes of a job."""
    return list(win32job.QueryInformationJobObject(job, win32job.JobObjectBasicProcessIdList))


def open_job(uid: str, attempt: int) -> int | None:
    """Open the Job Object of a run, if a process of it or its supervisor is left."""
    access = win32job.JOB_OBJECT_QUERY | win32job.JOB_OBJECT_TERMINATE
    try:
        job: int = win32job.OpenJobObject(access, False, name_of(uid, attempt, "job"))
    except pywintypes.error:
        return None
    return job


def identity() -> dict[str, int]:
    """Say who this process is."""
    return {"pid": os.getpid(), "ticks": ticks_of(win32process.GetCurrentProcess())}


class Supervisor:
    """One claimed run.

    Parameters
    ----------
    request : dict
        What the service sent.
    file : int
        The record, open.
    """

    def __init__(self, request: dict[str, Any], file: int) -> None:
        self._request = request
        self._file = file
        self._job: int = win32job.CreateJobObject(None, name_of(request["uid"], request["attempt"], "job"))
        name = name_of(request["uid"], request["attempt"], "cancel")
        self._cancel = win32event.CreateEvent(None, True, False, name)
        self._cause = ""
        self._code: int | None = None
        self._failure = ""

    def run(self) -> None:
        """Carry the run through, to its end line."""
        try:
            solver = self._start()
        except (OSError, pywintypes.error) as error:
            self._failure = f"the run could not be started: {error}"
        else:
            self._follow(solver)
            self._clear()
        line = self._end_line()
        while not self._wrote(line):
            time.sleep(_RETRY)

    def _start(self) -> int:
        """Create the solver suspended, put the start on record, resume it."""
        self._kill_with_us(True)
        flags = win32process.CREATE_SUSPENDED | win32process.CREATE_NO_WINDOW | win32process.CREATE_UNICODE_ENVIRONMENT
        command = subprocess.list2cmdline(self._request["argv"])
        env, cwd = self._request["env"], self._request["cwd"]
        process, thread, pid, _ = win32process.CreateProcess(
            None, command, None, None, True, flags, env, cwd, self._streams()
        )
        try:
            win32job.AssignProcessToJobObject(self._job, process)
            line = {"t": "start", "pid": pid, "ticks": ticks_of(process), "time": time.time()}
            record.append(self._file, line, sync=True)
            self._kill_with_us(False)
        except (OSError, pywintypes.error):
            win32process.TerminateProcess(process, 1)
            raise
        win32process.ResumeThread(thread)
        return process

    def _streams(self) -> Any:
        start = win32process.STARTUPINFO()
        start.dwFlags = win32process.STARTF_USESTDHANDLES
        numbers = [os.open("NUL", os.O_RDONLY)]
        for name in ("stdout", "stderr"):
            path = os.path.join(self._request["folder"], name)
            numbers.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_BINARY))
        handles = [msvcrt.get_osfhandle(number) for number in numbers]
        for handle in handles:
            os.set_handle_inheritable(handle, True)
        start.hStdInput, start.hStdOutput, start.hStdError = handles
        return start

    def _kill_with_us(self, on: bool) -> None:
        what = win32job.JobObjectExtendedLimitInformation
        limits = win32job.QueryInformationJobObject(self._job, what)
        limits["BasicLimitInformation"]["LimitFlags"] = win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE if on else 0
        win32job.SetInformationJobObject(self._job, what, limits)

    def _follow(self, solver: int) -> None:
        limit = self._request["limit"]
        if record.read(self._request["folder"]).cancel is not None:  # asked before there was an event to set
            win32event.SetEvent(self._cancel)
        wait = win32event.INFINITE if limit is None else min(round(limit * 1000), win32event.INFINITE - 1)
        got = win32event.WaitForMultipleObjects([solver, self._cancel], False, wait)
        if got != win32con.WAIT_OBJECT_0:
            self._cause = "timeout" if got == win32con.WAIT_TIMEOUT else "cancelled"
            win32job.TerminateJobObject(self._job, 1)
            return
        # Signed, as Windows' own tools and HPC Pack show it: 0xC0000005 is -1073741819, and the contract has 32 bits.
        self._code = ctypes.c_int32(win32process.GetExitCodeProcess(solver)).value

    def _clear(self) -> None:
        """Wait until nothing is left but the keep-list, which is spared if the solver ended by itself."""
        until = time.monotonic() + (0.0 if self._cause else self._request["linger"])
        reported: list[int] = []
        while left := self._left():
            late = time.monotonic() - until
            if late >= 0 or win32event.WaitForSingleObject(self._cancel, 0) == win32con.WAIT_OBJECT_0:
                for pid in left:
                    _terminate(pid)
            if late >= self._request["unkillable"] and left != reported:
                reported = left
                record.append(self._file, {"t": "stuck", "pids": left, "time": time.time()})
            time.sleep(_LOOK)

    def _left(self) -> list[int]:
        keep = set() if self._cause else {name.lower() for name in self._request["keep"]}
        return sorted(pid for pid in pids_of(self._job) if _program(pid) not in keep)

    def _end_line(self) -> dict[str, Any]:
        accounts = win32job.QueryInformationJobObject(self._job, win32job.JobObjectBasicAccountingInformation)
        limits = win32job.QueryInformationJobObject(self._job, win32job.JobObjectExtendedLimitInformation)
        message = self._failure
        if self._cause == "timeout":
            message = f"the wall-clock limit of {self._request['limit']:g} s was reached"
        return {
            "t": "end",
            "ending": "start_failed" if self._failure else self._cause or "exited",
            "code": self._code,
            "signal": None,
            "time": time.time(),
            "cpu": (accounts["TotalUserTime"] + accounts["TotalKernelTime"]) / 1e7,
            "rss": limits["PeakProcessMemoryUsed"],
            "message": message,
        }

    def _wrote(self, line: dict[str, Any]) -> bool:
        try:
            record.append(self._file, line, sync=True)
        except OSError:
            return False
        return True


def _program(pid: int) -> str:
    """Name of a process's program, without folder and ending, in lower case."""
    try:
        process = win32api.OpenProcess(win32con.PROCESS_QUERY_INFORMATION | win32con.PROCESS_VM_READ, False, pid)
        path: str = win32process.GetModuleFileNameEx(process, 0)
    except pywintypes.error:
        return ""
    return Path(path).stem.lower()


def _terminate(pid: int) -> None:
    try:
        win32process.TerminateProcess(win32api.OpenProcess(win32con.PROCESS_TERMINATE, False, pid), 1)
    except pywintypes.error:  # it has ended, or cannot be ended: it is looked at again
        return


def main() -> None:
    """Read the request, claim the run, carry it through."""
    request = json.load(sys.stdin.buffer)
    facts = {name: request[name] for name in ("seq", "uid", "attempt", "keep", "info")}
    file = record.claim(request["folder"], {"kind": "run", **here().facts(), **identity(), **facts})
    if file is not None:
        Supervisor(request, file).run()


if __name__ == "__main__":
    main()
