"""The record of a run on a cluster: only whole files count, and the first claim stands."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from edbjobs_server.executors.cluster.record import Claim, Dup, Exit, Record, Start, prepare, read, void
from hypothesis import given
from hypothesis import strategies as st

CLAIM = b"kind=run job=12.pbshost restart=1 host=n1 pid=77 time=1700000000\n"
START = b"time=1700000001 pid=78 host=n1 nodes=n1,n2\n"
EXIT = b"code=139 signal=TERM time=1700000009\n"
WHOLE = {
    "claim": CLAIM,
    "start": START,
    "exit": EXIT,
    "signal": b"signal=USR1 time=1700000005\n",
    "dup.13.0": b"job=13 restart=0 host=n2 time=1700000003\n",
    "dup.12.pbshost.2": b"job=12.pbshost restart=2 host=n3 time=1700000002\n",
    "refusal": "text=the project's folder /a b/ü=1 cannot be entered on node n1\n".encode(),
}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_a_whole_record(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    (tmp_path / "beat").touch()
    os.utime(tmp_path / "beat", (1.0, 1700000007.5))
    assert read(tmp_path) == Record(
        claimed=True,
        claim=Claim("run", "12.pbshost", 1, "n1", 77, 1700000000.0),
        start=Start(1700000001.0, 78, "n1", ("n1", "n2")),
        exit=Exit(139, "TERM", 1700000009.0),
        signal="USR1",
        beat=1700000007.5,
        dups=(Dup("12.pbshost", 2, "n3", 1700000002.0), Dup("13", 0, "n2", 1700000003.0)),
        refusal="the project's folder /a b/ü=1 cannot be entered on node n1",
    )


def test_windows_codes_are_signed(tmp_path: Path) -> None:
    (tmp_path / "exit").write_bytes(b"code=-1073741819 signal=none time=1\n")
    left = read(tmp_path).exit
    assert left is not None
    assert left.code == -1073741819


def test_nothing_there(tmp_path: Path) -> None:
    assert read(tmp_path) == Record()
    assert read(tmp_path / "nowhere") == Record()
    (tmp_path / "file").touch()
    assert read(tmp_path / "file") == Record()


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_not_whole_is_absent(tmp_path: Path, name: str) -> None:
    data = WHOLE[name]
    for size in range(len(data)):
        write(tmp_path, {name: data[:size]})
        assert read(tmp_path) == Record(claimed=name == "claim")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("claim", b"kind=else job=1 restart=0 host=n pid=1 time=1\n"),
        ("claim", b"kind=run restart=0 host=n pid=1 time=1\n"),
        ("claim", b"kind=run job=1 restart=-1 host=n pid=1 time=1\n"),
        ("start", b"time=soon pid=1 host=n nodes=n\n"),
        ("exit", b"code=1e3 signal=none time=1\n"),
        ("exit", b"code=--1 signal=none time=1\n"),
        ("exit", b"code=3221225477 signal=none time=1\n"),  # no code of 32 bits with a sign
        ("exit", "code=\u0661 signal=none time=1\n".encode()),
        ("exit", b"code=" + b"9" * 400 + b" signal=none time=1\n"),
        ("dup.1.0", b"job=1 restart= host=n time=1\n"),
        ("refusal", b"words\n"),
    ],
)
def test_a_wrong_value_is_absent(tmp_path: Path, name: str, line: bytes) -> None:
    write(tmp_path, {name: line})
    assert read(tmp_path) == Record(claimed=name == "claim")


@given(st.dictionaries(st.sampled_from([*WHOLE, "dup.", "beat"]), st.binary(max_size=200)))
def test_no_bytes_make_it_fail(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("run")
    write(folder, files)
    assert read(folder).claimed == ("claim" in files)


def test_folders_in_place_of_files_are_absent(tmp_path: Path) -> None:
    for name in WHOLE:
        (tmp_path / name).mkdir()
    assert read(tmp_path) == Record(claimed=True)


def test_a_folder_that_cannot_be_read_is_no_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(_: Path) -> list[str]:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "listdir", stale)
    with pytest.raises(OSError, match="Stale"):
        read(tmp_path)


def test_void_makes_the_folder_and_stands(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert void(folder, 1700000000.9)
    claim = read(folder).claim
    assert claim is not None
    assert (claim.kind, claim.job, claim.time) == ("void", "", 1700000000.0)
    assert void(folder, 1700000099.0)
    assert read(folder).claim == claim
    assert [path.name for path in folder.iterdir()] == ["claim"]


@pytest.mark.parametrize("data", [CLAIM, b"", CLAIM[:30], b"\x00\xff\n"], ids=["run", "empty", "half", "binary"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_another_claim_is_left_alone(tmp_path: Path, data: bytes, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    write(tmp_path, {"claim": data})
    assert not void(tmp_path, 1.0)
    assert (tmp_path / "claim").read_bytes() == data


def test_without_links_it_is_created_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    assert void(tmp_path, 1.0)
    assert void(tmp_path, 2.0)
    claim = read(tmp_path).claim
    assert claim is not None
    assert claim.time == 1.0


def _no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_of_many_voids_one_claim_stands(tmp_path: Path) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda n=n: results.append(void(tmp_path, n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["claim"]


def test_prepare_is_for_the_account_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "runs" / "7.1"
    before = os.umask(0o022)
    try:
        script = prepare(folder, "#!/bin/bash\necho ü \udcff\n")
    finally:
        os.umask(before)
    assert script == folder / "script"
    assert script.read_bytes() == "#!/bin/bash\necho ü ".encode() + b"\xff\n"
    for path in (script, folder, folder.parent, folder.parent.parent):
        assert path.stat().st_mode & 0o777 == 0o700, path
    assert prepare(folder, "again\n").read_text() == "again\n"
    assert prepare(folder, "for PowerShell\n", "script.ps1").name == "script.ps1"
    assert {path.name for path in folder.iterdir()} == {"script", "script.ps1"}


def test_prepare_tells_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        prepare(tmp_path / "file" / "run", "text")
