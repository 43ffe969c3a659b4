"""Other job managers, each in an environment of its own; one that cannot be installed is left out by name.

The environments are made once, in ``$XDG_CACHE_HOME/edbjobs-bench``, and never in the project.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = Path(__file__).parent
_PACKAGES = {"reference": "pyedb==0.65.2", "HyperQueue": "hyperqueue==0.27.0"}
_INSTALL_SECONDS = 300
_RUN_SECONDS = 120


def noop_rate(name: str, folder: Path, projects: list[Path], program: str) -> float | None:
    """Run no-op jobs, two at a time; gives jobs per second, or None where it is not installed."""
    python = _python(name)
    if python is None:
        return None
    work = folder / name
    work.mkdir(exist_ok=True)
    listed = work / "projects"
    listed.write_text("\n".join(map(str, projects)))
    script = _HERE / f"{name.lower()}_noop.py"
    answer = subprocess.run(
        [python, str(script), str(listed), program],
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_RUN_SECONDS,
        check=True,
    )
    return float(json.loads(answer.stdout.splitlines()[-1])["rate"])


@contextmanager
def rest_server(folder: Path) -> Iterator[str | None]:
    """Run the reference's server; gives its URL, or None where it is not installed."""
    python = _python("reference")
    if python is None:
        yield None
        return
    process = subprocess.Popen(
        [python, str(_HERE / "reference_rest.py")],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@functools.cache
def _python(name: str) -> str | None:
    """Give the interpreter that has a package; made once for each version of it."""
    package = _PACKAGES[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "edbjobs-bench" / package
    python = folder / "bin" / "python"
    done = folder / "installed"
    try:
        if not done.exists():
            print(f"installing {package} ...", file=sys.stderr)
            venv.create(folder, with_pip=True, clear=True)
            install = [str(python), "-m", "pip", "install", "--quiet", package]
            subprocess.run(install, check=True, timeout=_INSTALL_SECONDS)
            done.touch()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"left out: {package} cannot be installed: {error}", file=sys.stderr)
        return None
    return str(python)
