"""Projects on disk: what they are, who has them open, which results they have. Everything here may block.

Each function raises an `OSError` only if it is transient (`edbjobs_server.util.files.is_transient`): the caller looks
again, or answers `unreachable`. What is definite is a value or a `Refused`.

After a job was accepted, its project is its real path as it was then. That path is used as it is: to resolve it again
would follow a link that was changed since. `moved` detects that.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.project_checks import (
    FIELD,
    invalid,
    refuse_long,
    refuse_text,
    refuse_unreadable,
    status_of_project,
)
from edbjobs_server.util import files
from edbjobs_server.util.files import is_transient, text_of

KINDS = ("aedb", "aedt", "aedtz")
_STALE_SECONDS = 2.0  # an .aedt is written a moment after its .aedb when both are saved together


@dataclass(frozen=True, slots=True)
class Project:
    """A project that exists.

    Attributes
    ----------
    real : str
        Real path.
    key : str
        Real path without suffix: .aedb, .aedt and .aedtz of one name are one project.
    kind : str
        ``aedb``, ``aedt`` or ``aedtz``.
    """

    real: str
    key: str
    kind: str

    @property
    def path(self) -> Path:
        """The real path; not made for each submission, as it takes as long as looking at the project."""
        return Path(self.real)


@dataclass(frozen=True, slots=True)
class Folder:
    """The real path of a folder, whether the service's account may write in it, and its longest file name."""

    real: str
    writable: bool
    name_limit: int


@dataclass(slots=True)
class InspectionCache:
    """What was found at projects of one moment and holds for others too, as each look costs calls of the system.

    Attributes
    ----------
    folders : dict of str to Folder
        By name as clients gave it.
    readable : set of tuple of int
        File system, owner, group and mode of files that could be opened. Files that are alike in these are readable
        alike if this account is root or owns them; for other accounts an access control list may differ.
    """

    folders: dict[str, Folder] = field(default_factory=dict)
    readable: set[tuple[int, int, int, int]] = field(default_factory=set)


def inspect(path: str, cache: InspectionCache | None = None) -> Project:
    """Look at a project that is to be solved.

    Parameters
    ----------
    path : str
        As the client gave it.
    cache : InspectionCache, optional
        What was found in the same moment; added to.

    Raises
    ------
    Refused
        INVALID_JOB for a path that can be none: relative, of another system, of another kind, not readable, in
        a folder that cannot be written, with a name that leaves no room for the log's. PROJECT_NOT_FOUND where there
        is nothing.
    OSError
        A transient one.
    """
    refuse_text(path)
    cache = InspectionCache() if cache is None else cache
    real, status = _real(path, cache)
    parent, name = os.path.split(real)
    kind = os.path.splitext(name)[1][1:].lower()
    if kind not in KINDS:
        raise invalid(path, "must be a .aedt or .aedtz file or a .aedb folder")
    status = status or status_of_project(path, real)
    readable = real
    if kind == "aedb":
        readable = os.path.join(real, "edb.def")
        if not stat.S_ISDIR(status.st_mode):
            raise invalid(path, "is no folder, as an .aedb project is")
        status = _status(readable)
    elif not stat.S_ISREG(status.st_mode):
        raise invalid(path, f"is no file, as a .{kind} project is")
    alike = _alike(status)
    if alike is None or alike not in cache.readable:
        refuse_unreadable(path, readable, kind)
        if alike is not None:
            cache.readable.add(alike)
    folder = _folder(parent, cache)
    if not folder.writable:
        raise invalid(path, "is in a folder that the service's account cannot write: lock, log and results go there")
    refuse_long(path, name, folder.name_limit)
    stem = real[: -len(kind) - 1]
    return Project(real, os.path.normcase(stem), kind)


def inspect_or_refuse(path: str) -> Project:
    """Do as `inspect`, for a request that can be repeated: a project that cannot be read now is refused as well.

    Raises
    ------
    Refused
        As `inspect`; PATH_UNREACHABLE for a transient error.
    """
    try:
        return inspect(path)
    except OSError as error:
        raise unreachable(path, error) from error


def unreachable(path: str, error: OSError) -> Refused:
    """Return the refusal of a request whose project cannot be read now, for a transient reason."""
    text = f"{path} cannot be read now: {text_of(error)}; check that its file system is mounted and try again"
    return Refused("PATH_UNREACHABLE", text, fields={FIELD: "cannot be read now"})


def moved(path: str) -> str:
    """Return what has changed if a project's path leads elsewhere now; empty: it does not.

    Parameters
    ----------
    path : str
        Real path of the project, as it was when the job was accepted.

    Raises
    ------
    OSError
        A transient one.
    """
    real = files.real_path(path)
    if os.path.normcase(real) == os.path.normcase(path):
        return ""
    return moved_text(path, real)


def moved_text(path: str, real: str) -> str:
    """Return the error text for a path that leads elsewhere now."""
    return f"{path} now leads to {real}: a link in its path was changed after the submission"


def project_key(path: str | Path) -> str:
    """Return the name under which a project is run only once at a time: its real path without suffix."""
    return key_of(files.real_path(os.fspath(path)))


def key_of(real: str) -> str:
    """Return the key of a project by its real path: the path without suffix."""
    stem, suffix = os.path.splitext(real)
    return os.path.normcase(stem if suffix[1:].lower() in KINDS else real)


def _real(path: str, cache: InspectionCache) -> tuple[str, os.stat_result | None]:
    """Return the real path and, where one system call gave both, its status."""
    parent, name = os.path.split(path)
    if name in ("", ".", "..") or sys.platform == "win32":  # where a name has a short form as well
        return files.real_path(path), None
    real = os.path.join(_folder(parent, cache).real, name)
    status = _status(real, follow=False)
    if status is not None and stat.S_ISLNK(status.st_mode):
        return files.real_path(real), None
    return real, status


def _status(path: str, *, follow: bool = True) -> os.stat_result | None:
    """Return the status of a path; None: not available, and the next access will raise the reason."""
    try:
        return files.status_of(path, follow=follow)
    except OSError as error:
        if is_transient(error):
            raise
        return None


def _alike(status: os.stat_result | None) -> tuple[int, int, int, int] | None:
    """Return by what files are readable alike; None: each must be asked for."""
    if status is None or sys.platform == "win32" or not stat.S_ISREG(status.st_mode):
        return None
    if os.geteuid() not in (0, status.st_uid):
        return None
    return status.st_dev, status.st_uid, status.st_gid, status.st_mode


def _folder(path: str, cache: InspectionCache) -> Folder:
    folder = cache.folders.get(path)
    if folder is None:
        real = files.real_path(path)
        folder = cache.folders[path] = Folder(real, files.is_writable_folder(real), files.name_limit(real))
    return folder


def stale_sibling(project: Project) -> str:
    """Return a warning of an .aedt that is older than the .aedb beside it: AEDT would solve what it held then.

    Raises
    ------
    OSError
        A transient one.
    """
    if project.kind == "aedtz":
        return ""
    try:
        newer = os.stat(project.key + ".aedb/edb.def").st_mtime
        older = os.stat(project.key + ".aedt").st_mtime
    except OSError as error:
        if is_transient(error):
            raise
        return ""
    if older + _STALE_SECONDS >= newer:
        return ""
    saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(older))
    name = os.path.basename(project.key)
    return f"{name}.aedt is older ({saved}) than {name}.aedb beside it: AEDT may solve what was last saved in it"
