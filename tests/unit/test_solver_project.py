"""Projects are looked at before anything is promised; nothing of theirs is removed on a guess."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from edbjobs.config import ExistingResults
from edbjobs_server.core.errors import Refused
from edbjobs_server.solver import project, project_lock, project_results
from edbjobs_server.solver.batch_log import find_log, job_name
from edbjobs_server.util import files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX paths")
NOBODY = 65534


@pytest.fixture
def aedt(tmp_path: Path) -> Path:
    path = tmp_path / "board.aedt"
    path.write_text("$begin 'AnsoftProject'\n$end 'AnsoftProject'\n")
    return path


@pytest.fixture
def aedb(tmp_path: Path) -> Path:
    path = tmp_path / "board.aedb"
    path.mkdir()
    (path / "edb.def").write_text("$begin 'Hdr'\n$end 'Hdr'\n")
    return path


def refusal(path: str) -> Refused:
    with pytest.raises(Refused) as refused:
        project.inspect(path)
    assert list(refused.value.fields) == ["config.project_path"]
    return refused.value


def test_all_suffixes_of_a_name_are_one_project(aedt: Path, aedb: Path, tmp_path: Path) -> None:
    archive = tmp_path / "board.AEDTZ"
    archive.touch()
    found = [project.inspect(str(path)) for path in (aedt, aedb, archive)]
    assert [item.kind for item in found] == ["aedt", "aedb", "aedtz"]
    assert {item.key for item in found} == {str(tmp_path / "board")}


def test_links_lead_to_the_same_project(aedt: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(tmp_path)
    (tmp_path / "alias.aedt").symlink_to(aedt)
    for path in (tmp_path / "other" / "board.aedt", tmp_path / "alias.aedt"):
        found = project.inspect(str(path))
        assert (found.path, found.key) == (aedt, str(tmp_path / "board"))


def test_a_dotted_name_keeps_its_dots(tmp_path: Path) -> None:
    assert project.project_key(tmp_path / "v1.2.aedt") == str(tmp_path / "v1.2")
    assert project.project_key(tmp_path / "v1.2") == str(tmp_path / "v1.2")


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("", "required"),
        ("board.aedt", "absolute"),
        ("./board.aedt", "absolute"),
        (r"C:\data\board.aedt", "Windows path"),
        ("D:/data/board.aedt", "Windows path"),
        (r"\\server\share\board.aedt", "Windows path"),
        ("/data/board.aedt\n", "line break"),
        ('/data/bo"ard.aedt', "quote"),
        ("/data/board\x00.aedt", "control"),
        ("/data/board.edb", ".aedb folder"),
        ("/data/board", ".aedb folder"),
    ],
)
def test_what_can_be_no_project_here_is_refused_by_name(path: str, word: str) -> None:
    refused = refusal(path)
    assert refused.reason == "INVALID_JOB"
    assert word in refused.message


@pytest.mark.parametrize("path", ["/no/such/board.aedt", "/etc/passwd/board.aedb", "/dev/null/x.aedtz"])
def test_what_is_not_there_is_not_found(path: str) -> None:
    assert refusal(path).reason == "PROJECT_NOT_FOUND"


def test_a_dangling_link_is_not_found_and_a_loop_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.aedt").symlink_to(tmp_path / "gone.aedt")
    assert refusal(str(tmp_path / "a.aedt")).reason == "PROJECT_NOT_FOUND"
    (tmp_path / "l.aedt").symlink_to(tmp_path / "l.aedt")
    assert refusal(str(tmp_path / "l.aedt")).reason == "INVALID_JOB"


def test_kinds_must_be_what_they_say(tmp_path: Path, aedb: Path) -> None:
    (tmp_path / "file.aedb").touch()
    (tmp_path / "folder.aedt").mkdir()
    (aedb / "edb.def").unlink()
    for name, word in (("file.aedb", "no folder"), ("folder.aedt", "no file"), ("board.aedb", "edb.def")):
        assert word in refusal(str(tmp_path / name)).message


@pytest.fixture
def ordinary_account() -> Iterator[Path]:
    """Yield a folder that an account without root's rights owns; the test is that account."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        if os.getuid() != 0:
            yield folder
            return
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield folder
        finally:
            os.setresuid(0, 0, 0)


def test_rights_are_checked(ordinary_account: Path) -> None:
    home = ordinary_account / "home"
    home.mkdir()
    aedt = home / "board.aedt"
    aedt.touch()
    project.inspect(str(aedt))
    aedt.chmod(0)
    assert "read" in refusal(str(aedt)).message
    aedt.chmod(0o600)
    home.chmod(0o500)
    assert "write" in refusal(str(aedt)).message
    home.chmod(0)
    assert "Permission denied" in refusal(str(aedt)).message
    home.chmod(0o700)


@pytest.mark.parametrize("suffix", [".aedt.lock", ".aedb.lock", ".aedtz.lock"])
def test_a_lock_of_any_suffix_is_seen_with_its_owner(aedt: Path, suffix: str) -> None:
    found = project.inspect(str(aedt))
    assert project_lock.lock_state(found) is None
    lock = aedt.with_suffix(suffix)
    lock.write_bytes(b"PID=77\r\nhost\x00ws1\n\xff")
    seen = project_lock.lock_state(found)
    assert seen is not None
    assert seen.path == lock
    assert seen.owner.startswith("PID=77 host ws1")
    assert seen.mtime == lock.stat().st_mtime


def test_the_lock_of_a_suffix_in_capitals_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "BOARD.AEDT"
    path.touch()
    Path(f"{path}.lock").touch()
    assert project_lock.lock_state(project.inspect(str(path))) is not None
    assert project_lock.remove_own_lock(path, 0) == Path(f"{path}.lock")


def test_an_empty_lock_is_reported_with_its_account(aedt: Path) -> None:
    Path(f"{aedt}.lock").touch()
    seen = project_lock.lock_state(project.inspect(str(aedt)))
    assert seen is not None
    assert seen.owner == Path(f"{aedt}.lock").owner()


def test_only_a_lock_of_our_own_run_is_removed(aedt: Path) -> None:
    lock = Path(f"{aedt}.lock")
    lock.touch()
    made = lock.stat().st_mtime
    assert project_lock.remove_own_lock(aedt, made + 5) is None
    assert lock.exists()
    assert project_lock.remove_own_lock(aedt, made - 0.5) == lock
    assert not lock.exists()
    assert project_lock.remove_own_lock(aedt, 0) is None


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_a_lock_of_another_account_is_never_removed(aedt: Path) -> None:
    lock = Path(f"{aedt}.lock")
    lock.touch()
    os.chown(lock, NOBODY, NOBODY)
    assert project_lock.remove_own_lock(aedt, 0) is None
    assert lock.exists()


def test_whole_second_file_times_are_compared_in_seconds(aedt: Path) -> None:
    lock = Path(f"{aedt}.lock")
    lock.touch()
    os.utime(lock, (1_700_000_000, 1_700_000_000))
    assert project_lock.remove_own_lock(aedt, 1_700_000_001.2) is None
    assert project_lock.remove_own_lock(aedt, 1_700_000_000.7) == lock


def test_a_lock_that_is_a_link_loses_only_the_link(aedt: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    Path(f"{aedt}.lock").symlink_to(precious)
    assert project_lock.remove_own_lock(aedt, 0) is not None
    assert precious.read_text() == "data"


def test_results_are_kept_cleared_or_refused(aedt: Path, tmp_path: Path) -> None:
    found = project.inspect(str(aedt))
    assert project_results.results_exist(found) == ()
    project_results.refuse_results(found, ExistingResults.REFUSE)
    results = tmp_path / "board.aedtresults"
    (results / "d.results").mkdir(parents=True)
    (results / "d.results" / "a.asol").touch()
    others = [
        tmp_path / name
        for name in ("board2.aedtresults", "board.aedt.batchinfo", "board.results", "xboard.aedtresults")
    ]
    for other in others:
        other.mkdir()
    project_results.refuse_results(found, ExistingResults.KEEP)
    project_results.refuse_results(found, ExistingResults.CLEAR)
    with pytest.raises(project_results.ResultsExist, match="aedtresults"):
        project_results.refuse_results(found, ExistingResults.REFUSE)
    assert project_results.clear_results(aedt) == (results,)
    assert not results.exists()
    assert aedt.exists()
    assert all(other.exists() for other in others)
    assert project_results.clear_results(str(aedt)) == ()


def test_links_are_not_followed_when_results_are_cleared(aedt: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data").touch()
    results = tmp_path / "board.aedtresults"
    results.symlink_to(elsewhere)
    with pytest.raises(project_results.ResultsExist):
        project_results.clear_results(aedt)
    results.unlink()
    results.mkdir()
    (results / "inner").symlink_to(elsewhere)
    project_results.clear_results(aedt)
    assert not results.exists()
    assert (elsewhere / "data").exists()


def test_an_old_aedt_beside_a_new_aedb_is_warned_of(aedt: Path, aedb: Path) -> None:
    for path in (aedt, aedb):
        assert project.stale_sibling(project.inspect(str(path))) == ""
    os.utime(aedt, (1_700_000_000, 1_700_000_000))
    for path in (aedt, aedb):
        assert "board.aedt is older" in project.stale_sibling(project.inspect(str(path)))
    aedt.unlink()
    assert project.stale_sibling(project.inspect(str(aedb))) == ""


def test_the_log_of_a_short_name_has_the_jobs_id() -> None:
    assert job_name("/p/board.aedt", "night", 7, 2) == "night-7-2"
    assert job_name(f"/p/{'n' * 130}.aedt", "a", 7, 2) == "a-7-2"
    assert job_name(f"/p/{'n' * 135}.aedt", "night", 7, 2) == "7-2"


@pytest.mark.parametrize("kind", ["aedt", "aedtz", "aedb"])
def test_a_name_beside_which_no_log_can_be_written_is_refused(tmp_path: Path, kind: str) -> None:
    limit = os.pathconf(tmp_path, "PC_NAME_MAX")
    longest = limit - len(f"-{10**12 - 1}-{9999}.log")
    for length in (longest, longest + 1, limit - len(kind) - 1):
        path = tmp_path / f"{'n' * length}.{kind}"
        if kind == "aedb":
            path.mkdir()
            (path / "edb.def").touch()
        else:
            path.touch()
        if length == longest:
            found = project.inspect(str(path))
            assert project_lock.lock_state(found) is None
            log = find_log(found.path, job_name(found.path, "i" * 63, 10**12 - 1, 9999))
            log.parent.mkdir()
            log.touch()
            continue
        refused = refusal(str(path))
        assert refused.reason == "INVALID_JOB"
        assert f"{length} bytes" in refused.message
        assert f"at most {longest} are possible" in refused.message
        accepted_before = project.Project(str(path), str(path.with_suffix("")), kind)
        assert project_lock.lock_state(accepted_before) is None
        assert project_results.clear_results(path) == ()
        assert project_lock.remove_own_lock(path, 0) is None


@pytest.mark.parametrize("suffix", ["", ".lock"])
def test_a_fifo_in_place_of_a_file_holds_nobody_up(aedt: Path, suffix: str) -> None:
    found = project.inspect(str(aedt))
    aedt.unlink()
    os.mkfifo(f"{aedt}{suffix}")
    if suffix:
        seen = project_lock.lock_state(found)
        assert seen is not None
        assert seen.owner == Path(f"{aedt}.lock").owner(), "its text is not waited for"
    else:
        assert "is no file" in refusal(str(aedt)).message


def test_a_fifo_in_place_of_an_edb_def_is_no_project(aedb: Path) -> None:
    (aedb / "edb.def").unlink()
    os.mkfifo(aedb / "edb.def")
    assert "edb.def" in refusal(str(aedb)).message


def test_the_text_of_a_lock_that_is_a_link_is_not_shown(aedt: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    Path(f"{aedt}.lock").symlink_to("secret")
    seen = project_lock.lock_state(project.inspect(str(aedt)))
    assert seen is not None
    assert "secret" not in seen.owner


def test_a_project_whose_path_leads_elsewhere_has_moved(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "p.aedt").touch()
    accepted = str(project.inspect(str(tmp_path / "a" / "p.aedt")).path)
    assert project.moved(accepted) == ""
    (tmp_path / "a").rename(tmp_path / "b")
    assert project.moved(accepted) == "", "it is gone, which is another matter"
    (tmp_path / "a").symlink_to("b")
    assert project.moved(accepted) == (
        f"{accepted} now leads to {tmp_path}/b/p.aedt: a link in its path was changed after the submission"
    )


def test_what_was_accepted_is_used_although_its_path_leads_elsewhere(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.aedt").touch()
        (tmp_path / name / "p.aedt.lock").touch()
        (tmp_path / name / "p.aedtresults").mkdir()
    (tmp_path / "a" / "p.aedt").unlink()
    (tmp_path / "a" / "p.aedt").symlink_to("../b/p.aedt")
    accepted = tmp_path / "a" / "p.aedt"
    assert find_log(accepted, "j") == tmp_path / "a" / "p.aedt.batchinfo" / "p-j.log"
    assert project_results.clear_results(accepted) == (tmp_path / "a" / "p.aedtresults",)
    assert project_lock.remove_own_lock(accepted, 0) == Path(f"{accepted}.lock")
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"p.aedt", "p.aedt.lock", "p.aedtresults"}


def test_results_that_may_not_be_removed_are_refused_by_name(ordinary_account: Path) -> None:
    results = ordinary_account / "p.aedtresults"
    (results / "inner").mkdir(parents=True)
    (results / "inner" / "file").touch()
    (results / "inner").chmod(0o500)
    if os.geteuid() == 0:
        pytest.skip("root may remove everything")
    with pytest.raises(project_results.ResultsExist, match="cannot be removed: Permission denied"):
        project_results.clear_results(ordinary_account / "p.aedt")
    (results / "inner").chmod(0o700)


def test_files_that_are_alike_are_opened_once_in_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alike, other = [tmp_path / "a.aedt", tmp_path / "b.aedt"], tmp_path / "c.aedt"
    for path in (*alike, other):
        path.touch(0o600)
    other.chmod(0o400)
    opened: list[str] = []
    readable = files.is_readable

    def watched(path: str) -> bool:
        opened.append(path)
        return readable(path)

    monkeypatch.setattr(files, "is_readable", watched)
    seen = project.InspectionCache()
    assert [project.inspect(str(path), seen).path for path in (*alike, other)] == [*alike, other]
    assert opened == [str(alike[0]), str(other)]
    monkeypatch.setattr(os, "geteuid", lambda: other.stat().st_uid + 1)  # the files of somebody else
    for _ in range(2):
        project.inspect(str(other), seen)
    assert opened[2:] == [str(other)] * 2


def test_a_file_that_was_refused_is_refused_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.aedt"
    path.touch()
    monkeypatch.setattr(files, "is_readable", lambda path: False)
    seen = project.InspectionCache()
    for _ in range(2):
        with pytest.raises(Refused, match="cannot be read"):
            project.inspect(str(path), seen)
