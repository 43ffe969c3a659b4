"""Queues of LSF and the hosts they have, from text forms that OpenLava 2.2 and IBM's LSF share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edbjobs_server.executors.schedulers.base import Partition

_QUEUE = re.compile(r"^QUEUE: (\S+)$", re.MULTILINE)
_STATUS = re.compile(r"\b(Open|Closed):(\w+)")
_LIMIT = re.compile(r"^ *RUNLIMIT\b.*\n *(\d+(?:\.\d+)?) min", re.MULTILINE | re.ASCII)
_HOSTS = re.compile(r"^HOSTS: +(.*)$", re.MULTILINE)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([KMGTPE])?(?:i?B|bytes)?", re.IGNORECASE | re.ASCII)
_UNITS = ("", "K", "M", "G", "T", "P", "E")
_STATES = {
    ("Open", True): "up",
    ("Open", False): "down",  # takes jobs and starts none
    ("Closed", True): "drain",
    ("Closed", False): "inactive",
}


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue; `hosts` are its hosts and groups of hosts, the latter ending in ``/``; None: all."""

    name: str
    state: str
    default: bool
    limit_seconds: int
    hosts: tuple[str, ...] | None


def queues(text: str) -> list[Queue]:
    """Read ``bqueues -l``."""
    pieces = _QUEUE.split(text)
    return [_queue(name, block) for name, block in zip(pieces[1::2], pieces[2::2], strict=True)]


def _queue(name: str, block: str) -> Queue:
    status, limit, where = _STATUS.search(block), _LIMIT.search(block), _HOSTS.search(block)
    # A host may be followed by its rank, "hostA+2"; "all ~hostB" leaves one out, and "others" names the rest.
    names = [re.sub(r"\+\d*$", "", name) for name in where[1].split()] if where is not None else []
    return Queue(
        name=name,
        state=_STATES[status[1], status[2] == "Active"] if status is not None else "unknown",
        default="This is the default queue." in block,
        limit_seconds=math.ceil(float(limit[1]) * 60) if limit is not None else 0,
        hosts=None if not names or names[0] in ("all", "others") else tuple(names),
    )


def rows(text: str) -> list[dict[str, str]]:
    """Read a table whose values have no blanks, by its head; a row that is cut short is left out."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    head = next((number for number, line in enumerate(lines) if line[0] in ("HOST_NAME", "GROUP_NAME")), None)
    if head is None or not text.endswith("\n"):
        return []
    names = lines[head]
    least = max(1, len(names) - 1)  # the last column may be empty
    return [dict(zip(names, line, strict=False)) for line in lines[head + 1 :] if len(line) >= least]


def groups(text: str) -> dict[str, tuple[str, ...]]:
    """Read ``bmgroup -r -w``: a group, and its hosts."""
    found = {}
    for line in text.splitlines():
        name, *members = line.split() or [""]
        if name and name != "GROUP_NAME":
            found[name] = tuple(members)
    return found


def partitions(
    asked: Iterable[Queue],
    batch: Iterable[Mapping[str, str]],
    static: Iterable[Mapping[str, str]],
    known: Mapping[str, tuple[str, ...]],
) -> list[Partition]:
    """Return queues with the sums of their hosts.

    Parameters
    ----------
    asked : iterable of Queue
        Queues.
    batch, static : iterable of mapping
        Rows of ``bhosts -w`` and of ``lshosts -w``.
    known : mapping
        Groups of hosts.
    """
    by_host = {row["HOST_NAME"]: row for row in batch}
    sizes = {row["HOST_NAME"]: row for row in static}
    return [_partition(queue, by_host, sizes, _names(queue, by_host, known)) for queue in asked]


def _names(queue: Queue, all_hosts: Iterable[str], known: Mapping[str, tuple[str, ...]]) -> list[str]:
    if queue.hosts is None:
        return list(all_hosts)
    found: dict[str, None] = {}
    for name in queue.hosts:
        members = known.get(name.rstrip("/"), ()) if name.endswith("/") else (name,)
        found.update(dict.fromkeys(all_hosts if members[:1] == ("all",) else members))
    return list(found)


def _partition(
    queue: Queue, batch: Mapping[str, Mapping[str, str]], static: Mapping[str, Mapping[str, str]], names: Iterable[str]
) -> Partition:
    total = used_nodes = free_nodes = cores = used = free = memory = 0
    for name in names:
        row = batch.get(name)
        if row is None:
            continue
        own = static.get(name, {})
        slots = _count(row.get("MAX", "")) or _count(own.get("ncpus", ""))
        taken = _count(row.get("NJOBS", ""))
        open_ = row.get("STATUS") == "ok"
        total, cores, used = total + 1, cores + slots, used + taken
        used_nodes += bool(taken)
        free_nodes += open_ and not taken
        free += max(0, slots - taken) if open_ else 0
        memory += size_bytes(own.get("maxmem", ""))
    return Partition(
        name=queue.name,
        state=queue.state,
        is_default=queue.default,
        nodes_total=total,
        nodes_used=used_nodes,
        nodes_free=free_nodes,
        cores_total=cores,
        cores_used=used,
        cores_free=free,
        memory_total_bytes=memory or None,
        time_limit=queue.limit_seconds or None,
    )


def size_bytes(text: str) -> int:
    """Read ``24105M``, ``15.5G``, ``4 Gbytes`` or ``512G``; what is none of these counts as nothing."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return 0
    # lshosts gives a number without a unit in KB (IBM: LSF_UNIT_FOR_LIMITS).
    power = _UNITS.index((match[2] or "K").upper())
    return int(float(match[1]) * 1024**power)


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0
