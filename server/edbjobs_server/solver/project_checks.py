"""Checks of a project's path before a job is accepted; each raises its refusal."""

from __future__ import annotations

import os
import platform
import re
import sys

from edbjobs_server.core.errors import Refused
from edbjobs_server.util import files
from edbjobs_server.util.files import is_transient, text_of

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
FIELD = "config.project_path"
# AEDT's log of a project with a long name is named <project>-<number>-<attempt>.log, of as many digits as there can be.
_MOST_BYTES = 4  # of a character of a file name
_LOG_NAME_BYTES = len("-") + 12 + len("-") + 4 + len(".log")


def refuse_text(path: str) -> None:
    """Refuse a text that can be no project's path on this host."""
    if not path:
        raise invalid(path, "is required")
    if _CONTROL.search(path) or '"' in path:
        raise invalid(path, "has a line break, a control character or a quote")
    if sys.platform != "win32" and _DRIVE.match(path):
        raise invalid(
            path,
            "is a Windows path, and this service runs on "
            f"{sys.platform}: give the path under which this host sees the same folder",
        )
    if not os.path.isabs(path):
        raise invalid(path, "must be absolute: the service has no current folder of yours")


def status_of_project(path: str, real: str) -> os.stat_result:
    """Return the status of a real path; refuse a project that does not exist."""
    try:
        return os.stat(real)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(
            "PROJECT_NOT_FOUND",
            f"{path} does not exist on {platform.node()}; give the path as the service's host sees it",
            fields={FIELD: "does not exist"},
        ) from None
    except OSError as error:
        if is_transient(error):
            raise
        raise invalid(path, f"cannot be reached: {text_of(error)}") from error


def refuse_unreadable(path: str, readable: str, kind: str) -> None:
    """Refuse a project whose file, `readable`, may not be read or is none."""
    no_project = invalid(path, "holds no edb.def, so it is no .aedb project") if kind == "aedb" else None
    try:
        if files.is_readable(readable):
            return
    except (FileNotFoundError, files.NotRegularFile) as error:
        raise no_project or invalid(path, f"is no file any more: {text_of(error)}") from error
    except OSError as error:
        if is_transient(error):
            raise
        raise invalid(path, f"cannot be reached: {text_of(error)}") from error
    raise invalid(path, "cannot be read by the service's account")


def refuse_long(path: str, name: str, limit: int) -> None:
    """Refuse a name beside which the solver cannot write its log, whose name is the longest of all it makes."""
    stem = os.path.splitext(name)[0]
    longest = limit - _LOG_NAME_BYTES
    if len(stem) * _MOST_BYTES <= longest:  # as of nearly all
        return
    if files.name_length(stem) > longest:
        raise invalid(
            path,
            f"has a name of {files.name_length(stem)} bytes without its suffix, and at most {longest} are possible: "
            f"the solver's log is named by it and the run's number, and the file system allows names of {limit} bytes",
        )


def invalid(path: str, wrong: str) -> Refused:
    """Return the refusal of a path, with what is wrong with it."""
    return Refused("INVALID_JOB", f"project {path!r} {wrong}", fields={FIELD: wrong})
