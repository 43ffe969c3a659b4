from __future__ import annotations

import os
from pathlib import Path

import pytest
from edbjobs.cli._projects import AmbiguousProjects, find_projects


def make(folder: Path, *names: str, age: float = 100.0) -> None:
    for name in names:
        path = folder / name
        if name.endswith(".aedb"):
            path.mkdir(parents=True)
            (path / "edb.def").touch()
            os.utime(path / "edb.def", (age, age))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        os.utime(path, (age, age))


def names(found: list[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in found]


def test_projects_of_every_form_are_found_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path, "a.aedt", "b.aedb", "c.AEDTZ", "d.txt", "a.aedt.lock", ".hidden.aedt", "x.aedtresults/y.aedt")
    (tmp_path / "folder.aedt").mkdir()
    (tmp_path / "file.aedb").touch()
    assert names(find_projects(tmp_path), tmp_path) == ["a.aedt", "b.aedb", "c.AEDTZ"]


def test_folders_below_only_on_wish(tmp_path: Path) -> None:
    make(tmp_path, "a.aedt", "s/b.aedb", "s/t/c.aedt", "a.aedtresults/d.aedt", ".git/e.aedt", "s/b.aedb/f.aedt")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert names(find_projects(tmp_path), tmp_path) == ["a.aedt"]
    assert names(find_projects(tmp_path, recursive=True), tmp_path) == ["a.aedt", "s/b.aedb", "s/t/c.aedt"]


def test_of_a_pair_the_file_is_taken_where_it_is_as_new(tmp_path: Path) -> None:
    make(tmp_path, "a.aedb", "a.aedt")
    assert names(find_projects(tmp_path), tmp_path) == ["a.aedt"]


def test_where_the_database_is_newer_the_user_is_asked(tmp_path: Path) -> None:
    make(tmp_path, "a.aedt", "b.aedt")
    make(tmp_path, "a.aedb", age=200)
    with pytest.raises(AmbiguousProjects, match="1 projects") as caught:
        find_projects(tmp_path)
    assert caught.value.pairs == [(tmp_path / "a.aedb", tmp_path / "a.aedt")]
    assert names(find_projects(tmp_path, prefer="aedb"), tmp_path) == ["a.aedb", "b.aedt"]
    assert names(find_projects(tmp_path, prefer="aedt"), tmp_path) == ["a.aedt", "b.aedt"]


def test_a_change_within_the_database_counts(tmp_path: Path) -> None:
    make(tmp_path, "a.aedb", "a.aedt")
    os.utime(tmp_path / "a.aedb" / "edb.def", (200, 200))
    with pytest.raises(AmbiguousProjects):
        find_projects(tmp_path)


def test_the_same_name_in_two_folders_is_two_projects(tmp_path: Path) -> None:
    make(tmp_path, "a.aedt", "s/a.aedb")
    assert names(find_projects(tmp_path, recursive=True), tmp_path) == ["a.aedt", "s/a.aedb"]
