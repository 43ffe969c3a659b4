"""The supervisor of a run: starts the solver, ends it when asked, and records how it ended.

It is forked from the launcher, outlives the service, and exits last. It is the leader of the run's session and
adopts every process of the run that daemonizes (child subreaper): if it has no child, no process of the run is left.
It is single threaded; its signals are blocked and fetched one at a time, so that none is missed and none interrupts
anything. Linux only, standard library only.

After a run without remaining processes it may take the next one from the launcher, which saves a short run the fork
of a supervisor. The rules that keep this safe:

* One run at a time, each with its end on record: `supervise` returns only after the end is on disk, or if the run is
  claimed by another supervisor. Any exception ends the process. So a claimer that lives and has written no end is
  active on that run.
* Another run is taken only after one that was started, whose processes have all ended (``wait4`` reports no child),
  and whose end was written under the lock of its record. A request to end a run is also signalled under that lock,
  and only if there is no end: a signal pending after the end belongs to this run, and is discarded.
* What a run changes in the supervisor, its folder and for a moment its mask, is restored at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
import traceback

from edbjobs_server.executors.local import record
from edbjobs_server.executors.local.linux import processes, solver_process
from edbjobs_server.util import failpoints

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGNALS = (signal.SIGCHLD, signal.SIGUSR1)  # a child ended; the service asks for the end of the run
# Blocked in launcher and supervisors; a file size limit must be an error that can be retried.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)
LARGEST_REQUEST = 1 << 16  # bytes of a request that is handed to a supervisor; a larger one gets a new supervisor
_CANCEL = (signal.SIGUSR1,)
_RUNS = 1000  # of one supervisor, which bounds what can grow in it
_UNSTARTED = 125  # stands for the exit code of a solver that was never started
_RETRY = 1.0  # seconds between attempts of what must succeed
_LONGEST = 3600.0  # seconds that a supervisor sleeps at most
_LOCK_SECONDS = 5.0  # how long a service that does not respond can delay the record of an end


class Host:
    """Data that all runs of a launcher share.

    Attributes
    ----------
    facts : dict
        Host, boot and pid namespace for the claims.
    notify : int
        Pipe to the service for notifications: the run's name, a blank, and a line of the record.
    descriptors : (int, int)
        Soft and hard limit of open files for solvers.
    environment : dict
        Environment of the runs; a request has the differences. Set before the first of them.
    """

    __slots__ = ("descriptors", "environment", "facts", "notify")

    def __init__(self, facts: dict[str, str], notify: int, descriptors: tuple[int, int]) -> None:
        self.facts = facts
        self.notify = notify
        self.descriptors = descriptors
        self.environment: dict[str, str] = {}


def serve(request: bytes, host: Host, work: int) -> None:
    """Supervise runs, one after the other, until there is no more or this process should not be used again.

    Parameters
    ----------
    request : bytes
        The first run, as JSON, as `launcher` reads it from the service.
    host : Host
        Shared data of the launcher.
    work : int
        Socket to the launcher: a byte reports that this process is free, then comes a request or the end of the
        stream. -1: there is no second run.
    """
    identity = {**host.facts, "pid": os.getpid(), "ticks": processes.own_ticks()}
    for number in range(1, _RUNS + 1):
        one = supervise(json.loads(request), host, identity)
        if one is None:
            return
        free = work >= 0 and number < _RUNS and one.leave()
        try:
            if free:  # before the end is notified: the service's next request then finds this process free
                os.write(work, b"f")
        except OSError:
            free = False
        one.notify_end()
        try:
            request = os.read(work, LARGEST_REQUEST) if free else b""
        except OSError:  # the launcher is gone
            return
        if not request:
            return


def supervise(request: dict[str, Any], host: Host, identity: dict[str, Any]) -> Supervisor | None:
    """Claim the run and supervise it until its end is on record; do nothing if it is claimed already.

    Parameters
    ----------
    request : dict
        The run.
    host : Host
        Shared data of the launcher.
    identity : dict
        Host, boot, pid namespace, pid and start ticks of this process.

    Returns
    -------
    Supervisor or None
        None if another supervisor has claimed the run.
    """
    failpoints.point("supervisor.before_claim")
    facts = {name: request[name] for name in ("seq", "uid", "attempt", "keep", "info")}
    file = record.claim(request["folder"], {"kind": "run", **identity, **facts})
    if file is None:
        return None
    failpoints.point("supervisor.after_claim")
    supervisor = Supervisor(request, file, host)
    supervisor.start()
    supervisor.follow()
    failpoints.point("supervisor.before_end")
    supervisor.write_end()
    failpoints.point("supervisor.after_end")
    return supervisor


def complain(text: str) -> None:
    """Write to the launcher's log. The log may be on the disk that is full; that ends nothing."""
    try:
        os.write(2, text.encode(errors="replace") + b"\n")
    except OSError:
        return


class Supervisor:
    """One claimed run.

    Parameters
    ----------
    request : dict
        As `supervise`.
    file : int
        The record, open.
    host : Host
        As `supervise`.
    """

    def __init__(self, request: dict[str, Any], file: int, host: Host) -> None:
        self._request = request
        self._file = file
        self._host = host
        self._solver = 0
        self._status: int | None = None  # of the solver; set when it has ended
        self._failure = ""  # why the solver could not be started
        self._errno: int | None = None  # the same
        self._cause = ""  # why the supervisor ended it, an ending's name
        self._started = False
        self._cancel_requested = False
        self._alone = False
        self._ended_alone = False  # the end was written under the lock, so no request to end this run can follow
        self._limit_at: float | None = None
        self._linger_until: float | None = None
        self._kill_at: float | None = None
        self._stuck: list[int] = []
        self._end: dict[str, Any] = {}
        self._cpu = 0.0
        self._rss = 0

    def start(self) -> None:
        """Put the start on record, then start the solver and record which process it is.

        The start is on disk before the solver runs. Its process may be missing there after a loss of power, and after
        a kill at this very moment; then it is found by its mark.
        """
        outputs: list[int] = []
        try:
            self._open_outputs(outputs)
            if signal.sigtimedwait(_CANCEL, 0) is not None:  # cancelled before anything started
                self._cause = "cancelled"
                return
            self._enter_folder()
            start = {"t": "start", "pid": 0, "ticks": 0, "time": time.time()}
            record.append(self._file, start, sync=True)
            failpoints.point("supervisor.after_start_line")
            self._solver = solver_process.start_solver(self._request, self._host.environment, *outputs)
            self._started = True
            failpoints.point("supervisor.after_go")
            if self._request["limit"] is not None:
                self._limit_at = time.monotonic() + self._request["limit"]
            self._notify({**start, **self._record_solver()})
        except OSError as error:
            self._failure, self._errno = f"the run could not be started: {error}", error.errno
        except solver_process.NotExecuted as error:
            self._failure, self._errno = str(error), error.number
        finally:
            for number in outputs:
                os.close(number)
            if not self._started:
                self._status = _UNSTARTED << 8
            os.chdir("/")

    def _open_outputs(self, outputs: list[int]) -> None:
        folder = self._request["folder"]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        outputs.extend(os.open(f"{folder}/{name}", flags, 0o600) for name in ("stdout", "stderr"))

    def _enter_folder(self) -> None:
        folder = self._request["cwd"]
        try:
            os.chdir(folder)
        except (OSError, ValueError) as error:
            reason, number = (error.strerror, error.errno or 0) if isinstance(error, OSError) else (str(error), 0)
            text = f"the run could not enter its working directory {folder}: {reason}"
            raise solver_process.NotExecuted(text, number) from error

    def _record_solver(self) -> dict[str, int]:
        """Put the solver's process on record, and return its pid and start ticks."""
        solver = processes.look(self._solver)
        assert solver is not None  # a child, and not yet reaped
        found = {"pid": solver.pid, "ticks": solver.ticks}
        try:
            record.append(self._file, {"t": "solver", **found})
        except OSError as error:  # it runs, and is supervised
            complain(f"{self._request['folder']}: the solver's process is not on record: {error}")
        return found

    def follow(self) -> None:
        """Wait until no process of the run is left."""
        while True:
            try:
                self._reap()
                if self._status is not None and (self._alone or not self._others()):
                    return
                self._act(time.monotonic())
                self._wait()
            except Exception:
                complain(traceback.format_exc())
                time.sleep(_RETRY)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._alone = True
                return
            self._alone = False
            if pid == 0:
                return
            self._cpu += usage.ru_utime + usage.ru_stime
            self._rss = max(self._rss, usage.ru_maxrss * 1024)
            if pid == self._solver:
                self._status = status

    def _others(self) -> list[processes.Process]:
        """Return the processes of the run that are left."""
        everybody = processes.table()
        found = processes.descendants([os.getpid()], everybody)
        return processes.without(found, self._request["keep"], everybody)

    def _act(self, now: float) -> None:
        if self._cancel_requested:
            self._cancel_requested = False
            self._end_all("cancelled", now, self._requested_grace())
        elif self._kill_at is None and self._status is not None:
            if self._linger_until is None:
                self._linger_until = now + self._request["linger"]
            if now >= self._linger_until:
                self._end_all("", now, self._request["grace"])
        elif self._kill_at is None and self._limit_at is not None and now >= self._limit_at:
            self._end_all("timeout", now, self._request["grace"])
        if self._kill_at is not None and now >= self._kill_at:
            left = self._others()
            processes.kill(left)
            if now >= self._kill_at + self._request["unkillable"]:
                self._report_stuck(sorted(process.pid for process in left))

    def _end_all(self, cause: str, now: float, grace: float) -> None:
        """Terminate every process, and kill later; if repeated, no later than after the grace of this call."""
        if self._kill_at is not None:
            self._kill_at = min(self._kill_at, now + grace)
            return
        if self._status is None:  # else it ended by itself, and that is recorded
            self._cause = cause
        self._kill_at = now + grace
        processes.terminate(self._others())

    def _requested_grace(self) -> float:
        try:
            line = record.read(self._request["folder"]).cancel
        except OSError:  # the service may have been unable to write it, too
            line = None
        grace: float = self._request["grace"] if line is None else line["grace"]
        return grace

    def _report_stuck(self, pids: list[int]) -> None:
        if pids != self._stuck:
            line = {"t": "stuck", "pids": pids, "time": time.time()}
            record.append(self._file, line)
            self._stuck = pids
            self._notify(line)

    def _wait(self) -> None:
        """Wait for a signal or the next deadline."""
        now = time.monotonic()
        until = [now + _LONGEST]
        if self._limit_at is not None and self._kill_at is None:
            until.append(self._limit_at)
        if self._status is not None:  # processes that are no children end without a signal
            until.append(now + _RETRY)
        if self._linger_until is not None and self._kill_at is None:
            until.append(self._linger_until)
        if self._kill_at is not None:
            until.append(self._kill_at if now < self._kill_at else now + _RETRY)
        fetched = signal.sigtimedwait(SIGNALS, max(0.0, min(until) - now))
        if fetched is not None and fetched.si_signo == signal.SIGUSR1:
            self._cancel_requested = True

    def write_end(self) -> None:
        """Put the end on record; retry until it is there."""
        self._end = self._end_line()
        while not self._wrote(self._end):
            time.sleep(_RETRY)

    def notify_end(self) -> None:
        """Notify the service of the end."""
        self._notify(self._end)

    def leave(self) -> bool:
        """Forget the run; return whether nothing of it is left that could affect another run."""
        clean = self._started and self._alone and self._ended_alone
        if clean:
            os.close(self._file)
            while signal.sigtimedwait(SIGNALS, 0) is not None:
                pass
        return clean

    def _wrote(self, line: dict[str, Any]) -> bool:
        try:
            self._ended_alone = self._lock()
            record.append(self._file, line, sync=True)
        except OSError as error:
            if self._ended_alone:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            complain(f"{self._request['folder']}: the end is not yet on record: {error}")
            return False
        return True

    def _lock(self) -> bool:
        try:
            return processes.lock(self._file, fcntl.LOCK_EX, _LOCK_SECONDS)
        except OSError:  # not on this file system
            return False

    def _end_line(self) -> dict[str, Any]:
        status = self._status if self._started else None
        code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        message = self._failure
        if message:
            ending, code = ("never_ran" if processes.is_transient(self._errno) else "start_failed"), None
        elif self._cause:
            ending = self._cause
        else:
            ending = "exited" if number is None else "signalled"
        if ending == "timeout":
            message = f"the wall-clock limit of {self._request['limit']:g} s was reached"
        result = {"code": code, "signal": number, "time": time.time(), "cpu": round(self._cpu, 6), "rss": self._rss}
        return {"t": "end", "ending": ending, **result, "message": message}

    def _notify(self, line: dict[str, Any]) -> None:
        """Notify the service of a line that is on record; it also reads the record from time to time."""
        name = self._request["name"]
        message = f"{name} {json.dumps(line)}\n".encode()
        if len(message) > select.PIPE_BUF:  # it could mix with those of other supervisors: the record is read instead
            message = f"{name} \n".encode()
        try:
            os.write(self._host.notify, message)
        except OSError:  # there is no reader, or it is far behind
            return
