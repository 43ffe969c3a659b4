"""The environment of a solve: the service's own without what is not the solver's business, and a job's additions.

A variable can make a program execute another one: by LD_PRELOAD, but also by an MPI's launcher or a wrapper of
AEDT's. So a job may add only names of the solver and its libraries, and of those none that names a program,
a library or a place where such are looked for.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from edbjobs_server.core.errors import Refused

ALLOWED = ("ANS*", "I_MPI_*", "MPI_*", "FI_*", "OMP_*", "MKL_*", "KMP_*")
MAX_VALUE = 32_768

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EXECUTES = re.compile(
    r"(^|_)(EXEC\w*|ROOT\d*|\w*PATH|LIB|LIBS|LIBRARY|LIBRARIES|WRAPPER|PREFIX|UTILS|TOOL|TOOLS|COMMAND|CMD|SCRIPT"
    r"|PRELOAD|PLUGIN|BINARY|BIN|LAUNCHER|AGENT|REMSH|RSH|SSH|SHELL|REMSHELL|GDB|DEBUGGER)(_|$)"
)
# What belongs to the service's own process, its Python, or the manager that started it.
_OWN = (
    "EDBJOBS_*",
    "VIRTUAL_ENV*",
    "PYTHON*",
    "_OLD_VIRTUAL_*",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_*",
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|JWT|APIKEY|(^|_)KEYS?$|_KEY_ID$|PRIVATE_?KEY")


def environment(
    base: Mapping[str, str], additions: Mapping[str, str], allow: Sequence[str] = (), platform: str = sys.platform
) -> dict[str, str]:
    """Make the environment of a run.

    Parameters
    ----------
    base : mapping of str to str
        The service's environment.
    additions : mapping of str to str
        What the job adds; takes precedence.
    allow : sequence of str
        Names and patterns that a job may add besides `ALLOWED`.
    platform : str
        ``sys.platform`` of the host.

    Returns
    -------
    dict
        The whole environment.

    Raises
    ------
    Refused
        ENVIRONMENT_NOT_ALLOWED: see `refuse_environment`.
    """
    refuse_environment(additions, allow)
    return {**inherited(base, platform), **additions}


def inherited(base: Mapping[str, str], platform: str = sys.platform) -> dict[str, str]:
    """Make what every run gets of the service's environment: all but what is withheld."""
    kept = {name: value for name, value in base.items() if not _withheld(name.upper())}
    folder = base.get("VIRTUAL_ENV")
    if folder and "PATH" in kept:
        scripts = os.path.normpath(os.path.join(folder, "Scripts" if platform == "win32" else "bin"))
        separator = ";" if platform == "win32" else ":"
        entries = kept["PATH"].split(separator)
        kept["PATH"] = separator.join(e for e in entries if not e or os.path.normpath(e) != scripts)
    return kept


def refuse_environment(additions: Mapping[str, str], allow: Sequence[str] = ()) -> None:
    """Refuse variables that a job may not add.

    A name that `allow` writes out in full is allowed whatever it means: the administrator has named it.

    Raises
    ------
    Refused
        ENVIRONMENT_NOT_ALLOWED, with each field and what is wrong with it.
    """
    fields = {
        f"config.environment[{name}]": wrong
        for name, value in additions.items()
        if (wrong := _what_is_wrong(name, value, allow))
    }
    if fields:
        text = "; ".join(f"{field}: {wrong}" for field, wrong in fields.items())
        raise Refused("ENVIRONMENT_NOT_ALLOWED", f"these variables cannot be added to a run: {text}", fields=fields)


def _what_is_wrong(name: str, value: str, allow: Sequence[str]) -> str:
    if not _NAME.fullmatch(name):
        return "is no variable's name"
    if _CONTROL.search(value) or len(value) > MAX_VALUE:
        return "its value has a line break or control character, or is too long"
    if name in allow:
        return ""
    if not any(fnmatchcase(name, pattern) for pattern in (*ALLOWED, *allow)):
        return f"only {', '.join((*ALLOWED, *allow))} may be added"
    if _EXECUTES.search(name.upper()):
        return "could make the run execute another program; the administrator can set it for the whole service"
    return ""


def _withheld(name: str) -> bool:
    if any(fnmatchcase(name, pattern) for pattern in _OWN):
        return True
    return _SECRET.search(name) is not None
