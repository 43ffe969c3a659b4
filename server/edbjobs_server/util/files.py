"""Opening and reading files of users: without waiting for a writer, within a budget, and exact about what failed.

Users' files lie on network file systems and are written by other programs. So every error is one of two kinds. A
transient one is no property of the file: descriptors or memory have run out, or a file server does not answer. The
caller looks again. Any other is a definite answer: the file is not there, or this account may not read it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import BinaryIO

# EIO and EBUSY are here because NFS, SMB and FUSE answer with them while a server or a link is away; EKEYEXPIRED ends
# when the user's Kerberos ticket is renewed. ENOSPC and EDQUOT are not: reading does not meet them.
TRANSIENT: frozenset[int] = frozenset(
    getattr(errno, name)
    for name in (
        "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EAGAIN", "EWOULDBLOCK", "EINTR", "EBUSY", "ENOLCK",
        "EIO", "ESTALE", "ETIMEDOUT", "ETIME", "EREMOTEIO", "ECOMM", "ENOLINK", "ENONET", "EKEYEXPIRED",
        "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ECONNRESET", "ECONNREFUSED",
        "ECONNABORTED", "ENOTCONN", "ESHUTDOWN",
    )
    if hasattr(errno, name)
)  # fmt: skip
# The same of Windows, whose errno hides them: too many files, memory, drive or network away, shared or locked by
# another program, busy, time-out, no resources.
_TRANSIENT_WINDOWS = frozenset(
    {4, 8, 14, 21, 32, 33, 51, 53, 54, 55, 59, 64, 71, 121, 170, 240, 1222, 1231, 1232, 1236, 1450, 1455}
)
_IN_USE_WINDOWS = frozenset({32, 33})

_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _flag, 0)
_KINDS = {
    stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device", stat.S_IFLNK: "symbolic link",
}  # fmt: skip
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
NAME_MAX = 255  # bytes of a file name, where the file system does not say otherwise
_KEPT_BYTES = 1024  # of what was read last, to see that the file is still the same


class NotRegularFile(OSError):
    """Something else than a regular file stands at the path; reading it might never end."""

    def __init__(self, kind: str, path: str | Path) -> None:
        super().__init__(errno.EINVAL, f"expected a regular file, got a {kind}", str(path))


class BudgetSpent(OSError):
    """More bytes or more time than allowed are needed to read a file; `errno` is EFBIG or ETIMEDOUT."""


class Budget:
    """How much may be read, in bytes and in seconds from now on; shared by all that is read under it.

    Parameters
    ----------
    size : int
        Bytes.
    seconds : float
        Time.
    """

    def __init__(self, size: int, seconds: float) -> None:
        self.size = size
        self.seconds = seconds
        self.used = 0
        self._end = time.monotonic() + seconds
        self._late = False

    def allow(self, requested: int) -> int:
        """Return how many of the `requested` bytes may be read now; 0: the budget is spent."""
        self._late = self._late or time.monotonic() >= self._end
        return 0 if self._late else min(requested, self.size - self.used)

    def take(self, count: int) -> None:
        """Count bytes that were read."""
        self.used += count

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self._late

    @property
    def spent(self) -> str:
        """Which limit was reached, as a part of a sentence; empty: none."""
        if self._late:
            return f"{self.used} bytes were read in {self.seconds:g} s"
        return f"it has more than {self.size} bytes" if self.used >= self.size else ""

    def error(self, path: str | Path) -> BudgetSpent:
        """Return the error to raise for a file that cannot be read within the budget."""
        number = errno.ETIMEDOUT if self._late else errno.EFBIG
        return BudgetSpent(number, f"too large or too slow to be read whole: {self.spent}", str(path))


def is_transient(error: BaseException) -> bool:
    """Return whether an error is no property of the file, so that the caller should look again."""
    if isinstance(error, (MemoryError, TimeoutError)):
        return True
    if not isinstance(error, OSError):
        return False
    return error.errno in TRANSIENT or getattr(error, "winerror", None) in _TRANSIENT_WINDOWS


def text_of(error: OSError) -> str:
    """Return an error's text, for a sentence that names the path itself."""
    if error.errno == errno.ENAMETOOLONG:
        return "its name is longer than the file system allows"
    return error.strerror or str(error) or type(error).__name__


def open_regular(path: str | Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading; it never waits for a writer or a device.

    Parameters
    ----------
    path : str or Path
        File.
    follow : bool
        False: a symbolic link is not followed.

    Raises
    ------
    NotRegularFile
        It is a folder, FIFO, socket, device or, unless `follow`, a link.
    OSError
        It cannot be opened.
    """
    return os.fdopen(_open_descriptor(path, follow), "rb")


def _open_descriptor(path: str | Path, follow: bool = True) -> int:
    try:
        file = os.open(path, _FLAGS if follow else _FLAGS | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotRegularFile("socket or a device that is not there", path) from error
        if error.errno == errno.ELOOP and not follow:
            raise NotRegularFile("symbolic link", path) from error
        raise
    try:
        _refuse_irregular(os.fstat(file).st_mode, path)
    except BaseException:
        os.close(file)
        raise
    return file


def _refuse_irregular(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegularFile(_KINDS.get(stat.S_IFMT(mode), "file of an unknown kind"), path)


def mode_of(path: str | Path, *, follow: bool = True) -> int | None:
    """Return the mode of what stands at a path; None: nothing, or nothing that can have this name.

    Raises
    ------
    OSError
        It cannot be looked at, so it is unknown whether it exists.
    """
    found = status_of(path, follow=follow)
    return None if found is None else found.st_mode


def status_of(path: str | Path, *, follow: bool = True) -> os.stat_result | None:
    """Return the status of what stands at a path; None and errors as of `mode_of`."""
    try:
        return os.stat(path) if follow else os.lstat(path)
    except OSError as error:
        if error.errno in _ABSENT and not is_transient(error):
            return None
        raise


def is_readable(path: str | Path) -> bool:
    """Return whether this account may read a regular file; unlike `os.access`, errors are raised.

    Raises
    ------
    NotRegularFile
        It is no regular file.
    OSError
        It cannot be reached.
    """
    try:
        os.close(_open_descriptor(path))
    except PermissionError as error:
        # On Windows somebody else may have it open, who will close it before the solver needs it.
        return getattr(error, "winerror", None) in _IN_USE_WINDOWS
    return True


def is_writable_folder(path: str) -> bool:
    """Return whether this account may make files in a folder; unlike `os.access`, transient errors are raised."""
    if os.access(path, os.W_OK | os.X_OK):
        return True
    try:
        return _try_folder(path)
    except OSError as error:
        if is_transient(error):
            raise
        return False


def _try_folder(path: str) -> bool:
    """Create a file in a way that shows the error: Linux checks the rights before it makes a file without a name."""
    if not hasattr(os, "O_TMPFILE"):
        os.stat(path)
        return os.access(path, os.W_OK | os.X_OK)
    try:
        os.close(os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSPC, errno.EDQUOT):
            raise
        # Past the check of the rights, or a kernel without such files.
        return os.access(path, os.W_OK | os.X_OK)
    return True


def real_path(path: str) -> str:
    """Return the real path, as far as there is one; unlike `os.path.realpath`, transient errors are raised."""
    missing: list[str] = []
    while True:
        try:
            return os.path.join(os.path.realpath(path, strict=True), *reversed(missing))
        except OSError as error:
            if is_transient(error):
                raise
        parent, name = os.path.split(path)
        if parent == path:
            return os.path.join(path, *reversed(missing))
        if name:
            missing.append(name)
        path = parent


def name_limit(folder: str) -> int:
    """Return the longest file name, in bytes, that a folder's file system takes."""
    if not hasattr(os, "pathconf"):
        return NAME_MAX
    try:
        found = os.pathconf(folder, "PC_NAME_MAX")
    except OSError as error:
        if is_transient(error):
            raise
        return NAME_MAX
    except ValueError:
        return NAME_MAX
    return found if found > 0 else NAME_MAX


def name_length(name: str) -> int:
    """Return the length of a file name as file systems count it: bytes, on Windows UTF-16 units."""
    return len(name.encode("utf-16-le", "surrogatepass")) // 2 if sys.platform == "win32" else len(os.fsencode(name))


class GrowingFile:
    """Reads what is appended to a file; one that was cut, replaced or written anew is read from its beginning.

    That is seen by the size, and by the last bytes that were read: they must still stand where they were. Device and
    inode are no help, as some network file systems make new ones up.

    Parameters
    ----------
    path : str or Path
        File; it need not be there yet.
    offset : int
        Where to start.

    Attributes
    ----------
    offset : int
        Where the next bytes start.
    restarted : bool
        The last `read` started again at 0.
    """

    def __init__(self, path: str | Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.restarted = False
        self._size = 0
        self._kept = b""

    def read(self, limit: int) -> bytes:
        """Return the next bytes, at most `limit`; empty: there are none yet, or no file.

        Raises
        ------
        OSError
            The file is there but cannot be read.
        """
        self.restarted = False
        try:
            file = open_regular(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        with file:
            size = os.fstat(file.fileno()).st_size
            if size < self._size or (self._kept and self._before(file) != self._kept):
                self.offset, self._kept, self.restarted = 0, b"", True
            self._size = size
            if self.offset >= size:
                return b""
            before = self._kept or self._before(file)
            file.seek(self.offset)
            data = file.read(limit)
        self.offset += len(data)
        self._size = max(size, self.offset)
        self._kept = (before + data[-_KEPT_BYTES:])[-_KEPT_BYTES:]
        return data

    def _before(self, file: BinaryIO) -> bytes:
        length = len(self._kept) or min(self.offset, _KEPT_BYTES)
        file.seek(self.offset - length)
        return file.read(length)
