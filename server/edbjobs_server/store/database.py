"""The SQLite file: opening, upgrading and checking it."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path

from edbjobs_server.store.errors import StoreError
from edbjobs_server.store.queries import QUERIES

FILE = "store.db"
CHECK_BYTES = 512 * 1024 * 1024
LOG = logging.getLogger(__name__)
OLDER_ADVICE = (
    "it cannot be converted: let its jobs end with the program that wrote it, then move "
    f"{FILE}* away, or choose another --state-dir"
)
_ASIDE = ".corrupt-"
_BUSY_SECONDS = 10.0


def migrations() -> dict[int, str]:
    """Read the numbered schema files."""
    folder = resources.files(__package__).joinpath("schema")
    return {
        int(item.name[:3]): item.read_text(encoding="utf-8") for item in folder.iterdir() if item.name[:3].isdigit()
    }


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for writing. Every commit is on disk when it returns."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        # A statement of many rows keeps a journal of its own, which else is a file made and removed in each commit.
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Open the file for reading."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def open_checked(path: Path) -> sqlite3.Connection:
    """Open the store, made or upgraded where needed, and checked after an unclean stop.

    Raises
    ------
    StoreError
        If it is corrupt, of a newer release or from before the first one, or cannot be written.
    """
    try:
        if not path.exists():
            put_aside(path)  # a log that a crash left behind belongs to the store put aside, and to no other
            if aside := sorted(path.parent.glob(f"{path.name}{_ASIDE}*Z")):
                raise StoreError(_corrupt_text(aside[-1]))
        return _open(path)
    except OSError as error:
        raise StoreError(f"the store {path} cannot be opened ({error.strerror})") from error
    except sqlite3.Error as error:
        if is_corruption(error):
            raise StoreError(_corrupt_text(put_aside(path))) from error
        raise StoreError(f"the store {path} cannot be opened for writing ({error}): fix or free the volume") from error


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = connect(path)
    try:
        _migrate(connection, path)
        _check(connection, path)
        connection.execute(QUERIES["set_clean"], (0,))
    except BaseException:
        connection.close()
        raise
    return connection


def write_back(connection: sqlite3.Connection) -> None:
    """Copy the whole write-ahead log into the file and start a new one."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the log could not be written back: a reader is busy")


def is_corruption(error: BaseException) -> bool:
    """Return whether the file's content is broken, as opposed to a failure to read or write it."""
    return type(error) is sqlite3.DatabaseError


def is_storage_failure(error: BaseException) -> bool:
    """Return whether the disk is at fault: full, read-only or broken; not a mistake in the statement."""
    return isinstance(error, (sqlite3.OperationalError, OSError)) or is_corruption(error)


def put_aside(path: Path) -> Path:
    """Rename a store, with its log, to a name with the present time; returns that name."""
    stamp = _stamp()
    for suffix in ("", "-wal", "-shm"):  # a store without its log would open, and lack what the log holds
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{path.name}{_ASIDE}{stamp}{suffix}"))
    return path.with_name(f"{path.name}{_ASIDE}{stamp}")


def _stamp() -> str:
    """Name the present time, so finely that no two files get the same name."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


def _corrupt_text(aside: Path) -> str:
    return (
        f"the store is corrupt and was kept as {aside}: restore {FILE} from a copy, or run `edbjobs doctor --rebuild` "
        "to make a new one from the run records"
    )


def older_text(version: int) -> str:
    """Say that a store is older than the first schema."""
    first = min(migrations())
    return f"was written before edbjobs had its contract (schema {version}, this release reads from {first})"


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    steps = migrations()
    newest = max(steps)
    if version > newest:
        raise StoreError(
            f"the store {path} was written by a newer edbjobs (schema {version}, this release reads up to {newest}): "
            "install that release again, or choose another --state-dir"
        )
    if 0 < version < min(steps):
        raise StoreError(f"the store {path} {older_text(version)}: {OLDER_ADVICE}")
    if 0 < version < newest:
        _copy(connection, path, version)
    if version == newest:
        return
    # One transaction: a power cut leaves the file as it was, or a whole schema with its one row.
    upgrade = "\n".join(steps[number] for number in sorted(steps) if number > version)
    connection.executescript(f"BEGIN IMMEDIATE;\n{upgrade}\nPRAGMA user_version = {newest};")
    if connection.execute(QUERIES["service"]).fetchone() is None:
        connection.execute(QUERIES["insert_service"], (secrets.token_hex(8),))
    connection.execute("COMMIT")


def _copy(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Keep the file as it was before an upgrade."""
    copy = path.with_name(f"{path.name}.schema{version}-{_stamp()}")
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    target = sqlite3.connect(copy)
    try:
        connection.backup(target)
    finally:
        target.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage after an unclean stop; a large file is taken as it is, because a start must be quick."""
    *_, clean = connection.execute(QUERIES["service"]).fetchone()
    if clean:
        return
    if path.stat().st_size > CHECK_BYTES:
        LOG.warning("the last service did not stop in order, and %s is too large to be checked at the start", path)
        return
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise sqlite3.DatabaseError(result)
