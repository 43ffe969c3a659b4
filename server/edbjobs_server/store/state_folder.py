"""The state folder: private, local, and used by one service at a time."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

from edbjobs_server.store.errors import StoreError

_NETWORK = re.compile(
    r"(9p|afs|beegfs|ceph|cifs|coda|gfs2|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|panfs|pvfs2|smb\w*|vboxsf"
    r"|wekafs|fuse\.(sshfs|ceph|gluster|rclone|s3|smb|nfs|afp|gcs|blob|juicefs|goofys|curlftpfs)\S*)"
)
_MOUNTINFO = Path("/proc/self/mountinfo")


def prepare(state_dir: Path) -> None:
    """Make the state folder, readable by its owner only.

    Raises
    ------
    StoreError
        If it cannot be made, or lies on a network file system.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        state_dir.chmod(0o700)
    except OSError as error:
        raise StoreError(f"the state folder {state_dir} cannot be made ({error.strerror})") from error
    kind = network_file_system(state_dir)
    if kind:
        raise StoreError(
            f"the state folder {state_dir} lies on a network file system ({kind}), where SQLite's write-ahead log "
            "does not work: --state-dir must be a local folder"
        )


def network_file_system(path: Path, mountinfo: str | None = None) -> str | None:
    """Return the kind of network file system a folder lies on; None: it is local, or it is unknown.

    Parameters
    ----------
    path : Path
        The folder.
    mountinfo : str, optional
        Text as of ``/proc/self/mountinfo`` (proc(5)); default: that file.
    """
    if str(path).startswith("\\\\"):
        return "UNC path"
    kind = file_system(path, mountinfo)
    return kind if kind and _NETWORK.fullmatch(kind) else None


def file_system(path: Path, mountinfo: str | None = None) -> str | None:
    """Return the kind of file system a path lies on, by the mounts of this process; None: it is unknown."""
    if mountinfo is None:
        if not _MOUNTINFO.exists():
            return None
        mountinfo = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    real = os.path.realpath(path)
    best, kind = "", None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # The last mount on a point hides those before it.
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


class Lock:
    """Holds the state folder for one service.

    The lock belongs to the open file, so it ends with the process that holds it, however that ends; the file
    stays and names the last holder.

    Parameters
    ----------
    path : Path
        Lock file.

    Raises
    ------
    StoreError
        If another service holds it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"the lock {path} cannot be opened ({error.strerror})") from error
        try:
            _lock(self._file)
        except OSError as error:
            holder = os.pread(self._file, 300, 0).decode(errors="replace") if os.name == "posix" else ""
            os.close(self._file)
            host, _, pid = holder.strip().partition(" ")
            raise StoreError(
                f"the state folder {path.parent} is in use by the service on host {host or '?'} with pid "
                f"{pid or '?'}: stop that one, or choose another --state-dir"
            ) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{socket.gethostname()} {os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another service in."""
        os.close(self._file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        # A byte far behind the text, because Windows keeps others from reading a locked one.
        os.lseek(file, 1 << 20, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
