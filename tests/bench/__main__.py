"""Run the measures: all of them, or those that are named; or compare this checkout with another one."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench import beside, cluster, command, growth, loop, records, references, running, runs, submits, watchers
from bench.table import Row, markdown, promises

T = TypeVar("T")

MEASURES: dict[str, Callable[[Path], Iterable[Row]]] = {
    "submit": submits.one_client,
    "submits": submits.many_clients,
    "rest": submits.rest,
    "batch": submits.batch,
    "noop": runs.noop_jobs,
    "start": runs.start,
    "page": records.page,
    "memory": records.memory,
    "running": running.running,
    "restart": records.restart,
    "list": growth.whole_list,
    "growth": growth.growth,
    "watchers": watchers.watchers,
    "stall": loop.stall,
    "idle": loop.idle,
    "command": command.command,
    "cluster-cost": cluster.cost,
    "cluster-running": cluster.running,
    "cluster-delays": cluster.delays,
}


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(MEASURES)}")
    made.add_argument("--json", type=Path, help="also write the figures to this file")
    made.add_argument("--markdown", action="store_true", help="print what goes into docs/benchmarks.md")
    known = ", ".join(beside.COMPARED)
    made.add_argument("--beside", type=Path, metavar="PATH", help=f"compare with this checkout; can be: {known}")
    made.add_argument("--rounds", type=int, default=beside.ROUNDS, help="of each side with --beside; 3 or more")
    return made


def read(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with 2 where it cannot be meant."""
    made = parser()
    arguments = made.parse_args(line)
    known: Iterable[str] = MEASURES
    if arguments.beside is not None:
        known = beside.COMPARED
        arguments.beside = arguments.beside.resolve()
        if not (arguments.beside / "server" / "edbjobs_server").is_dir():
            made.error(f"expected a checkout of this project, got {arguments.beside}")
        if arguments.rounds < 3:
            made.error(f"expected 3 rounds or more, got {arguments.rounds}")
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        made.error(f"there is no {unknown[0]}; there are: {', '.join(known)}")
    arguments.names = arguments.names or list(known)
    return arguments


def main() -> None:
    """Measure what the command line names."""
    arguments = read()
    if arguments.beside is not None:
        _compare(arguments.names, arguments.beside, arguments.rounds)
        return
    started_at, rows = datetime.now(timezone.utc), list[Row]()
    for name in arguments.names:
        rows += _timed(name, MEASURES[name])
    print(section(rows, started_at) if arguments.markdown else markdown(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2))


def _compare(names: Sequence[str], other: Path, rounds: int) -> None:
    pairs = [_timed(name, partial(beside.compare, name, other=other, rounds=rounds))[0] for name in names]
    print(f"here: {revision(beside.HERE)}; there: {revision(other)}; {machine()}\n")
    print(beside.comparison(pairs))


def _timed(name: str, measure: Callable[[Path], Iterable[T]]) -> list[T]:
    started_at = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edbjobs-bench-") as folder:
        found = list(measure(Path(folder)))
    print(f"{name}: {time.perf_counter() - started_at:.0f} s", file=sys.stderr)
    return found


def section(rows: Sequence[Row], started_at: datetime) -> str:
    """Make the part of docs/benchmarks.md that one run gives."""
    kept = {
        "edbjobs": (references.OURS.on_disk, references.OURS.manager_dies),
        **{name: (peer.on_disk, peer.manager_dies) for name, peer in references.PEERS.items()},
    }
    head = f"{started_at:%d %B %Y}, {revision(beside.HERE)}; {machine()}."
    return "\n\n".join([head, markdown(rows), "What each promises:", promises(kept)])


def revision(tree: Path) -> str:
    """Return which revision a checkout has, and whether it was changed."""
    line = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    found = subprocess.run(line, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no revision"


def machine() -> str:
    """Return what was measured on, and how busy it was."""
    load = os.getloadavg()[1]
    version = platform.python_version()
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {version}, load {load:.1f}"


if __name__ == "__main__":
    main()
