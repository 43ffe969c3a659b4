"""How many processors the service may use: affinity and cgroup quota count, as in a container."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_PROC = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def usable_processors() -> int:
    """Return how many logical processors this process may use, at least 1."""
    count = psutil.cpu_count() or 1
    if sys.platform == "linux":
        count = min(count, len(os.sched_getaffinity(0)))
        quota = cgroup_quota()
        if quota is not None:
            count = min(count, max(1, int(quota)))
    return count


def cgroup_quota(proc: Path = _PROC, root: Path = _CGROUPS) -> float | None:
    """Return the processor quota of this process's cgroup, in processors; None: there is none.

    Parameters
    ----------
    proc, root : Path
        Where the kernel lists the cgroups of this process, and where they are mounted. Both versions are read:
        ``cpu.max`` (cgroups(7), version 2), ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` (version 1).
    """
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += _up(root, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _up(root / "cpu", path, _quota_v1)
    return min(quotas, default=None)


def _up(mount: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    # A quota holds for all below it. Within a container the path may be the host's, and is not there then.
    folder = mount / path.lstrip("/")
    for place in (folder, *folder.parents):
        if place == mount.parent:
            return
        with suppress(OSError, ValueError, IndexError):
            quota = read(place)
            if quota is not None:
                yield quota


def _quota_v2(folder: Path) -> float | None:
    words = (folder / "cpu.max").read_text(encoding="ascii").split()
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def _quota_v1(folder: Path) -> float | None:
    quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
    return None if quota < 0 else quota / int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
