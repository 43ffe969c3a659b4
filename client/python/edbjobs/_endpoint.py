"""Discovery of this user's service: the runtime folder and its endpoint.json.

The service writes the file once it accepts calls; clients read it to find the service. Another account with
write access could direct clients, and their tokens, to an address of its own: so the folder must belong to this
user and must not be writable by others.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edbjobs._exceptions import TargetError

__all__ = [
    "DEFAULT_TARGET",
    "Endpoint",
    "Target",
    "process_start",
    "read_endpoint",
    "remove_endpoint",
    "resolve_target",
    "runtime_dir",
    "write_endpoint",
]

DEFAULT_TARGET = "127.0.0.1:18080"
FILE_NAME = "endpoint.json"


@dataclass(frozen=True)
class Endpoint:
    """Addresses and process of a running service.

    Attributes
    ----------
    grpc, uds, http : str
        Address as ``host:port``, path of the Unix socket, base URL; empty: not served.
    pid, pid_start : int
        Its process, and the start time in clock ticks since boot (0: unknown), which distinguishes it
        from a later process with the same pid.
    host, version : str
        Host name and release.
    token_file : str
        File with the token; empty: none.
    """

    grpc: str = ""
    uds: str = ""
    http: str = ""
    pid: int = 0
    pid_start: int = 0
    host: str = ""
    version: str = ""
    token_file: str = ""


@dataclass(frozen=True)
class Target:
    """An address in gRPC's form, the token for it, and where it was found."""

    address: str
    token: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"{self.address} ({self.source})" if self.source else self.address


def runtime_dir(*, create: bool = False) -> Path:
    """Return this user's folder for sockets, ready files and endpoint.json.

    ``$EDBJOBS_RUNTIME_DIR``, else ``edbjobs`` in ``$XDG_RUNTIME_DIR`` (Windows: ``%LOCALAPPDATA%``), else
    ``edbjobs-<uid>`` in the temporary folder.

    Parameters
    ----------
    create : bool
        Create it, with mode 0700, if it does not exist.

    Raises
    ------
    TargetError
        If it is a link, belongs to another account, or is writable by other accounts.
    """
    path = _runtime_path()
    if create:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_folder(path)
    return path


def _runtime_path() -> Path:
    if chosen := os.environ.get("EDBJOBS_RUNTIME_DIR"):
        return Path(chosen)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / "edbjobs"
    base = os.environ.get("XDG_RUNTIME_DIR")
    # sudo and su may keep the folder of another account in the environment.
    if base and os.path.isdir(base) and os.stat(base).st_uid == os.geteuid():
        return Path(base) / "edbjobs"
    return Path(tempfile.gettempdir()) / f"edbjobs-{os.geteuid()}"


def _check_folder(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if os.name == "nt":
        return
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is not a folder"
    elif found.st_uid != os.geteuid():
        wrong = f"belongs to account {found.st_uid}"
    elif found.st_mode & 0o022:
        wrong = "is writable by other accounts"
    else:
        return
    raise TargetError(
        f"the runtime folder {path} {wrong}; remove it or set EDBJOBS_RUNTIME_DIR to a folder of your own",
        reason="UNSAFE_RUNTIME_DIR",
    )


def read_endpoint(path: Path | None = None) -> Endpoint | None:
    """Read endpoint.json, or a ready file; None if there is none.

    Raises
    ------
    TargetError
        If the file is malformed, or the runtime folder is not safe.
    """
    path = path or runtime_dir() / FILE_NAME
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        known = {name: data[name] for name in Endpoint.__dataclass_fields__ if data.get(name) is not None}
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise TargetError(
            f"{path} is not what a service writes ({error}); remove it or set EDBJOBS_TARGET",
            reason="BAD_ENDPOINT_FILE",
        ) from error
    return Endpoint(**known)


def write_endpoint(endpoint: Endpoint, path: Path | None = None) -> Path:
    """Write endpoint.json, or a ready file at `path`, atomically; only this account can read it."""
    path = path or runtime_dir(create=True) / FILE_NAME
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(endpoint), file, indent=2)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def remove_endpoint(endpoint: Endpoint, path: Path | None = None) -> None:
    """Remove the file if it still has this endpoint; another service may have replaced it since."""
    path = path or runtime_dir() / FILE_NAME
    if read_endpoint(path) == endpoint:
        path.unlink(missing_ok=True)


def process_start(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; 0 if it has ended or has no /proc entry."""
    try:
        # Field 22 of /proc/<pid>/stat; the second, the name, may contain spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def resolve_target(target: str | None = None, token: str | None = None) -> Target:
    """Return the address: the argument, else ``EDBJOBS_TARGET``, else endpoint.json, else 127.0.0.1:18080.

    The token is the argument, else ``EDBJOBS_TOKEN``, else the file that endpoint.json names.
    """
    token = token or os.environ.get("EDBJOBS_TOKEN") or ""
    if target:
        return Target(_address(target), token)
    if chosen := os.environ.get("EDBJOBS_TARGET"):
        return Target(_address(chosen), token, "from EDBJOBS_TARGET")
    endpoint = read_endpoint()
    # The file may be on a shared file system; a loopback address of another host cannot be used here.
    if endpoint and endpoint.host in ("", socket.gethostname()) and (endpoint.uds or endpoint.grpc):
        uds = endpoint.uds and os.path.exists(endpoint.uds)
        address = f"unix:{endpoint.uds}" if uds or not endpoint.grpc else endpoint.grpc
        return Target(address, token or _read_token(endpoint.token_file), f"from {FILE_NAME}")
    return Target(DEFAULT_TARGET, token, "the default")


def _address(text: str) -> str:
    if text.startswith("unix:") and len(text) > len("unix:"):
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in text:
        raise TargetError(
            f"target {text!r} is no address; expected host:port or unix:/path/of/socket", reason="BAD_TARGET"
        )
    return text


def _read_token(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        # Not readable by this account: a loopback peer with the service's own account needs no token, and for any
        # other the service answers that a token is missing.
        return ""
