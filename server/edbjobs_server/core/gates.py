"""Resource gates: whether the load of the host lets a run start."""

from __future__ import annotations

from dataclasses import dataclass

from edbjobs_server.core.limits import Limits
from edbjobs_server.core.states import Waiting

_MIB = 1024**2
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
    memory_available_mib : float
        Memory a new process can have without swapping.
    disks : tuple of (str, int)
        Path and free bytes of each volume that responds.
    """

    foreign_cpu_percent: float
    cpu_count: int
    memory_available_mib: float
    disks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """A closed gate, and the numbers that closed it."""

    reason: Waiting
    detail: str


def gate(
    limits: Limits, load: HostLoad | None, starting_cores: float = 0, starting_memory_mib: float = 0
) -> Gate | None:
    """Return the gate that keeps runs from starting on this host now.

    Parameters
    ----------
    limits : Limits
        Of these the gates: `max_cpu_percent`, `min_memory_gb`, `min_disk_gb`.
    load : HostLoad or None
        None before the first sample: nothing starts past a gate that is set.
    starting_cores, starting_memory_mib
        Reserved by runs that started within the last minute, which do not show in `load` yet: with them sixteen
        starts in one second count each other. The job to start is not among them, or one that takes the whole
        host could never start.

    Returns
    -------
    Gate or None
        The first closed gate: processors, memory, disk.
    """
    cpu_gate = 0 < limits.max_cpu_percent < 100
    if load is None:
        if cpu_gate or limits.min_memory_gb > 0 or limits.min_disk_gb > 0:
            return Gate(Waiting.CPU_GATE, "the host has not been sampled yet")
        return None
    if cpu_gate and (found := _cpu(limits, load, starting_cores)):
        return found
    if limits.min_memory_gb > 0 and (found := _memory(limits, load, starting_memory_mib)):
        return found
    return _disk(limits, load) if limits.min_disk_gb > 0 else None


def _cpu(limits: Limits, load: HostLoad, starting_cores: float) -> Gate | None:
    foreign = load.foreign_cpu_percent
    starting = 100.0 * starting_cores / max(1, load.cpu_count)
    if foreign + starting <= limits.max_cpu_percent:
        return None
    return Gate(
        Waiting.CPU_GATE,
        f"processors: {foreign:.0f} % used by others and {starting:.0f} % reserved by runs that have just "
        f"started; nothing starts above {limits.max_cpu_percent:g} %",
    )


def _memory(limits: Limits, load: HostLoad, starting_memory_mib: float) -> Gate | None:
    free = load.memory_available_mib - starting_memory_mib
    if free >= limits.min_memory_gb * _GIB / _MIB:
        return None
    return Gate(
        Waiting.MEMORY_GATE,
        f"memory: {load.memory_available_mib / 1024:.1f} GiB free, {starting_memory_mib / 1024:.1f} GiB of "
        f"it declared by runs that have just started; nothing starts with less than "
        f"{limits.min_memory_gb:g} GiB",
    )


def _disk(limits: Limits, load: HostLoad) -> Gate | None:
    for path, free in load.disks:
        if free < limits.min_disk_gb * _GIB:
            return Gate(
                Waiting.DISK_GATE,
                f"disk: {free / _GIB:.1f} GiB free at {path}; nothing starts with less than {limits.min_disk_gb:g} GiB",
            )
    return None
