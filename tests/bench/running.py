"""What jobs cost while they run: memory of service, launcher and supervisors, and processor time when all is calm."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from edbjobs.v1 import jobs_messages_pb2 as pb

from bench.records import wait_until_running
from bench.service import MeasuredService, projects, request, service
from bench.table import Row

NUMBERS = (100, 300)
CALM_SECONDS = 5.0
IDLE_SECONDS = 20.0
_IDLE_GOALS = {100: "< 0.5 %", 300: "< 1 %"}


def running(folder: Path) -> Iterator[Row]:
    """Jobs whose solver sleeps and writes nothing."""
    empty_memory, empty_idle = _measured(folder / "0", 0)
    for number in NUMBERS:
        memory, idle = _measured(folder / str(number), number)
        each = (memory - empty_memory) / number
        yield Row(f"memory for each of {number} running jobs (PSS)", each, "MiB", "< 1.5 MiB")
        name = f"idle with {number} running jobs"
        yield Row(name, idle, "% of a core", _IDLE_GOALS[number], empty_idle, "no jobs")


def _measured(folder: Path, number: int) -> tuple[float, float]:
    """Run so many jobs; gives the memory in MiB, solvers left out, and the processor time in % of a core."""
    settings: dict[str, Any] = {
        "max_local_jobs": max(number, 1),
        "max_cores": max(number, 1),
    }
    with service(folder, script="exec sleep 600", http="127.0.0.1:0", **settings) as made:
        solvers: set[int] = set()
        try:
            if number:
                requests = [request(path) for path in projects(folder / "projects", number)]
                made.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=requests))
                solvers = wait_until_running(made, number)
            time.sleep(CALM_SECONDS)
            spent, started_at = made.spent(), time.perf_counter()
            time.sleep(IDLE_SECONDS)
            share = (made.spent() - spent) / (time.perf_counter() - started_at)
            return _memory(made), share * 100
        finally:
            for pid in solvers:
                _kill(pid)


def _memory(made: MeasuredService) -> float:
    """Sum the proportional set sizes of service, launcher and supervisors, MiB."""
    return sum(_pss(item.pid) for item in made.processes() if item.name() != "sleep") / 1024


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None, text
    return int(found.group(1))


def _kill(pid: int) -> None:
    """End a solver, whose supervisor records that and ends too."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
