"""The published files, built once in a test run: sdist and wheel of edbjobs and of edbjobs-pyedb."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from interop.toolchains import once

ROOT = Path(__file__).resolve().parents[2]
COMPAT = ROOT / "server" / "compat"
BUILD_SECONDS = 420


def built(factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the files; each wheel is built from its sdist, in an environment of its own."""
    return once(factory, "distributions", _build)


def wheels(factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheels of edbjobs and of edbjobs-pyedb."""
    folder = built(factory)
    (edbjobs,) = folder.glob("edbjobs-*.whl")
    (compat,) = folder.glob("edbjobs_pyedb-*.whl")
    return edbjobs, compat


def _build(folder: Path) -> None:
    for project in (ROOT, COMPAT):
        command = [sys.executable, "-m", "build", "--outdir", str(folder), str(project)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
