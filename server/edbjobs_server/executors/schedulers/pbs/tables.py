"""Queues of PBS and the nodes they have."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edbjobs_server.executors.schedulers.base import Partition
from edbjobs_server.executors.schedulers.pbs.parse import Record

_SIZE = re.compile(r"(\d{1,18})([kmgtp]?)(b|w)?", re.IGNORECASE | re.ASCII)
_UNITS = ("", "k", "m", "g", "t", "p")
_WORD = 8  # bytes of PBS's unit "w"
_FREE = frozenset({"free"})
_USED = frozenset({"job-busy", "job-exclusive", "resv-exclusive"})


def size_bytes(text: object) -> int:
    """Read a size such as ``24684084kb``; one without a unit is bytes, and what is none counts as nothing."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        return 0
    factor: int = 1024 ** _UNITS.index(match[2].lower())
    return int(match[1]) * factor * (_WORD if (match[3] or "").lower() == "w" else 1)


def duration_seconds(text: object) -> int:
    """Read ``HH:MM:SS``, ``MM:SS`` or ``SS``; what is none of these counts as no limit."""
    if not re.fullmatch(r"\d{1,9}(:\d{1,4}){0,2}", str(text), re.ASCII):
        return 0
    seconds = 0
    for part in str(text).split(":"):
        seconds = seconds * 60 + int(part)
    return seconds


def partitions(queues: Mapping[str, Record], nodes: Mapping[str, Record], default: str) -> list[Partition]:
    """Return queues with their nodes.

    A node that names a queue is that queue's alone, and a queue that has such nodes uses no other (PBS
    Administrator's Guide, "Associating vnodes with queues"); the other nodes serve all other queues. A routing queue
    has none.
    """
    owned: dict[str, list[Record]] = {}
    for record in nodes.values():
        owned.setdefault(str(record.get("queue", "")), []).append(record)
    found = []
    for name, queue in queues.items():
        routes = str(queue.get("queue_type", "")).lower().startswith("r")
        mine = [] if routes else owned.get(name, owned.get("", []))
        found.append(_partition(name, queue, mine, default))
    return found


def _partition(name: str, queue: Record, nodes: list[Record], default: str) -> Partition:
    sums = dict.fromkeys(("cores", "used", "free", "memory", "memory_used"), 0)
    by_host: dict[str, set[str]] = {}
    for node in nodes:
        available, assigned = _resources(node, "available"), _resources(node, "assigned")
        cores, used = _count(available.get("ncpus")), _count(assigned.get("ncpus"))
        state = _state(node, used)
        by_host.setdefault(str(available.get("host") or node.get("Mom") or id(node)), set()).add(state)
        sums["cores"] += cores
        sums["used"] += used
        sums["free"] += max(0, cores - used) if state in ("free", "mixed") else 0
        sums["memory"] += size_bytes(available.get("mem", ""))
        sums["memory_used"] += size_bytes(assigned.get("mem", ""))
    limit = queue.get("resources_max")
    return Partition(
        name=name,
        state=_queue_state(queue),
        is_default=name == default,
        nodes_total=len(by_host),
        nodes_used=sum(1 for states in by_host.values() if states & {"used", "mixed"}),
        nodes_free=sum(1 for states in by_host.values() if states == {"free"}),
        cores_total=sums["cores"],
        cores_used=sums["used"],
        cores_free=sums["free"],
        memory_total_bytes=sums["memory"],
        memory_used_bytes=sums["memory_used"],
        time_limit=duration_seconds(limit.get("walltime", "")) or None if isinstance(limit, dict) else None,
    )


def _queue_state(queue: Record) -> str:
    enabled, started = (str(queue.get(word, "True")) == "True" for word in ("enabled", "started"))
    if enabled and started:
        return "up"
    return "inactive" if not enabled and not started else "drain" if started else "down"


def _state(node: Record, used: int) -> str:
    """Sum up a node's states, several of which may hold: down and offline ones take nothing."""
    words = set(re.split(r"[,\s]+", str(node.get("state", ""))))
    if words <= _FREE:
        return "mixed" if used else "free"
    return "used" if used or words & _USED else "out"


def _resources(node: Record, which: str) -> Record:
    found = node.get(f"resources_{which}")
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int:
    return int(value) if isinstance(value, (int, str)) and re.fullmatch(r"\d{1,9}", str(value), re.ASCII) else 0
