"""Processor time of our own runs, which the load that is not ours is found without."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import psutil

ProcessTimes = dict[int, tuple[int, float]]  # pid: parent's pid, processor seconds with those of ended children


class RunTimes:
    """Adds up the processor time of runs, whose supervisors come and go."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._last: dict[int, tuple[float, float]] = {}  # root: processor seconds, use per second
        self._time = 0.0
        self._busy = 0.0

    def total(self, roots: Iterable[int], now: float, busy: float) -> float:
        """Return the processor seconds of all runs since the first call.

        Parameters
        ----------
        roots : iterable of int
            Pids of the supervisors; all their descendants count.
        now : float
            Monotonic seconds.
        busy : float
            Processor seconds the whole host has used: ours cannot have grown by more than these.

        Returns
        -------
        float
            Grows only. A run that has ended since the call before is taken to have gone on as it was: taken as
            gone, its last seconds would look like somebody else's.
        """
        elapsed, room = now - self._time, busy - self._busy
        times = tree_times(set(roots))
        grown = sum(rate * elapsed for root, (_, rate) in self._last.items() if root not in times)
        last = {}
        for root, seconds in times.items():
            more = max(0.0, seconds - self._last.get(root, (0.0, 0.0))[0])
            grown += more
            last[root] = seconds, min(more, room) / elapsed if elapsed > 0 else 0.0
        if self._time:
            self._sum += min(grown, max(0.0, room))
        self._last, self._time, self._busy = last, now, busy
        return self._sum


def tree_times(roots: set[int]) -> dict[int, float]:
    """Return the processor seconds of each root that lives, with all its descendants."""
    if not roots:
        return {}
    processes = process_times()
    result = {root: processes[root][1] for root in roots if root in processes}
    root_of: dict[int, int | None] = {root: root for root in result}
    for pid, (_, seconds) in processes.items():
        if pid not in result and (root := _root(pid, processes, root_of)) is not None:
            result[root] += seconds
    return result


def _root(pid: int, processes: ProcessTimes, root_of: dict[int, int | None]) -> int | None:
    path = []
    while pid not in root_of:
        path.append(pid)
        root_of[pid] = None  # ends the walk if the table, read while processes come and go, has a ring
        pid = processes[pid][0] if pid in processes else 0
    found = root_of[pid]
    for step in path:
        root_of[step] = found
    return found


def process_times() -> ProcessTimes:
    """Read parent and processor time of every process."""
    if sys.platform != "linux":
        return _from_psutil()
    # A quarter of what psutil takes for it, which counts on hosts with thousands of processes.
    tick = 1.0 / os.sysconf("SC_CLK_TCK")
    result = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            descriptor = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            try:
                line = os.read(descriptor, 4096)
            finally:
                os.close(descriptor)
        except OSError:  # it has ended
            continue
        # proc_pid_stat(5), from the third field on; all after the times is left in one piece
        fields = line[line.rindex(b")") + 2 :].split(None, 15)
        result[int(name)] = int(fields[1]), sum(map(int, fields[11:15])) * tick
    return result


def _from_psutil() -> ProcessTimes:
    result = {}
    for process in psutil.process_iter(["ppid", "cpu_times"]):
        parent, times = process.info["ppid"], process.info["cpu_times"]
        if times is not None:  # None: of an account we may not look at
            result[process.pid] = parent, sum(times[:4])
    return result
