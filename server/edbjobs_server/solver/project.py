"""Projects on disk: what they are, who has them open, which results they have. Everything here may block."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edbjobs.config import ExistingResults

from edbjobs_server.core.errors import Refused

KINDS = ("aedb", "aedt", "aedtz")
RESULTS = (".aedtresults", ".aedbresults")  # beside the project, by its name without suffix
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_FIELD = "config.project_path"
_STALE_SECONDS = 2.0  # an .aedt is written a moment after its .aedb when both are saved together
_OWNER_BYTES = 200
_TICK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Project:
    """A project that exists.

    Attributes
    ----------
    path : Path
        Real path.
    key : str
        Real path without suffix: .aedb, .aedt and .aedtz of one name are one project.
    kind : str
        ``aedb``, ``aedt`` or ``aedtz``.
    """

    path: Path
    key: str
    kind: str


@dataclass(frozen=True, slots=True)
class Lock:
    """AEDT's lock file of a project: who made it, as far as can be told, and when."""

    path: Path
    mtime: float
    owner: str


@dataclass(frozen=True, slots=True)
class Folder:
    """The real path of a folder, and whether the service's account may write in it."""

    real: str
    writable: bool


def inspect(path: str, folders: dict[str, Folder] | None = None) -> Project:
    """Look at a project that is to be solved.

    Parameters
    ----------
    path : str
        As the client gave it.
    folders : dict, optional
        Folders that were looked at in the same moment, by name; added to. Each look costs several calls of the system.

    Raises
    ------
    Refused
        INVALID_JOB for a path that can be none: relative, of another system, of another kind, not readable, in
        a folder that cannot be written. PROJECT_NOT_FOUND where there is nothing.
    """
    _refuse_text(path)
    folders = {} if folders is None else folders
    real = _real(path, folders)
    parent, name = os.path.split(real)
    kind = os.path.splitext(name)[1][1:].lower()
    if kind not in KINDS:
        raise _invalid(path, "must be a .aedt or .aedtz file or a .aedb folder")
    mode = _mode(path, real)
    readable = real
    if kind == "aedb":
        readable = os.path.join(real, "edb.def")
        _refuse_folder(path, mode, readable)
    elif not stat.S_ISREG(mode):
        raise _invalid(path, f"is no file, as a .{kind} project is")
    if not os.access(readable, os.R_OK):
        raise _invalid(path, "cannot be read by the service's account")
    if not _folder(parent, folders).writable:
        raise _invalid(path, "lies in a folder that the service's account cannot write: lock, log and results go there")
    return Project(Path(real), _key(real), kind)


def project_key(path: str | Path) -> str:
    """Give the name under which a project is run only once at a time: its real path without suffix."""
    return _key(os.path.realpath(path))


def moved(path: str | Path) -> str:
    """Explain where a real path leads now, if a link on it was changed since; empty: it leads to itself."""
    real = os.path.realpath(path)
    if os.path.normcase(real) == os.path.normcase(str(path)):
        return ""
    return f"{path} now leads to {real}: a link on its path was changed after the submission; submit the job again"


def _key(real: str) -> str:
    stem, suffix = os.path.splitext(real)
    return os.path.normcase(stem if suffix[1:].lower() in KINDS else real)


def _real(path: str, folders: dict[str, Folder]) -> str:
    parent, name = os.path.split(path)
    if name in ("", ".", "..") or sys.platform == "win32":  # where a name has a short form as well
        return os.path.realpath(path)
    real = os.path.join(_folder(parent, folders).real, name)
    return os.path.realpath(real) if os.path.islink(real) else real


def _folder(path: str, folders: dict[str, Folder]) -> Folder:
    if path not in folders:
        real = os.path.realpath(path)
        folders[path] = Folder(real, os.access(real, os.W_OK | os.X_OK))
    return folders[path]


def lock_state(project: Project) -> Lock | None:
    """Find the lock of a project, under whichever of its suffixes it was opened; None: it is not locked."""
    for path in _locks(project.path):
        try:
            mtime = path.lstat().st_mtime
        except FileNotFoundError:
            continue
        return Lock(path, mtime, _owner(path))
    return None


def remove_own_lock(path: str | Path, started_at: float) -> Path | None:
    """Remove the lock that an ended run of ours left; call it only when no process of that run is left.

    Parameters
    ----------
    path : path
        Project.
    started_at : float
        When the run started. An older lock is another's, and so is one of another account: neither is touched.

    Returns
    -------
    Path or None
        What was removed.
    """
    for lock in _locks(Path(os.path.realpath(path))):
        try:
            found = lock.lstat()
        except FileNotFoundError:
            continue
        ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if ours and found.st_mtime >= _file_time(started_at, found.st_mtime_ns):
            lock.unlink(missing_ok=True)
            return lock
    return None


def results_exist(project: Project) -> tuple[Path, ...]:
    """Results that lie beside the project."""
    return tuple(path for suffix in RESULTS if os.path.lexists(path := Path(project.key + suffix)))


def refuse_results(project: Project, existing_results: ExistingResults) -> None:
    """Refuse to solve a project with results, where that is what the job wants.

    Raises
    ------
    Refused
        RESULTS_EXIST.
    """
    found = results_exist(project)
    if found and existing_results is ExistingResults.REFUSE:
        raise Refused(
            "RESULTS_EXIST",
            f"{found[0]} exists and the job asks to leave results alone (existing_results); move it away, or submit "
            "with CLEAR to remove it or KEEP to solve on top of it",
            fields={"config.existing_results": "results exist"},
        )


def clear_results(path: str | Path) -> tuple[Path, ...]:
    """Remove a project's results, just before a run that asks for it: the folders of `RESULTS`, nothing else.

    Logs and ``.q.completed`` of earlier runs stay: a run is judged only by what is newer than its start.

    Parameters
    ----------
    path : path
        Project.

    Returns
    -------
    tuple of Path
        What was removed.

    Raises
    ------
    Refused
        RESULTS_EXIST: a symbolic link stands there. What it leads to may be others' data, so it is not followed.
    OSError
        They could not be removed.
    """
    key = project_key(path)
    found = [folder for suffix in RESULTS if os.path.lexists(folder := Path(key + suffix))]
    for folder in found:
        if folder.is_symlink() or not folder.is_dir():
            raise Refused(
                "RESULTS_EXIST",
                f"{folder} is a link or no folder, so it is not removed; remove it yourself, or submit with KEEP",
                fields={"config.existing_results": "results cannot be removed"},
            )
    for folder in found:
        shutil.rmtree(folder)
    return tuple(found)


def stale_sibling(project: Project) -> str:
    """Warn of an .aedt that is older than the .aedb beside it: AEDT would solve what it held then; "": it is not."""
    if project.kind == "aedtz":
        return ""
    try:
        newer = os.stat(project.key + ".aedb/edb.def").st_mtime
        older = os.stat(project.key + ".aedt").st_mtime
    except OSError:
        return ""
    if older + _STALE_SECONDS >= newer:
        return ""
    saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(older))
    name = os.path.basename(project.key)
    return f"{name}.aedt is older ({saved}) than {name}.aedb beside it: AEDT may solve what was last saved in it"


def _refuse_text(path: str) -> None:
    if not path:
        raise _invalid(path, "is required")
    if _CONTROL.search(path) or '"' in path:
        raise _invalid(path, "has a line break, a control character or a quote")
    if sys.platform != "win32" and _DRIVE.match(path):
        raise _invalid(
            path,
            "is a Windows path, and this service runs on "
            f"{sys.platform}: give the path under which this host sees the same folder",
        )
    if not os.path.isabs(path):
        raise _invalid(path, "must be absolute: the service has no current folder of yours")


def _mode(path: str, real: str) -> int:
    try:
        return os.stat(real).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(
            "PROJECT_NOT_FOUND",
            f"{path} does not exist on {platform.node()}; give the path as the service's host sees it",
            fields={_FIELD: "does not exist"},
        ) from None
    except OSError as error:
        raise _invalid(path, f"cannot be reached: {error.strerror}") from error


def _refuse_folder(path: str, mode: int, definition: str) -> None:
    if not stat.S_ISDIR(mode):
        raise _invalid(path, "is no folder, as an .aedb project is")
    if not os.path.isfile(definition):
        raise _invalid(path, "holds no edb.def, so it is no .aedb project")


def _invalid(path: str, wrong: str) -> Refused:
    return Refused("INVALID_JOB", f"project {path!r} {wrong}", fields={_FIELD: wrong})


def _file_time(moment: float, like_ns: int) -> float:
    """Give the least time a file made at this moment may bear: file systems keep whole seconds, or clock ticks."""
    return float(int(moment)) if like_ns % 1_000_000_000 == 0 else moment - _TICK_SECONDS


def _locks(project: Path) -> tuple[Path, ...]:
    own = Path(f"{project}.lock")  # its suffix may be in capitals
    return (own, *(other for kind in KINDS if (other := project.with_suffix(f".{kind}.lock")) != own))


def _owner(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_OWNER_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    words = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(words.split()) or _account(path)


def _account(path: Path) -> str:
    try:
        return path.owner()
    except (OSError, KeyError, NotImplementedError):
        return ""
