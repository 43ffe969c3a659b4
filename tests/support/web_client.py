"""The TypeScript client, built once for each state of its sources."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "client" / "web"
BUILD = CLIENT / "build"
_BUILD_SECONDS = 300


def build() -> Path:
    """Build the client and its tests in place; return the folder `test`, which is beside `sample`."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing: apt-get install nodejs npm")
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # other workers wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        _once("packages", [CLIENT / "package-lock.json"], ["npm", "ci", "--no-audit", "--no-fund"])
        _once("sources", _sources(), ["npm", "run", "build:test"])
    return BUILD / "test"


def _sources() -> list[Path]:
    folders = [
        path for folder in ("src", "test") for path in (CLIENT / folder).rglob("*.ts") if "gen" not in path.parts
    ]
    return [*folders, *CLIENT.glob("*.json"), *CLIENT.glob("*.*js"), ROOT / "protos" / "edbjobs.binpb"]


def _once(name: str, inputs: list[Path], command: list[str]) -> None:
    stamp = BUILD / f"{name}.sha256"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(inputs))).hexdigest()
    if (CLIENT / "node_modules").is_dir() and stamp.exists() and stamp.read_text() == digest:
        return
    done = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=_BUILD_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    stamp.write_text(digest)
