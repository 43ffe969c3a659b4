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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_INSTALL_SECONDS = 300
_RUN_SECONDS = 120
SUBMITS = 200

Figures = dict[str, "float | None"]  # None: it is not installed


@dataclass(frozen=True)
class Peer:
    """Another job manager.

    Attributes
    ----------
    script : str
        Begin of the name of the file that measures it.
    packages : sequence of str
        What is installed for it; the first one names the environment.
    on_disk : str
        What is on disk when a submit is answered.
    manager_dies : str
        What becomes of a run when its manager dies.
    needs_database : bool
        It is given a PostgreSQL.
    """

    script: str
    packages: Sequence[str]
    on_disk: str
    manager_dies: str
    needs_database: bool = False


PEERS: Mapping[str, Peer] = {
    "reference": Peer("reference", ["pyedb==0.65.2"], "nothing", "lost"),
    "HyperQueue": Peer("hyperqueue", ["hyperqueue==0.27.0"], "nothing: its wheel has no journal", "lost"),
    "huey": Peer("huey", ["huey==3.5.4"], "the job (SQLite, fsync)", "lost: it is taken from the queue before it runs"),
    "procrastinate": Peer(
        "procrastinate",
        ["procrastinate==3.10.0", "psycopg-binary"],
        "the job (PostgreSQL, synchronous_commit)",
        "stays in the queue as stalled; to be retried by hand or by a task",
        needs_database=True,
    ),
}
OURS = Peer(
    "",
    (),
    "the job and its event (SQLite, WAL, synchronous=FULL)",
    "continues; its supervisor records its end with fsync; it is started exactly once",
)


def noop_rate(name: str, folder: Path, projects: Sequence[Path], program: str, database: str | None) -> float | None:
    """Run no-op jobs, two at a time; gives jobs per second, or None where the peer is not installed."""
    found = _run(name, "noop", folder, projects, program, database)
    return None if found is None else float(found["rate"])


def submit_times(folder: Path, projects: Sequence[Path], program: str, database: str | None) -> dict[str, list[float]]:
    """Submit one job after the other to each peer; gives the times in ms, none where it is not installed."""
    taken: dict[str, list[float]] = {}
    for name in PEERS:
        found = _run(name, "submit", folder, projects[:SUBMITS], program, database)
        taken[name] = [] if found is None else [value * 1000 for value in found["seconds"]]
    return taken


def figures(times: Mapping[str, list[float]], of: Callable[[list[float]], float]) -> Figures:
    """Give one figure of each peer."""
    return {name: of(values) if values else None for name, values in times.items()}


def _run(
    name: str, mode: str, folder: Path, projects: Sequence[Path], program: str, database: str | None
) -> dict[str, Any] | None:
    peer = PEERS[name]
    python = _python(name)
    if python is None or (peer.needs_database and database is None):
        return None
    work = folder / f"{peer.script}-{mode}"
    work.mkdir(exist_ok=True)
    values = {"projects": list(map(str, projects)), "number": len(projects), "program": program, "database": database}
    answer = subprocess.run(
        [python, str(_HERE / f"{peer.script}_peer.py"), mode, json.dumps(values)],
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"{name}: {answer.stderr.decode(errors='replace')[-2000:]}")
    return dict(json.loads(answer.stdout.splitlines()[-1]))


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
    """Give the interpreter that has a peer; made once for each version of it."""
    packages = PEERS[name].packages
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "edbjobs-bench" / packages[0]
    python = folder / "bin" / "python"
    done = folder / "installed"
    try:
        if not done.exists():
            print(f"installing {packages[0]} ...", file=sys.stderr)
            venv.create(folder, with_pip=True, clear=True)
            install = [str(python), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(install, check=True, timeout=_INSTALL_SECONDS)
            done.touch()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"left out: {packages[0]} cannot be installed: {error}", file=sys.stderr)
        return None
    return str(python)
