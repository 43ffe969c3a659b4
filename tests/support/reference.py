"""The old package, pyedb 0.65.2, in an environment of its own that is kept between runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "0.65.2"
PACKAGES = (f"pyedb=={VERSION}", "aiohttp", "python-socketio", "psutil", "requests")


def reference_python() -> Path:
    """Give the Python of the environment; made where it is not there yet, which takes a minute."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edbjobs-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"pyedb-{VERSION}"
    python, done = folder / "bin" / "python", folder / "installed"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
            found = subprocess.run(pip, capture_output=True, text=True)
            if found.returncode:
                pytest.skip(f"pyedb {VERSION} cannot be installed: {found.stderr[-300:]}")
            done.touch()
    return python


def run_reference(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the old Python; it is made to believe that there is an AEDT, without which it does not begin."""
    solver = folder / "v252" / "AnsysEM" / "ansysedt"
    solver.parent.mkdir(parents=True, exist_ok=True)
    solver.touch(mode=0o755)
    environment = {**os.environ, "ANSYSEM_ROOT252": str(solver.parent)}
    line = [str(reference_python()), "-W", "ignore", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment, cwd=folder)
