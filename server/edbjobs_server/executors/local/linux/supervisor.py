"""The supervisor of a run: starts the solver, ends it when asked, and records how it ended.

It is forked from the launcher, outlives the service, and goes last. It is the leader of the run's session and
adopts every process of the run that daemonises (child subreaper), so that "no child is left" means "nothing of
the run is left". It is single threaded; the signals it wants are blocked and fetched one at a time, so none is
missed and none interrupts anything. Linux only, standard library only.

After a run of which nothing is left it may take the next one from the launcher, so that a short run does not pay for
the fork of a supervisor. The rules that keep this safe:

* One run at a time, and none is left without an end on record: `supervise` returns only after the end is on disk, or
  if the run is another's. Whatever is raised ends the process. So a claimer that lives and has written no end is
  on that run.
* Another run is taken only after one that was started, whose processes have all ended (``wait4`` says that there is
  no child), and whose end was written under the lock of its record. Whoever asks for the end of a run sends the
  signal under that lock, too, and only if there is no end: what is pending after the end was for this run, and is
  thrown away.
* What the supervisor changes of itself for a run, its folder and for a moment its mask, it puts back at once.
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

WANTED = (signal.SIGCHLD, signal.SIGUSR1)  # a child ended; the service asks for the end of the run
IGNORED = (  # blocked in launcher and supervisors; a file size limit shall be an error that can be retried
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
LARGEST_REQUEST = 1 << 16  # bytes of a request that is handed to a supervisor; a larger one gets a new supervisor
_CANCEL = (signal.SIGUSR1,)
_RUNS = 1000  # of one supervisor, so that nothing can grow for ever
_UNSTARTED = 125  # stands for the exit code of a solver that was never started
_RETRY = 1.0  # seconds between attempts at what must succeed in the end
_LONGEST = 3600.0  # seconds that a supervisor sleeps at most
_LOCK_SECONDS = 5.0  # a service that stands still must not keep an end from the record for longer


class Host:
    """What is the same for all runs of a launcher.

    Attributes
    ----------
    facts : dict
        Host, boot and pid namespace for the claims.
    notify : int
        Pipe to the service for news: the run's name, a blank, and a line as it stands in the record.
    descriptors : (int, int)
        Soft and hard limit of open files for solvers.
    environment : dict
        Environment of the runs; a request says what is different. Set before the first of them.
    """

    __slots__ = ("descriptors", "environment", "facts", "notify")

    def __init__(self, facts: dict[str, str], notify: int, descriptors: tuple[int, int]) -> None:
        self.facts = facts
        self.notify = notify
        self.descriptors = descriptors
        self.environment: dict[str, str] = {}


def serve(request: bytes, host: Host, work: int) -> None:
    """Carry runs through, one after the other, until there is no more or this process should not be used again.

    Parameters
    ----------
    request : bytes
        The first run, as JSON: what `launcher` reads from the service.
    host : Host
        Where we are.
    work : int
        Socket to the launcher: a byte says that this process is free, then comes a request or the end of the
        stream. -1: there is no second run.
    """
    identity = {**host.facts, "pid": os.getpid(), "ticks": processes.own_ticks()}
    for number in range(1, _RUNS + 1):
        one = supervise(json.loads(request), host, identity)
        if one is None:
            return
        free = work >= 0 and number < _RUNS and one.leave()
        try:
            if free:  # said before the end is told: what the service asks for after that finds us free
                os.write(work, b"f")
        except OSError:
            free = False
        one.tell_end()
        try:
            request = os.read(work, LARGEST_REQUEST) if free else b""
        except OSError:  # the launcher is gone
            return
        if not request:
            return


def supervise(request: dict[str, Any], host: Host, identity: dict[str, Any]) -> Supervisor | None:
    """Claim the run and carry it through to its end on record; do nothing if it is claimed already.

    Parameters
    ----------
    request : dict
        The run.
    host : Host
        Where we are.
    identity : dict
        Host, boot, pid namespace, pid and start ticks of this process.

    Returns
    -------
    Supervisor or None
        None if the run is another's.
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
    """Write to the launcher's log. The log may be on the very disk that is full; nothing ends because of that."""
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
        self._status: int | None = None  # of the solver; set when nothing more is to be expected of it
        self._failure = ""  # why the solver could not be started
        self._errno: int | None = None  # the same
        self._cause = ""  # why we ended it, an ending's name
        self._started = False
        self._asked = False
        self._alone = False
        self._ended_alone = False  # the end was written when nobody could send a request to end this run any more
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
            if signal.sigtimedwait(_CANCEL, 0) is not None:  # cancelled before anything began
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
            self._tell({**start, **self._record_solver()})
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
        """Put the solver's process on record, and return what is known of it."""
        solver = processes.look(self._solver)
        assert solver is not None  # our child, and not yet reaped
        found = {"pid": solver.pid, "ticks": solver.ticks}
        try:
            record.append(self._file, {"t": "solver", **found})
        except OSError as error:  # it runs, and is followed
            complain(f"{self._request['folder']}: the solver's process is not on record: {error}")
        return found

    def follow(self) -> None:
        """Wait until nothing of the run is left."""
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
        """Find what is left of the run."""
        everybody = processes.table()
        found = processes.descendants([os.getpid()], everybody)
        return processes.without(found, self._request["keep"], everybody)

    def _act(self, now: float) -> None:
        if self._asked:
            self._asked = False
            self._end_all("cancelled", now, self._asked_grace())
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
        """Ask every process to end, and kill later; asked again, kill no later than this time's grace."""
        if self._kill_at is not None:
            self._kill_at = min(self._kill_at, now + grace)
            return
        if self._status is None:  # else it ended by itself, and that stands
            self._cause = cause
        self._kill_at = now + grace
        processes.terminate(self._others())

    def _asked_grace(self) -> float:
        try:
            line = record.read(self._request["folder"]).cancel
        except OSError:  # the service may not have been able to write it either
            line = None
        grace: float = self._request["grace"] if line is None else line["grace"]
        return grace

    def _report_stuck(self, pids: list[int]) -> None:
        if pids != self._stuck:
            line = {"t": "stuck", "pids": pids, "time": time.time()}
            record.append(self._file, line)
            self._stuck = pids
            self._tell(line)

    def _wait(self) -> None:
        """Wait for a signal or for the next thing to do."""
        now = time.monotonic()
        until = [now + _LONGEST]
        if self._limit_at is not None and self._kill_at is None:
            until.append(self._limit_at)
        if self._status is not None:  # processes that are not our children end without a signal to us
            until.append(now + _RETRY)
        if self._linger_until is not None and self._kill_at is None:
            until.append(self._linger_until)
        if self._kill_at is not None:
            until.append(self._kill_at if now < self._kill_at else now + _RETRY)
        fetched = signal.sigtimedwait(WANTED, max(0.0, min(until) - now))
        if fetched is not None and fetched.si_signo == signal.SIGUSR1:
            self._asked = True

    def write_end(self) -> None:
        """Put the end on record; tries until it is there."""
        self._end = self._end_line()
        while not self._wrote(self._end):
            time.sleep(_RETRY)

    def tell_end(self) -> None:
        """Show the service the end."""
        self._tell(self._end)

    def leave(self) -> bool:
        """Forget the run; returns whether nothing of it is left that another run could meet."""
        clean = self._started and self._alone and self._ended_alone
        if clean:
            os.close(self._file)
            while signal.sigtimedwait(WANTED, 0) is not None:
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
        return {
            "t": "end",
            "ending": ending,
            "code": code,
            "signal": number,
            "time": time.time(),
            "cpu": round(self._cpu, 6),
            "rss": self._rss,
            "message": message,
        }

    def _tell(self, line: dict[str, Any]) -> None:
        """Show the service a line that is on record; it also looks at the record by itself now and then."""
        name = self._request["name"]
        message = f"{name} {json.dumps(line)}\n".encode()
        if len(message) > select.PIPE_BUF:  # it could mix with those of other supervisors: have the record read
            message = f"{name} \n".encode()
        try:
            os.write(self._host.notify, message)
        except OSError:  # nobody is there, or it is far behind
            return
