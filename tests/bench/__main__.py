"""Run the measures: all of them, or those that are named."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import cluster, command, loop, records, runs, submits, watchers
from bench.table import Row, markdown

MEASURES: dict[str, Callable[[Path], Iterable[Row]]] = {
    "submit": submits.one_client,
    "submits": submits.many_clients,
    "rest": submits.rest,
    "batch": submits.batch,
    "noop": runs.noop_jobs,
    "start": runs.start,
    "page": records.page,
    "memory": records.memory,
    "restart": records.restart,
    "watchers": watchers.watchers,
    "stall": loop.stall,
    "idle": loop.idle,
    "command": command.command,
    "cluster-cost": cluster.cost,
    "cluster-running": cluster.running,
    "cluster-delays": cluster.delays,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(MEASURES)}")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in MEASURES]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are: {', '.join(MEASURES)}")
    rows: list[Row] = []
    for name in arguments.names or MEASURES:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="edbjobs-bench-") as folder:
            rows += MEASURES[name](Path(folder))
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(markdown(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([row.as_json() for row in rows], indent=2))


if __name__ == "__main__":
    main()
