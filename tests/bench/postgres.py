"""A PostgreSQL of our own, on a Unix socket in a folder of its own; gone when the measure is over."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WHERE = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")  # of Debian and of Red Hat
_ACCOUNTS = ("postgres", "nobody")  # PostgreSQL refuses to run as root
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


@contextlib.contextmanager
def postgres() -> Iterator[str | None]:
    """Run a server; gives what libpq connects by, or None where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="edbjobs-pg-"))  # not below the measure's, which is closed to others
    account = _account(folder)
    try:
        data = folder / "data"
        init = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "bench", "-E", "UTF8", "--no-locale"]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL, cwd=folder, **account)
        with (folder / "log").open("wb") as log:
            line = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
            server: subprocess.Popen[bytes] = subprocess.Popen(
                line, stdout=log, stderr=log, cwd=folder, start_new_session=True, **account
            )
        try:
            _wait(programs, folder, server)
            yield f"host={folder} user=bench dbname=postgres"
        finally:
            server.send_signal(signal.SIGINT)  # "fast shutdown": connections are ended
            server.wait(_STOP_SECONDS)
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    found = [path for pattern in _WHERE for path in sorted(Path("/").glob(pattern[1:])) if (path / "initdb").exists()]
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    return found[-1] if found else None


def _account(folder: Path) -> dict[str, Any]:
    """Give the folder to the account that the server will run as, if that cannot be ours."""
    if os.geteuid() != 0:
        return {}
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL does not run as root, and there is no other account: run the measure as a user")


def _wait(programs: Path, folder: Path, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode:
        output = (folder / "log").read_text(errors="replace")
        assert server.poll() is None, output
        assert time.monotonic() < end, output
        time.sleep(0.05)
