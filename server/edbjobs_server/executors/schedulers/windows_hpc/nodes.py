"""HPC Pack's node groups with their nodes, cores and memory, as partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edbjobs_server.executors.schedulers.base import Partition

_MIB = 1 << 20
_NOT_KNOWN = -1
_HEALTHY = ("OK", "Warning")


def used_cores(metrics: Sequence[Any]) -> dict[str, int]:
    """Read how many cores of each node jobs have.

    Metrics are asked for as HPCCoresInUse; the specification's example answers a similar name in another case.
    """
    found: dict[str, int] = {}
    for item in metrics:
        values = item.get("Metrics") if isinstance(item, dict) else None
        for name, value in (values or {}).items():
            if str(name).lower() == "hpccoresinuse" and isinstance(value, (int, float)):
                found[str(item.get("NodeName", "")).lower()] = round(value)
    return found


def partitions_of(groups: Sequence[Any], nodes: Sequence[Any], used: Mapping[str, int]) -> list[Partition]:
    """Add up the nodes of each group.

    A node counts as free only if it is Online, healthy and known to have no core in use. MemorySize is in MiB: a node
    of 28 GiB has 28672. How much of it jobs use is not known.
    """
    return [
        _partition(str(group["Name"]), [node for node in nodes if group["Name"] in (_of(node, "Groups") or ())], used)
        for group in groups
        if _of(group, "Name")
    ]


def _partition(name: str, nodes: Sequence[Any], used: Mapping[str, int]) -> Partition:
    usable = [node for node in nodes if _of(node, "State") == "Online" and _of(node, "Health") in _HEALTHY]
    in_use = {id(node): used.get(str(_of(node, "Name")).lower(), _NOT_KNOWN) for node in nodes}
    measured = [node for node in usable if in_use[id(node)] != _NOT_KNOWN]
    known = bool(measured) or not nodes  # else nothing is known of what they run
    return Partition(
        name=name,
        state="up" if usable else "down",
        nodes_total=len(nodes),
        nodes_used=sum(1 for cores in in_use.values() if cores > 0) if known else None,
        nodes_free=sum(1 for node in usable if in_use[id(node)] == 0) if known else None,
        cores_total=sum(_count(node, "Cores") for node in nodes),
        cores_used=sum(max(cores, 0) for cores in in_use.values()) if known else None,
        cores_free=sum(max(_count(node, "Cores") - in_use[id(node)], 0) for node in measured) if known else None,
        memory_total_bytes=sum(_count(node, "MemorySize") for node in nodes) * _MIB,
    )


def _of(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, dict) else None


def _count(node: Any, name: str) -> int:
    value = _of(node, name)
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
