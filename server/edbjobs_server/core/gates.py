"""Resource gates: whether the load of the host lets a run start."""

from __future__ import annotations

from dataclasses import dataclass

from edbjobs_server.core.limits import Limits
from edbjobs_server.core.states import Waiting

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class HostLoad:
    """The host as sampled.

    Attributes
    ----------
    foreign_cpu_percent : float
        Processor use over the last minute that is not of our own runs, percent of all processors.
    cpu_count : int
        Processors that `foreign_cpu_percent` is a share of.
    memory_available_bytes : float
        Memory a new process can have without swapping.
    disks : tuple of (str, int)
        Path and free bytes of each volume that responds.
    """

    foreign_cpu_percent: float
    cpu_count: int
    memory_available_bytes: float
    disks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """A closed gate, and the numbers that closed it."""

    reason: Waiting
    detail: str


def gate(
    limits: Limits, load: HostLoad | None, starting_cores: float = 0, starting_memory_bytes: float = 0
) -> Gate | None:
    """Return the gate that keeps runs from starting on this host now.

    Parameters
    ----------
    limits : Limits
        Of these the gates: `max_cpu_percent`, `min_free_memory_bytes`, `min_free_disk_bytes`.
    load : HostLoad or None
        None before the first sample: nothing starts past a gate that is set.
    starting_cores, starting_memory_bytes
        Reserved by runs that started within the last minute, which do not show in `load` yet: with them sixteen
        starts in one second count each other. The job to start is not among them, or one that takes the whole
        host could never start.

    Returns
    -------
    Gate or None
        The first closed gate: processors, memory, disk.
    """
    if load is None:
        if limits.max_cpu_percent is not None or limits.min_free_memory_bytes or limits.min_free_disk_bytes:
            return Gate(Waiting.CPU_GATE, "the host has not been sampled yet")
        return None
    found: Gate | None = None
    if limits.max_cpu_percent is not None:
        found = _cpu(limits.max_cpu_percent, load, starting_cores)
    if found is None and limits.min_free_memory_bytes:
        found = _memory(limits.min_free_memory_bytes, load, starting_memory_bytes)
    if found is None and limits.min_free_disk_bytes:
        found = _disk(limits.min_free_disk_bytes, load)
    return found


def _cpu(most: float, load: HostLoad, starting_cores: float) -> Gate | None:
    foreign = load.foreign_cpu_percent
    starting = 100.0 * starting_cores / max(1, load.cpu_count)
    if foreign + starting <= most and most > 0:
        return None
    rule = f"nothing starts above {most:g} %" if most else "nothing starts while max_cpu_percent is 0"
    return Gate(
        Waiting.CPU_GATE,
        f"processors: {foreign:.0f} % used by others and {starting:.0f} % reserved by runs that have just "
        f"started; {rule}",
    )


def _memory(least: int, load: HostLoad, starting_memory_bytes: float) -> Gate | None:
    if load.memory_available_bytes - starting_memory_bytes >= least:
        return None
    return Gate(
        Waiting.MEMORY_GATE,
        f"memory: {load.memory_available_bytes / _GIB:.1f} GiB free, {starting_memory_bytes / _GIB:.1f} GiB of "
        f"it declared by runs that have just started; nothing starts with less than "
        f"{least / _GIB:g} GiB",
    )


def _disk(least: int, load: HostLoad) -> Gate | None:
    for path, free in load.disks:
        if free < least:
            return Gate(
                Waiting.DISK_GATE,
                f"disk: {free / _GIB:.1f} GiB free at {path}; nothing starts with less than {least / _GIB:g} GiB",
            )
    return None
