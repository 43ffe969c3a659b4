"""How a supervisor starts its solver. Linux only."""

from __future__ import annotations

import errno
import os
import signal
import sys

assert sys.platform != "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:  # the launcher imports this file: every module it loads is copied into each supervisor
    from collections.abc import Mapping
    from typing import Any

_NO_SIGNALS: tuple[signal.Signals, ...] = ()
_DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class NotExecuted(Exception):
    """The solver could not be started; `number` is the system's error."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


def start_solver(request: Mapping[str, Any], base: Mapping[str, str], stdout: int, stderr: int) -> int:
    """Start the solver in the present folder, and return its pid.

    `posix_spawn` copies nothing of this process, in difference to a fork. The solver gets a process group of its own,
    so that a program that signals its group does not hit the supervisor. Its environment is the one of the launcher's
    runs, with the differences of the request.

    Parameters
    ----------
    request : dict
        The run.
    base : mapping of str to str
        Environment of the launcher's runs.
    stdout, stderr : int
        Files for its output.

    Raises
    ------
    NotExecuted
        It cannot be executed.
    """
    name, umask = request["argv"][0], request.get("umask")
    before = None if umask is None else os.umask(umask)  # the record is for this account alone, results are not
    try:
        environment = _environment(request, base)
        return os.posix_spawn(
            _program(name, environment),
            request["argv"],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)],
            setpgroup=0,
            setsigmask=_NO_SIGNALS,
            setsigdef=_DEFAULT_SIGNALS,
        )
    except OSError as error:
        raise NotExecuted(f"the run could not execute {name}: {error.strerror}", error.errno or 0) from error
    except ValueError as error:
        raise NotExecuted(f"the run could not execute {name}: {error}", errno.EINVAL) from error
    finally:
        if before is not None:
            os.umask(before)


def _program(name: str, environment: Mapping[str, str]) -> str:
    """Return the path of a program; one that is named without a folder is looked for on the run's own PATH."""
    if os.sep in name:
        return name
    places = (os.path.join(folder, name) for folder in os.get_exec_path(environment))
    return next((place for place in places if os.access(place, os.X_OK)), name)


def _environment(request: Mapping[str, Any], base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a run: exactly what the service was asked to give it."""
    environment = {**base, **request["env"]}
    for name in request.get("unset", ()):  # a service of an earlier version has no base, and sends all
        del environment[name]
    return environment
