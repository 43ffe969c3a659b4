"""Checks of the service itself: account, endpoints, state folder, store."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from edbjobs._endpoint import Endpoint, process_start, read_endpoint
from edbjobs._exceptions import TargetError
from edbjobs._version import __version__

from edbjobs_server.auth.authenticator import TOKEN_FILE, account_name, load_token
from edbjobs_server.auth.peers import open_peer_sockets
from edbjobs_server.config.settings import Settings, SettingsError
from edbjobs_server.doctor.check import Check
from edbjobs_server.store.database import FILE, OLDER_ADVICE, migrations, older_text
from edbjobs_server.store.state_folder import network_file_system

_GIB = 1024**3
_LOW_GIB = 2.0
_REBUILD = "stop the service, then restore the file from a copy, or run `edbjobs doctor --rebuild`"


def versions(settings: Settings) -> Iterator[Check]:
    """Report the platform of the service."""
    parts = [f"edbjobs {__version__}", f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("grpcio", "protobuf")]
    yield Check("versions", "ok", ", ".join([*parts, f"SQLite {sqlite3.sqlite_version}"]))


def account(settings: Settings) -> Iterator[Check]:
    """Report the account; warn of root."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield Check(
            "account",
            "warn",
            "root: every solve would run as root too, on projects that others wrote",
            "run the service as the account that owns the projects, or one of its own",
        )
    else:
        yield Check("account", "ok", f"{account_name()}: solves run, own files and are charged as it")


def tcp(settings: Settings) -> Iterator[Check]:
    """Check whether the TCP address can be had."""
    if settings.tcp is None:
        yield Check("TCP", "ok", "off")
        return
    host, port = settings.tcp
    ours = running_service()
    if ours is not None and ours.grpc == settings.grpc:
        yield Check("TCP", "ok", f"{settings.grpc}: this account's service, pid {ours.pid}, has it")
    elif port == 0:
        yield Check("TCP", "ok", f"{settings.grpc}: any free port")
    else:
        yield _bindable(host, port, settings.grpc)
    if settings.transport_mode != "mtls" and not _is_loopback(host):
        yield Check(
            "TCP",
            "warn",
            "tokens and projects' names go over the network unencrypted",
            "use --transport-mode mtls, or 127.0.0.1 and an SSH tunnel",
        )


def unix_socket(settings: Settings) -> Iterator[Check]:
    """Check whether the Unix socket can be had."""
    if settings.uds is None:
        yield Check("Unix socket", "ok", "off")
        return
    ours = running_service()
    if ours is not None and ours.uds == str(settings.uds):
        yield Check("Unix socket", "ok", f"{settings.uds}: this account's service, pid {ours.pid}, has it")
        return
    if answers(settings.uds):
        advice = "stop it, or choose another socket with --uds"
        yield Check("Unix socket", "fail", f"another service answers at {settings.uds}", advice)
        return
    folder = settings.uds.parent
    if folder.exists() and hasattr(os, "geteuid") and folder.stat().st_mode & 0o022 and not _sticky(folder):
        advice = f"chmod go-w {folder}, or choose another socket with --uds"
        yield Check("Unix socket", "warn", f"{folder} can be written by others, who could put theirs there", advice)
        return
    yield Check("Unix socket", "ok", f"{settings.uds}: free")


def access(settings: Settings) -> Iterator[Check]:
    """Check whether the token is private, and whether local peers are known by their sockets."""
    file = settings.state_dir / TOKEN_FILE
    try:
        if file.exists():
            load_token(file)
    except SettingsError as error:
        yield Check("token", "fail", str(error), f"rm {file}: the next start makes a new one")
    if settings.tcp is None:
        return
    table = open_peer_sockets()
    if table is None:
        text = "the account of a local connection cannot be determined here: over TCP every caller needs the token"
        yield Check("who gets in", "warn", text, f"use the Unix socket, or EDBJOBS_TOKEN from {file}")
        return
    table.close()
    yield Check("who gets in", "ok", "local connections of this account; everybody else by token")


def state_folder(settings: Settings) -> Iterator[Check]:
    """Check whether the state folder is local, private and can be written."""
    folder = settings.state_dir
    kind = network_file_system(folder)
    if kind is not None:
        text = f"{folder} lies on a network file system ({kind}), where the store does not work"
        yield Check("state folder", "fail", text, "choose a folder on a local disk with --state-dir")
        return
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "give it to this account, or choose another with --state-dir"
        yield Check("state folder", "fail", f"{place} cannot be written by {account_name()}", advice)
    elif place is not folder:
        yield Check("state folder", "ok", f"{folder}: made at the first start")
    elif hasattr(os, "geteuid") and folder.stat().st_mode & 0o077:
        text = f"{folder} can be read by others (mode {stat.S_IMODE(folder.stat().st_mode):04o})"
        yield Check("state folder", "warn", text, f"chmod 700 {folder}; the service does so when it starts")
    else:
        yield Check("state folder", "ok", f"{folder}: local and private")


def disk(settings: Settings) -> Iterator[Check]:
    """Report the space for store, logs and runs."""
    place = next(path for path in (settings.state_dir, *settings.state_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free / _GIB
    text = f"{free:.1f} GiB free at {place}"
    least = (settings.min_free_disk_bytes or 0) / _GIB
    if free < least:
        text += f", less than the {least:g} GiB without which nothing starts"
        yield Check("disk", "fail", text, "free space, or lower --min-free-disk-bytes")
    elif free < _LOW_GIB:
        yield Check("disk", "warn", text, "free space: with a full disk submits are refused")
    else:
        yield Check("disk", "ok", text)


def store(settings: Settings) -> Iterator[Check]:
    """Check whether the store can be read, and is whole; it is opened for reading only."""
    file = settings.state_dir / FILE
    if not file.exists():
        aside = sorted(settings.state_dir.glob(f"{FILE}.corrupt*Z"))
        if aside:
            yield Check("store", "fail", f"it was corrupt and is kept as {aside[-1]}", _REBUILD)
        else:
            yield Check("store", "ok", "none yet: made at the first start")
        return
    try:
        with closing(_open_store(file)) as connection:
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        yield Check("store", "fail", f"{file} cannot be read: {error}", _REBUILD)
        return
    if result != "ok":
        yield Check("store", "fail", f"{file} is corrupt: {result}", _REBUILD)
    elif schema < min(migrations()):
        yield Check("store", "fail", f"{file} {older_text(schema)}", OLDER_ADVICE)
    elif schema > max(migrations()):
        advice = "install that release again, or choose another --state-dir"
        yield Check("store", "fail", f"{file} was written by a newer edbjobs (schema {schema})", advice)
    else:
        yield Check("store", "ok", f"{file}: whole, {file.stat().st_size / 1024**2:.1f} MiB, schema {schema}")


def _open_store(file: Path) -> sqlite3.Connection:
    # Without a log no service has it open. Opened as usual, even for reading, SQLite would leave files beside it
    # that belong to the account that runs the check, and the service of another account could not open them.
    logged = file.with_name(f"{file.name}-wal").exists()
    return sqlite3.connect(f"{file.absolute().as_uri()}?{'mode=ro' if logged else 'immutable=1'}", uri=True)


def project_roots(settings: Settings) -> Iterator[Check]:
    """Check whether the folders projects must lie in are there."""
    for root in settings.project_roots:
        if root.is_dir():
            yield Check("projects", "ok", f"allowed below {root}")
        else:
            advice = "mount or make it, or correct --project-root"
            yield Check("projects", "warn", f"{root} is not there: no project below it can be submitted", advice)


def running_service() -> Endpoint | None:
    """Return the endpoint of this account's service, if it lives."""
    try:
        endpoint = read_endpoint()
    except TargetError:
        return None
    if endpoint is None or not endpoint.pid or endpoint.host not in ("", socket.gethostname()):
        return None
    started = process_start(endpoint.pid)
    return endpoint if started and endpoint.pid_start in (0, started) else None


def answers(path: Path) -> bool:
    """Return whether a process listens at a Unix socket."""
    if sys.platform == "win32":
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _bindable(host: str, port: int, address: str) -> Check:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            why = {errno.EADDRINUSE: "another program has it", errno.EADDRNOTAVAIL: "no address of this host"}
            text = f"{address}: {why.get(error.errno or 0, error.strerror)}"
            return Check("TCP", "fail", text, "choose another with --grpc, or port 0")
    return Check("TCP", "ok", f"{address}: free")


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def _sticky(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_ISVTX)
