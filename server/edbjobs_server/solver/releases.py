"""Which solvers may be run: those installed, those of the settings and, on request, the demo solver."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

from edbjobs_server.core.errors import Refused

UNKNOWN = "unknown"
DEMO = "demo"
DEMO_PROGRAM = "edbjobs-demo-solver"

# Variables of AEDT's installer, in order of trust: of AEDT itself, of the student version, of the whole suite.
_VARIABLES = (
    (re.compile(r"ANSYSEM_ROOT(\d{3})"), False, ("", "AnsysEM", "Linux64", "Win64")),
    (re.compile(r"ANSYSEMSV_ROOT(\d{3})"), True, ("", "AnsysEM", "Linux64", "Win64")),
    (re.compile(r"AWP_ROOT(\d{3})"), False, ("AnsysEM", "AnsysEM/Linux64", "AnsysEM/Win64")),
)
# Where installers put AEDT by default, in vNNN below these: what no variable names is found there.
FOLDERS = (
    (Path(r"C:\Program Files\ANSYS Inc"), Path(r"C:\Program Files\AnsysEM"))
    if sys.platform == "win32"
    else (Path("/usr/ansys_inc"), Path("/ansys_inc"), Path("/opt/ansys_inc"), Path("/opt/AnsysEM"))
)
_BELOW = ("AnsysEM", "AnsysEM/Linux64", "AnsysEM/Win64", "Linux64", "Win64")
_VERSION_PART = re.compile(r"v(\d{3})(?:sv)?", re.IGNORECASE)
_VERSION_WORDS = re.compile(r"(?:20)?(\d\d)(?:\.| ?R)([1-9])(?:\.\d+)?|v?(\d\d)([1-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Release:
    """A solver that may be run.

    Attributes
    ----------
    version, key : str
        ``"2025.2"`` and ``"252"``; both ``"unknown"`` where the path has no release, ``"demo"`` of the demo solver.
    path : Path
        The program.
    source : str
        Where it was found: the environment variable, ``settings``, ``registry``, ``folder`` or ``demo``; ``nodes``:
        named by the settings, on the nodes of a cluster that this host does not see.
    demo, student : bool
        The demo solver, which solves nothing; the student version.
    """

    version: str
    key: str
    path: Path
    source: str
    demo: bool = False
    student: bool = False


def discover(environ: Mapping[str, str], extra: Sequence[Path] = (), demo: bool = False) -> tuple[Release, ...]:
    """Find the solvers of this host.

    Parameters
    ----------
    environ : mapping of str to str
        Environment with ANSYSEM_ROOTnnn, ANSYSEMSV_ROOTnnn, AWP_ROOTnnn. Both layouts are known: vNNN/Linux64
        or vNNN/Win64 up to 2024 R2, vNNN/AnsysEM from 2025 R2.
    extra : sequence of Path
        Programs of the settings.
    demo : bool
        Add the demo solver.

    Returns
    -------
    tuple of Release
        Newest first; of one release the student version after the full one; then those of unknown release;
        the demo solver last, so that it is never the default where an AEDT is installed.
    """
    found: dict[str, Release] = {}
    for release in (*_of_settings(extra), *_of_environment(environ), *_of_registry(), *_of_folders()):
        found.setdefault(_real(release.path), release)
    if demo:
        for path in _demo_programs():
            found.setdefault(_real(path), Release(DEMO, DEMO, path, DEMO, demo=True))
    return tuple(sorted(found.values(), key=_rank))


def on_windows_nodes(programs: Sequence[PureWindowsPath]) -> tuple[Release, ...]:
    """Take the solvers of Windows nodes as the settings name them; newest first."""
    return tuple(sorted((_release(path, Path(str(path)), "nodes") for path in programs), key=_rank))


def choose(releases: Sequence[Release], version: str, path: str) -> Release:
    """Choose the solver of a job.

    Parameters
    ----------
    releases : sequence of Release
        As of `discover`.
    version : str
        ``"2025.2"``, ``"252"``, ``"v252"``, ``"2025 R2"``, ``"demo"``; empty: the newest. Where the demo solver is
        the only solver it is used for every release.
    path : str
        Program; if not empty it decides, and must be one of `releases`.

    Raises
    ------
    Refused
        SOLVER_NOT_ALLOWED for a path that is none of them, SOLVER_NOT_FOUND where none is of the release.
    """
    if path:
        return _by_path(releases, path)
    requested = _key(version)
    candidates = [release for release in releases if requested in ("", release.key)]
    if not candidates and releases and all(release.demo for release in releases):
        candidates = [*releases]
    if not candidates:
        raise Refused(
            "SOLVER_NOT_FOUND",
            f"{_looked_for(version)}; there {_listed(releases)}. {_HELP}",
            fields={"config.aedt_version": "no such release here"} if version else None,
            metadata={"installed": ", ".join(release.version for release in releases)},
        )
    return candidates[0]


def is_known(releases: Sequence[Release], path: str) -> bool:
    """Return whether a program is one of the solvers; may block on its file system."""
    return any(_is_same(path, release) for release in releases)


_HELP = (
    "Install AEDT, set ANSYSEM_ROOTnnn to its folder (the one that holds ansysedt), or name the program with "
    "--solver; --demo-solver adds a demo solver that solves nothing"
)


def _by_path(releases: Sequence[Release], path: str) -> Release:
    for release in releases:
        if _is_same(path, release):
            return release
    raise Refused(
        "SOLVER_NOT_ALLOWED",
        f"{path} is no solver of this service, so it is not run; there {_listed(releases)}. "
        "Name none, choose one of these, or have the administrator add it with --solver",
        fields={"config.aedt_path": "not a solver of this service"},
    )


def _key(version: str) -> str:
    text = version.strip()
    match = _VERSION_WORDS.fullmatch(text)
    if match is None:
        return text.lower()
    return f"{match[1] or match[3]}{match[2] or match[4]}"


def _looked_for(version: str) -> str:
    return f"no AEDT {version} is installed" if version else "no AEDT is installed"


def _listed(releases: Sequence[Release]) -> str:
    if not releases:
        return "is none at all"
    return "is: " + ", ".join(f"{release.version} ({release.path})" for release in releases)


def _rank(release: Release) -> tuple[bool, bool, int, bool, str]:
    known = release.key.isdigit()
    return (release.demo, not known, -int(release.key) if known else 0, release.student, str(release.path))


def _of_environment(environ: Mapping[str, str]) -> Iterator[Release]:
    for pattern, student, folders in _VARIABLES:
        for name, value in environ.items():
            match = pattern.fullmatch(name.upper())
            if match is None or not value.strip():
                continue
            for folder in folders:
                yield from _in_folder(Path(value.strip(), folder), match[1], name, student)


def _in_folder(folder: Path, key: str, source: str, student: bool) -> Iterator[Release]:
    for stem in ("ansysedtsv", "ansysedt") if student else ("ansysedt",):
        path = folder / (f"{stem}.exe" if sys.platform == "win32" else stem)
        if _runs(path):
            yield Release(_version(key), key, path, source, student=student)


def _of_settings(extra: Sequence[Path]) -> Iterator[Release]:
    for path in extra:
        if _runs(path):
            yield _release(path, path, "settings")


def _release(named: PurePath, path: Path, source: str) -> Release:
    keys = [match[1] for part in named.parts if (match := _VERSION_PART.fullmatch(part))]
    key = keys[-1] if keys else UNKNOWN
    return Release(_version(key), key, path, source, student=named.stem.lower() == "ansysedtsv")


def _of_registry() -> Iterator[Release]:
    if sys.platform != "win32":
        return
    import winreg

    root = r"SOFTWARE\Ansoft\ElectronicsDesktop"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, root) as versions:
            names = [winreg.EnumKey(versions, index) for index in range(winreg.QueryInfoKey(versions)[0])]
    except OSError:
        return  # no AEDT has ever been installed
    for name in names:
        key = _key(name)
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{root}\{name}\Desktop") as desktop:
                folder, _ = winreg.QueryValueEx(desktop, "InstallationDirectory")
        except OSError:
            continue  # removed since
        if key.isdigit():
            yield from _in_folder(Path(folder), key, "registry", student=False)


def _of_folders() -> Iterator[Release]:
    for root in FOLDERS:
        try:
            names = sorted(os.listdir(root))
        except OSError:
            continue  # the usual case: it is not there
        for name in names:
            match = _VERSION_PART.fullmatch(name)
            if match is None:
                continue
            for folder in _BELOW:
                yield from _in_folder(root / name / folder, match[1], "folder", student=False)


def _demo_programs() -> Iterator[Path]:
    suffix = ".exe" if sys.platform == "win32" else ""
    for folder in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user")):
        path = Path(folder, DEMO_PROGRAM + suffix)
        if _runs(path):
            yield path
            return


def _version(key: str) -> str:
    return f"20{key[:2]}.{key[2]}" if key != UNKNOWN else UNKNOWN


def _runs(path: Path) -> bool:
    # A path whose status cannot be read is no solver now: unlike `Path.is_file`, `os.path.isfile` raises no error.
    return path.is_absolute() and os.path.isfile(path) and os.access(path, os.X_OK)


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _is_same(path: str, release: Release) -> bool:
    try:
        return _real(Path(path)) == _real(release.path)
    except (OSError, ValueError):  # no path at all
        return False
