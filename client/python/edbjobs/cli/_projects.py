"""Find projects in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["AmbiguousProjects", "choose", "find_projects"]

SUFFIXES = (".aedt", ".aedtz", ".aedb")


class AmbiguousProjects(Exception):
    """Some projects exist in both forms and their .aedb is newer: the user must choose one."""

    def __init__(self, pairs: list[tuple[Path, Path]]) -> None:
        super().__init__(f"{len(pairs)} projects exist as .aedb and as .aedt, and the .aedb is newer")
        self.pairs = pairs


def find_projects(folder: Path, *, recursive: bool = False, prefer: str | None = None) -> list[Path]:
    """Return the projects in a folder, one of each pair of .aedb folder and .aedt file.

    AEDT itself writes an .aedt next to an .aedb that it opens. Of a pair the .aedt is therefore used, unless the
    .aedb was modified after it.

    Parameters
    ----------
    folder : Path
        Folder to search.
    recursive : bool
        Search subfolders too; hidden folders, results and links are skipped.
    prefer : str, optional
        ``aedb`` or ``aedt``: form to use of every pair.

    Raises
    ------
    AmbiguousProjects
        If `prefer` is needed.
    """
    forms: dict[Path, dict[str, Path]] = {}
    for path in _walk(folder, recursive):
        forms.setdefault(path.with_suffix(""), {})[path.suffix.lower()] = path
    chosen: list[Path] = []
    ambiguous: list[tuple[Path, Path]] = []
    for stem in sorted(forms):
        one = choose(forms[stem], prefer)
        if one is None:
            ambiguous.append((forms[stem][".aedb"], _file(forms[stem])))
        else:
            chosen.append(one)
    if ambiguous:
        raise AmbiguousProjects(ambiguous)
    return chosen


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        suffix = Path(entry.name).suffix.lower()
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name.startswith("."):
            continue
        if suffix in SUFFIXES and entry.is_dir() == (suffix == ".aedb"):
            yield Path(entry.path)
        elif recursive and is_folder and suffix not in (".aedb", ".aedtresults"):
            yield from _walk(Path(entry.path), recursive)


def choose(forms: dict[str, Path], prefer: str | None) -> Path | None:
    """Return one of the forms of a project; None if the user must choose."""
    folder = forms.get(".aedb")
    if folder is None or len(forms) == 1:
        return folder or _file(forms)
    if prefer is not None:
        return folder if prefer == "aedb" else _file(forms)
    return None if _modified(folder) > _modified(_file(forms)) else _file(forms)


def _file(forms: dict[str, Path]) -> Path:
    return forms.get(".aedt") or forms[".aedtz"]


def _modified(path: Path) -> float:
    # edb.def contains the database: the folder's own time changes only when files are added or removed.
    inner = path / "edb.def"
    return max(item.stat().st_mtime for item in (path, inner) if item.exists())
