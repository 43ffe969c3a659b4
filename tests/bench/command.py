"""What a user waits for before anything happens: the command's help, the client's import."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.table import Row, median_of

ROUNDS = 9


def command(folder: Path) -> Iterator[Row]:
    """Time of a whole process, beside an interpreter that does nothing."""
    bare = _time("-c", "pass")
    yield Row("edbjobs --help", _time("-m", "edbjobs", "--help"), "ms", "< 200 ms", bare, "bare interpreter")
    yield Row("import edbjobs", _time("-c", "import edbjobs"), "ms", "", bare, "bare interpreter")


def _time(*arguments: str) -> float:
    def once() -> float:
        started_at = time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        return (time.perf_counter() - started_at) * 1000

    once()
    return median_of(ROUNDS, once)
