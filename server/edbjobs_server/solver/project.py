"""Projects on disk: what they are, who has them open, which results they have. Everything here may block.

Each function raises an `OSError` only if it is transient (`edbjobs_server.util.files.is_transient`): the caller looks
again, or answers `unreachable`. What is definite is a value or a `Refused`.

After a job was accepted, its project is its real path as it was then. That path is used as it is: to resolve it anew
would follow a link that somebody has changed since. `moved` says whether that has happened.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edbjobs.config import ExistingResults

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
RESULTS = (".aedtresults", ".aedbresults")  # beside the project, by its name without suffix
_STALE_SECONDS = 2.0  # an .aedt is written a moment after its .aedb when both are saved together
_OWNER_BYTES = 200
_TICK_SECONDS = 0.02


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
class Lock:
    """AEDT's lock file of a project: who made it, as far as can be told, and when."""

    path: Path
    mtime: float
    owner: str


@dataclass(frozen=True, slots=True)
class Folder:
    """The real path of a folder, whether the service's account may write in it, and its longest file name."""

    real: str
    writable: bool
    name_limit: int


@dataclass(slots=True)
class Seen:
    """What was found at projects of one moment and holds for others too, as each look costs calls of the system.

    Attributes
    ----------
    folders : dict of str to Folder
        By name as clients gave it.
    readable : set of tuple of int
        File system, owner, group and mode of files that could be opened. Files that are alike in these are readable
        alike if this account is root or owns them; an access control list may tell others apart.
    """

    folders: dict[str, Folder] = field(default_factory=dict)
    readable: set[tuple[int, int, int, int]] = field(default_factory=set)


def inspect(path: str, seen: Seen | None = None) -> Project:
    """Look at a project that is to be solved.

    Parameters
    ----------
    path : str
        As the client gave it.
    seen : Seen, optional
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
    seen = Seen() if seen is None else seen
    real, status = _real(path, seen)
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
    if alike is None or alike not in seen.readable:
        refuse_unreadable(path, readable, kind)
        if alike is not None:
            seen.readable.add(alike)
    folder = _folder(parent, seen)
    if not folder.writable:
        raise invalid(path, "lies in a folder that the service's account cannot write: lock, log and results go there")
    refuse_long(path, name, folder.name_limit)
    stem = real[: -len(kind) - 1]
    return Project(real, os.path.normcase(stem), kind)


def inspect_or_refuse(path: str) -> Project:
    """Do as `inspect`, for a request that can be repeated: what cannot be looked at now is refused as well.

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
    """Return the answer to a request whose project cannot be looked at now, for a transient reason."""
    text = f"{path} cannot be looked at now: {text_of(error)}; is its file system mounted and its server up? Try again"
    return Refused("PATH_UNREACHABLE", text, fields={FIELD: "cannot be looked at now"})


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
    """Return a sentence that says that a path leads elsewhere now."""
    return f"{path} now leads to {real}: a link in its path was changed after the submission"


def project_key(path: str | Path) -> str:
    """Return the name under which a project is run only once at a time: its real path without suffix."""
    return _key(files.real_path(os.fspath(path)))


def _key(real: str) -> str:
    stem, suffix = os.path.splitext(real)
    return os.path.normcase(stem if suffix[1:].lower() in KINDS else real)


def _real(path: str, seen: Seen) -> tuple[str, os.stat_result | None]:
    """Return the real path and, where one look told both, the status of what stands there."""
    parent, name = os.path.split(path)
    if name in ("", ".", "..") or sys.platform == "win32":  # where a name has a short form as well
        return files.real_path(path), None
    real = os.path.join(_folder(parent, seen).real, name)
    status = _status(real, follow=False)
    if status is not None and stat.S_ISLNK(status.st_mode):
        return files.real_path(real), None
    return real, status


def _status(path: str, *, follow: bool = True) -> os.stat_result | None:
    """Return the status of what stands at a path; None: there is none, and the next look at it will tell why."""
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


def _folder(path: str, seen: Seen) -> Folder:
    folder = seen.folders.get(path)
    if folder is None:
        real = files.real_path(path)
        folder = seen.folders[path] = Folder(real, files.is_writable_folder(real), files.name_limit(real))
    return folder


def lock_state(project: Project) -> Lock | None:
    """Return the lock of a project, under whichever of its suffixes it was opened; None: it is not locked.

    Raises
    ------
    Refused
        INVALID_JOB: the place of a lock may not be looked at.
    OSError
        A transient one.
    """
    for path in _locks(project.path):
        try:
            found = files.status_of(path, follow=False)
        except OSError as error:
            if is_transient(error):
                raise
            raise invalid(str(project.path), f"has a lock that cannot be looked at: {text_of(error)}") from error
        if found is not None:
            return Lock(path, found.st_mtime, _owner(path, found.st_uid))
    return None


def remove_own_lock(path: str | Path, started_at: float) -> Path | None:
    """Remove the lock that an ended run of ours left; call it only when no process of that run is left.

    Parameters
    ----------
    path : path
        Real path of the project.
    started_at : float
        When the run started. An older lock is another's, and so is one of another account: neither is touched.

    Returns
    -------
    Path or None
        What was removed; None also where a lock may not be removed.

    Raises
    ------
    OSError
        A transient one.
    """
    for lock in _locks(Path(path)):
        try:
            found = files.status_of(lock, follow=False)
            if found is None:
                continue
            ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            if ours and found.st_mtime >= _file_time(started_at, found.st_mtime_ns):
                if moved(os.path.dirname(path)):  # then it is that of another project
                    return None
                with suppress(FileNotFoundError):
                    os.unlink(lock)
                return lock
        except OSError as error:
            if is_transient(error):
                raise
    return None


def results_exist(project: Project) -> tuple[Path, ...]:
    """Return the results that lie beside the project.

    Raises
    ------
    Refused
        RESULTS_EXIST: the place of the results may not be looked at.
    OSError
        A transient one.
    """
    return tuple(folder for folder, _ in _results(project.key))


def refuse_results(project: Project, existing_results: ExistingResults) -> None:
    """Refuse to solve a project with results, if the job asks for that.

    Raises
    ------
    Refused
        RESULTS_EXIST.
    OSError
        A transient one.
    """
    if existing_results is not ExistingResults.REFUSE:
        return
    found = results_exist(project)
    if found:
        raise Refused(
            "RESULTS_EXIST",
            f"{found[0]} exists and the job asks to leave results alone (existing_results); move it away, or submit "
            "with CLEAR to remove it or KEEP to solve on top of it",
            fields={"config.existing_results": "results exist"},
        )


def clear_results(path: str | Path) -> tuple[Path, ...]:
    """Remove a project's results, just before a run that asks for it: the folders of `RESULTS`, nothing else.

    Logs and ``.q.completed`` of earlier runs stay: a run is judged only by what bears its own name.

    Parameters
    ----------
    path : path
        Real path of the project.

    Returns
    -------
    tuple of Path
        What was removed.

    Raises
    ------
    Refused
        RESULTS_EXIST: a symbolic link stands there, and what it leads to may be others' data, so it is not followed;
        or they may not be removed.
    OSError
        A transient one; some of the results may be gone.
    """
    found = _results(_key(os.fspath(path)))
    for folder, mode in found:
        if not stat.S_ISDIR(mode):
            raise _cannot_clear(f"{folder} is a link or no folder, so it is not removed")
    for folder, _ in found:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # somebody else removes them as well
        except OSError as error:
            if is_transient(error):
                raise
            raise _cannot_clear(f"{folder} cannot be removed: {text_of(error)} ({error.filename})") from error
    return tuple(folder for folder, _ in found)


def _results(key: str) -> list[tuple[Path, int]]:
    """Return what stands at the places of results, each with its mode."""
    found: list[tuple[Path, int]] = []
    for suffix in RESULTS:
        folder = Path(key + suffix)
        try:
            mode = files.mode_of(folder, follow=False)
        except OSError as error:
            if is_transient(error):
                raise
            raise _cannot_clear(f"{folder} may exist, but cannot be looked at: {text_of(error)}") from error
        if mode is not None:
            found.append((folder, mode))
    return found


def _cannot_clear(text: str) -> Refused:
    return Refused(
        "RESULTS_EXIST",
        f"{text}; remove it yourself, or submit with KEEP",
        fields={"config.existing_results": "results cannot be removed"},
    )


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


def _file_time(moment: float, like_ns: int) -> float:
    """Give the least time a file made at this moment may bear: file systems keep whole seconds, or clock ticks."""
    return float(int(moment)) if like_ns % 1_000_000_000 == 0 else moment - _TICK_SECONDS


def _locks(project: Path) -> tuple[Path, ...]:
    own = Path(f"{project}.lock")  # its suffix may be in capitals
    return (own, *(other for kind in KINDS if (other := project.with_suffix(f".{kind}.lock")) != own))


def _owner(path: Path, uid: int) -> str:
    try:
        with files.open_regular(path, follow=False) as file:
            text = file.read(_OWNER_BYTES).decode("utf-8", "replace")
    except OSError as error:
        if is_transient(error):
            raise
        text = ""
    words = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(words.split()) or _account(uid)


def _account(uid: int) -> str:
    if sys.platform == "win32":
        return ""
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return ""
