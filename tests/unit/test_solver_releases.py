"""Solvers are found in every layout of AEDT's installer, and nothing else is ever run."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from edbjobs_server.core.errors import Refused
from edbjobs_server.solver import releases
from edbjobs_server.solver.releases import Release, choose, discover, is_known

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names of the Linux program")


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.fixture
def install(tmp_path: Path) -> dict[str, Path]:
    return {
        "252": program(tmp_path / "ansys_inc/v252/AnsysEM/ansysedt"),
        "242": program(tmp_path / "ansys_inc/v242/Linux64/ansysedt"),
        "251": program(tmp_path / "suite/v251/AnsysEM/ansysedt"),
        "231": program(tmp_path / "suite/v231/AnsysEM/Linux64/ansysedt"),
        "SV": program(tmp_path / "student/v252/Linux64/ansysedtsv"),
    }


@pytest.fixture
def environ(tmp_path: Path, install: dict[str, Path]) -> dict[str, str]:
    link = tmp_path / "newest"
    link.symlink_to(tmp_path / "ansys_inc/v252")
    return {
        "ANSYSEM_ROOT252": str(install["252"].parent),
        "ANSYSEM_ROOT242": str(install["242"].parent),
        "AWP_ROOT251": str(tmp_path / "suite/v251"),
        "AWP_ROOT231": str(tmp_path / "suite/v231"),
        "AWP_ROOT252": str(link),
        "ANSYSEMSV_ROOT252": str(install["SV"].parent),
        "ANSYSEM_ROOT999": str(tmp_path / "removed"),
        "ANSYSEM_ROOT222": "",
    }


def test_every_layout_is_found_newest_first_and_once(environ: dict[str, str], install: dict[str, Path]) -> None:
    found = discover(environ)
    assert [(r.version, r.key, r.student) for r in found] == [
        ("2025.2", "252", False),
        ("2025.2", "252", True),
        ("2025.1", "251", False),
        ("2024.2", "242", False),
        ("2023.1", "231", False),
    ]
    assert found[0].path == install["252"]
    assert found[0].source == "ANSYSEM_ROOT252"


def test_the_release_is_read_from_the_path_in_the_settings(tmp_path: Path) -> None:
    known = program(tmp_path / "v241/Linux64/ansysedt")
    other = program(tmp_path / "site/bin/ansysedt")
    found = discover({}, extra=[other, known])
    assert [(r.version, r.path, r.source) for r in found] == [
        ("2024.1", known, "settings"),
        ("unknown", other, "settings"),
    ]


@pytest.mark.parametrize("broken", ["absent", "not_executable", "folder", "relative"])
def test_what_cannot_be_run_is_no_solver(tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v252" / "ansysedt"
    if broken == "not_executable":
        program(path, 0o644)
    elif broken == "folder":
        path.mkdir(parents=True)
    elif broken == "relative":
        program(path)
        monkeypatch.chdir(tmp_path)
        path = Path("v252/ansysedt")
    assert discover({}, extra=[path]) == ()


@pytest.mark.parametrize("asked", ["2024.2", "242", "v242", "2024 R2", "2024R2", "24.2", " 2024 r2 "])
def test_a_release_is_chosen_by_any_of_its_names(environ: dict[str, str], asked: str) -> None:
    assert choose(discover(environ), asked, "").key == "242"


def test_no_wish_is_the_newest(environ: dict[str, str]) -> None:
    chosen = choose(discover(environ), "", "")
    assert (chosen.key, chosen.student) == ("252", False)


def test_a_path_must_be_a_known_solver(environ: dict[str, str], install: dict[str, Path], tmp_path: Path) -> None:
    found = discover(environ)
    link = tmp_path / "link"
    link.symlink_to(install["242"])
    assert is_known(found, str(link))
    assert choose(found, "", str(link)).key == "242"
    for other in ("/bin/sh", str(install["242"]) + "2", "ansysedt", "/"):
        assert not is_known(found, other)
        with pytest.raises(Refused) as refused:
            choose(found, "", other)
        assert refused.value.reason == "SOLVER_NOT_ALLOWED"
        assert str(install["252"]) in refused.value.message


def test_a_release_that_is_not_there_is_refused_with_what_is(environ: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"no AEDT 2022\.1 .* 2025\.2") as refused:
        choose(discover(environ), "2022.1", "")
    assert refused.value.reason == "SOLVER_NOT_FOUND"
    with pytest.raises(Refused, match="is none at all") as refused:
        choose((), "", "")
    assert "--solver" in refused.value.message


def test_the_demo_solver_is_offered_only_if_enabled_and_last(environ: dict[str, str]) -> None:
    assert not any(release.demo for release in discover(environ))
    found = discover(environ, demo=True)
    assert found[-1].demo
    assert not choose(found, "", "").demo
    assert choose(found, "demo", "").demo
    with pytest.raises(Refused):
        choose(found, "2022.1", "")


def test_the_demo_solver_alone_is_used_for_every_release() -> None:
    found = discover({}, demo=True)
    assert [release.version for release in found] == ["demo"]
    for version in ("", "2025.2", "demo"):
        assert choose(found, version, "").demo


class FakeRegistry:
    """The part of winreg that is used; keys are paths below HKEY_LOCAL_MACHINE."""

    HKEY_LOCAL_MACHINE = ""

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders
        self._root = r"SOFTWARE\Ansoft\ElectronicsDesktop"

    def OpenKey(self, root: str, path: str) -> AbstractContextManager[str]:
        if path != self._root and path.split("\\")[-2] not in self._folders:
            raise FileNotFoundError(path)
        return nullcontext(path)

    def QueryInfoKey(self, key: str) -> tuple[int, int, int]:
        return len(self._folders) + 1, 0, 0

    def EnumKey(self, key: str, index: int) -> str:
        return [*self._folders, "2022.1"][index]

    def QueryValueEx(self, key: str, name: str) -> tuple[str, int]:
        assert name == "InstallationDirectory"
        return self._folders[key.split("\\")[-2]], 1


def test_the_windows_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer, older = program(tmp_path / "v251/AnsysEM/ansysedt.exe"), program(tmp_path / "v231/Win64/ansysedt.exe")
    folders = {"2023.1": str(older.parent), "2025.1": str(newer.parent), "Common": str(tmp_path)}
    monkeypatch.setitem(sys.modules, "winreg", FakeRegistry(folders))
    monkeypatch.setattr(releases, "sys", SimpleNamespace(platform="win32"))
    assert [(r.version, r.path, r.source) for r in discover({})] == [
        ("2025.1", newer, "registry"),
        ("2023.1", older, "registry"),
    ]


def test_a_release_is_a_value() -> None:
    one = Release("2025.2", "252", Path("/a"), "settings")
    assert one == Release("2025.2", "252", Path("/a"), "settings")


def test_the_usual_folders_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "FOLDERS", (tmp_path / "usual", tmp_path / "none"))
    newest = program(tmp_path / "usual/v252/AnsysEM/ansysedt")
    older = program(tmp_path / "usual/v242/Linux64/ansysedt")
    program(tmp_path / "usual/tools/AnsysEM/ansysedt")
    assert [(item.key, item.path, item.source) for item in discover({})] == [
        ("252", newest, "folder"),
        ("242", older, "folder"),
    ]
    named = discover({"ANSYSEM_ROOT252": str(newest.parent)})
    assert [item.source for item in named] == ["ANSYSEM_ROOT252", "folder"]
