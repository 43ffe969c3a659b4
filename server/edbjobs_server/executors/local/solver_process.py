"""What a solver's process does between its fork from the supervisor and its own program. Linux only."""

from __future__ import annotations

import os
import resource
import signal
import sys

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:  # the launcher imports this file: every module it loads is copied into each supervisor
    from collections.abc import Mapping
    from typing import Any, NoReturn

UNSTARTED = 125  # exit code of a process that was never let go
UNEXECUTABLE = 127


def become_solver(
    request: dict[str, Any],
    descriptors: tuple[int, int],
    environment: Mapping[str, str],
    held: int,
    error_pipe: int,
    stdout: int,
    stderr: int,
) -> NoReturn:
    """In the forked process: wait to be let go, then become the solver.

    It gets a process group of its own, so that a program that signals its group does not hit the supervisor. Its
    environment is the one of the launcher's runs, with what the request says is different.
    """
    doing = "be set up"
    try:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
        if os.read(held, 1) != b"1":
            os._exit(UNSTARTED)
        if request.get("umask") is not None:  # the record is for this account alone, results have the usual mode
            os.umask(request["umask"])
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        doing = f"enter its working directory {request['cwd']}"
        os.chdir(request["cwd"])
        doing = f"execute {request['argv'][0]}"
        execute = os.execve if os.sep in request["argv"][0] else os.execvpe  # the first is much cheaper
        execute(request["argv"][0], request["argv"], _environment(request, environment))
    except (OSError, ValueError) as error:
        reason, number = (error.strerror, error.errno or 0) if isinstance(error, OSError) else (str(error), 0)
        os.write(error_pipe, f"{number} the run could not {doing}: {reason}".encode(errors="replace")[:4096])
    finally:
        os._exit(UNEXECUTABLE)


def _environment(request: Mapping[str, Any], base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a run: exactly what the service was asked to give it."""
    environment = {**base, **request["env"]}
    for name in request.get("unset", ()):  # a service of an earlier version has no base, and sends all
        del environment[name]
    return environment
