"""Users' files are opened without waiting, read within budgets, and what failed is told exactly."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from edbjobs_server.util import files
from edbjobs_server.util.files import Budget, BudgetSpent, GrowingFile, NotRegularFile, is_transient, open_regular

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def test_errors_are_of_two_kinds() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY):
        assert is_transient(OSError(number, "x"))
    for number in (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EROFS,
    ):
        assert not is_transient(OSError(number, "x"))
    assert is_transient(MemoryError())
    assert is_transient(TimeoutError())
    assert not is_transient(NotRegularFile("FIFO", "/x"))
    assert not is_transient(ValueError())
    windows = OSError(errno.EACCES, "x")
    assert not is_transient(windows)
    windows.winerror = 32  # type: ignore[attr-defined]
    assert is_transient(windows)


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\r\ntwo")
    with open_regular(path) as file:
        assert file.read() == b"one\r\ntwo"
        assert not os.get_inheritable(file.fileno())


@posix
@pytest.mark.parametrize("kind", ["FIFO", "folder", "socket", "character device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(NotRegularFile, match=f"expected a regular file, got a {kind}") as error:
        open_regular(path)
    assert error.value.filename == str(path)
    assert not is_transient(error.value)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


@posix
def test_a_link_is_followed_only_where_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to("a")
    open_regular(tmp_path / "b").close()
    with pytest.raises(NotRegularFile, match="symbolic link"):
        open_regular(tmp_path / "b", follow=False)


def test_a_budget_is_of_bytes_and_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now))
    budget = Budget(10, 5)
    assert (budget.allow(4), budget.allow(40), budget.spent) == (4, 10, "")
    budget.take(8)
    assert budget.allow(4) == 2
    budget.take(2)
    assert (budget.allow(1), budget.late, budget.spent) == (0, False, "it has more than 10 bytes")
    error = budget.error("/x")
    assert (error.errno, is_transient(error)) == (errno.EFBIG, False)
    budget = Budget(10, 5)
    budget.take(3)
    now = 105.0
    assert (budget.allow(1), budget.late, budget.spent) == (0, True, "3 bytes were read in 5 s")
    error = budget.error("/x")
    assert isinstance(error, BudgetSpent)
    assert is_transient(error), "a slow file server is a reason to look again"


def test_what_is_there_is_told_from_what_cannot_be_looked_at(tmp_path: Path) -> None:
    assert files.mode_of(tmp_path) is not None
    assert files.mode_of(tmp_path / "no") is None
    assert files.mode_of(tmp_path / ("n" * 300)) is None
    (tmp_path / "file").touch()
    assert files.mode_of(tmp_path / "file" / "x") is None
    (tmp_path / "loop").symlink_to("loop")
    assert files.mode_of(tmp_path / "loop", follow=False) is not None
    with pytest.raises(OSError, match="symbolic links"):
        files.mode_of(tmp_path / "loop")


@posix
def test_the_real_path_is_told_as_far_as_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert files.real_path(f"{tmp_path}/link/no/such.aedt") == f"{tmp_path}/real/no/such.aedt"
    assert files.real_path(f"{tmp_path}/link/") == f"{tmp_path}/real"
    assert files.real_path("/no/such") == "/no/such"
    (tmp_path / "loop").symlink_to("loop")
    assert files.real_path(f"{tmp_path}/link/../loop") == f"{tmp_path}/loop"
    deep = "/" + "/".join("a" * 2000)
    assert files.real_path(deep) == deep

    def stale(*_: object, **__: object) -> str:
        raise OSError(errno.ESTALE, "stale")

    monkeypatch.setattr(os.path, "realpath", stale)
    with pytest.raises(OSError, match="stale"):
        files.real_path(str(tmp_path))


@posix
def test_the_longest_name_is_the_file_systems(tmp_path: Path) -> None:
    limit = files.name_limit(str(tmp_path))
    (tmp_path / ("n" * limit)).touch()
    with pytest.raises(OSError, match="too long"):
        (tmp_path / ("n" * (limit + 1))).touch()
    assert files.name_limit(str(tmp_path / "no")) == 255
    assert files.name_length("aé") == 3


@posix
def test_a_folder_is_writable_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.is_writable_folder(str(tmp_path))
    assert not files.is_writable_folder("/proc/self")
    assert not files.is_writable_folder(str(tmp_path / "no"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    if hasattr(os, "O_TMPFILE"):
        assert files.is_writable_folder(str(tmp_path)), "access failed for a reason that it does not tell"
        assert list(tmp_path.iterdir()) == []


# Growing files -----------------------------------------------------------------------------------------------


def test_a_growing_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "a"
    file = GrowingFile(path)
    assert file.read(100) == b""
    path.write_bytes(b"0123456789")
    assert (file.read(4), file.offset) == (b"0123", 4)
    assert (file.read(100), file.read(100), file.offset) == (b"456789", b"", 10)
    with path.open("ab") as writer:
        writer.write(b"x" * 3000)
    assert (len(file.read(2000)), len(file.read(2000)), file.restarted) == (2000, 1000, False)


def test_an_offset_beyond_the_end_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"01")
    file = GrowingFile(path, 4)
    assert file.read(10) == b""
    path.write_bytes(b"012345")
    assert (file.read(10), file.restarted) == (b"45", False)


@pytest.mark.parametrize("new", [b"new", b"new and longer than what was there", b"0123456x89 and more", b"\0" * 30])
@pytest.mark.parametrize("how", ["cut", "replaced"])
def test_a_file_that_is_written_anew_is_read_from_its_beginning(tmp_path: Path, new: bytes, how: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    file = GrowingFile(path, 2)
    assert file.read(100) == b"23456789"
    if how == "replaced":
        (tmp_path / "b").write_bytes(new)
        (tmp_path / "b").replace(path)
    else:
        path.write_bytes(new)
    assert (file.read(100), file.restarted, file.offset) == (new, True, len(new))
    assert (file.read(100), file.restarted) == (b"", False)


def test_a_file_that_is_emptied_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    file = GrowingFile(path)
    file.read(100)
    path.write_bytes(b"")
    assert (file.read(100), file.restarted, file.offset) == (b"", True, 0)
    path.write_bytes(b"0123456789")
    assert file.read(100) == b"0123456789"


def test_a_growing_file_that_is_a_fifo_is_refused(tmp_path: Path) -> None:
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "a")
        begin = time.monotonic()
        with pytest.raises(NotRegularFile):
            GrowingFile(tmp_path / "a").read(1)
        assert time.monotonic() - begin < 10
