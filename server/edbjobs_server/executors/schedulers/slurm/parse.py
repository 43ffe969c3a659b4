"""Reading what SLURM's commands print. Pure; what is cut off or garbled is left out, and counted.

All times are asked for as seconds since the epoch (``SLURM_TIME_FORMAT=%s``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import ClusterJob, ClusterJobStatus, Partition, Phase
from edbjobs_server.executors.schedulers.slurm import states
from edbjobs_server.executors.schedulers.slurm.directives import UNLIMITED, limit_seconds

# The name comes last, as it may hold "|"; the "|" behind it shows that the line is whole.
QUEUE = "%A|%T|%V|%S|%e|%N|%r|%j|"
JOBS = "%i|%u|%P|%T|%D|%C|%S|%N|%r|%j|"
ACCOUNTING = "JobIDRaw,State,ExitCode,Submit,Start,End,NodeList,JobName"

_TIME = r"(\d{1,12}|N/A|Unknown|None|)"
_QUEUE_LINE = re.compile(rf"(\d+)\|([A-Z_]+)\|{_TIME}\|{_TIME}\|{_TIME}\|([^|]*)\|([^|]*)\|(.*)\|")
_JOB_LINE = re.compile(rf"([^|]+)\|([^|]+)\|([^|]*)\|([A-Z_]+)\|(\d+)\|(\d+)\|{_TIME}\|([^|]*)\|([^|]*)\|(.*)\|")
_ACCOUNT_LINE = re.compile(rf"(\d+)\|([A-Z_]+)( by \w+)?\|(\d+):(\d+)\|{_TIME}\|{_TIME}\|{_TIME}\|([^|]*)\|(.*)")
_NOWHERE = frozenset({"", "(null)", "None assigned"})


@dataclass(frozen=True, slots=True)
class Read:
    """Jobs by id, and whether every line could be read; an id with two different lines is left out."""

    jobs: Mapping[str, ClusterJobStatus] = field(default_factory=dict)
    whole: bool = True


def queue(text: str) -> Read:
    """Read ``squeue -o QUEUE``."""
    return _read(_queue_line(line) for line in text.split("\n") if line)


def controller(text: str) -> Read:
    """Read ``scontrol -o show job``."""
    return _read(_controller_line(line) for line in text.split("\n") if line)


def accounting(text: str) -> Read:
    """Read ``sacct -n -P -X -o ACCOUNTING``."""
    return _read(_accounting_line(line) for line in text.split("\n") if line)


def _read(statuses: Iterable[ClusterJobStatus | None]) -> Read:
    jobs: dict[str, ClusterJobStatus] = {}
    doubtful: set[str] = set()
    whole = True
    for seen in statuses:
        if seen is None:
            whole = False
        elif jobs.setdefault(seen.id, seen) != seen:
            doubtful.add(seen.id)
    return Read({id: seen for id, seen in jobs.items() if id not in doubtful}, whole and not doubtful)


def _queue_line(line: str) -> ClusterJobStatus | None:
    match = _QUEUE_LINE.fullmatch(line)
    if match is None:
        return None
    id, state, submit, start, end, nodes, reason, name = match.groups()
    seen = _status(id, name, state, reason, (submit, start, end), nodes)
    if seen is None or seen.phase is not Phase.ENDED:
        return seen
    if state == "COMPLETED":
        return replace(seen, ending=Ending.EXITED, exit_code=0)
    if state == "FAILED":  # the exit code is not reported here
        return seen
    ended = states.end_of(state, 0, 0, ran=bool(seen.nodes), reason=reason)
    return replace(seen, ending=ended.ending, message=ended.message)


def _controller_line(line: str) -> ClusterJobStatus | None:
    fields = pairs(line)
    code = re.fullmatch(r"(\d+):(\d+)", fields.get("ExitCode", ""))
    id = fields.get("JobId", "")
    # NumCPUs stands behind all that is read: without it the line has been cut.
    if not (line.startswith("JobId=") and id.isdecimal() and code and "JobName" in fields and "NumCPUs" in fields):
        return None
    times = (fields.get("SubmitTime", ""), fields.get("StartTime", ""), fields.get("EndTime", ""))
    if not all(re.fullmatch(_TIME, time) for time in times):
        return None
    state, reason = fields.get("JobState", ""), fields.get("Reason", "")
    seen = _status(id, fields["JobName"], state, reason, times, fields.get("NodeList", ""))
    return _with_end(seen, int(code[1]), int(code[2]))


def _accounting_line(line: str) -> ClusterJobStatus | None:
    match = _ACCOUNT_LINE.fullmatch(line)
    if match is None:
        return None
    id, state, by, code, signal, submit, start, end, nodes, name = match.groups()
    seen = _with_end(_status(id, name, state, "", (submit, start, end), nodes), int(code), int(signal))
    if seen is None or seen.phase is not Phase.ENDED:
        return seen
    if seen.end_time is None:  # half written: its end is still to come
        return None
    if by:
        return replace(seen, message=f"cancelled{by}, by the accounting")
    if seen.ending is Ending.EXITED and seen.exit_code:
        return replace(seen, message=_doubt(seen.exit_code))
    return seen


def _doubt(code: int) -> str:
    return f"the accounting shows exit code {code}; it takes 128 off larger ones, so that {code + 128} is as possible"


def _status(
    id: str, name: str, state: str, reason: str, times: tuple[str, str, str], nodes: str
) -> ClusterJobStatus | None:
    phase = states.PHASES.get(state)
    if phase is None:
        return None
    submit, start, end = (float(time) if time.isdecimal() else None for time in times)
    where = hosts(nodes)
    never, message = states.never(reason) if phase is Phase.PENDING else (False, "")
    if state == "SPECIAL_EXIT":
        never, message = states.never("JobHeldUser")
    return ClusterJobStatus(
        id=id,
        name=name,
        phase=phase,
        state=state,
        reason="" if reason in ("None", "(null)") else reason,
        never=never,
        nodes=where,
        submit_time=submit,
        start_time=start if phase is not Phase.PENDING and where else None,  # else it is expected, or an end's
        end_time=end if phase is Phase.ENDED else None,
        message=message,
    )


def _with_end(seen: ClusterJobStatus | None, code: int, signal: int) -> ClusterJobStatus | None:
    if seen is None or seen.phase is not Phase.ENDED:
        return seen
    end = states.end_of(seen.state, code, signal, ran=bool(seen.nodes), reason=seen.reason)
    return replace(seen, ending=end.ending, exit_code=end.exit_code, signal=end.signal, message=end.message)


def pairs(line: str) -> dict[str, str]:
    """Read a line of ``name=value`` of ``scontrol -o``; of a name that comes twice, the first counts.

    Values may hold blanks and signs of equality; what people chose freely (comment, paths) comes behind all that is
    read here, so that it cannot pass for something else.
    """
    found: dict[str, str] = {}
    last = ""
    for word in line.split(" "):
        name, sign, value = word.partition("=")
        if sign:
            last = name if name not in found else ""
            found.setdefault(name, value)
        elif word and last:
            found[last] += f" {word}"
    return found


MAX_HOSTS = 10_000
_PIECE = re.compile(r"(?:[^\[\],]|\[[^\[\]]*\])+")
_LIST = re.compile(rf"{_PIECE.pattern}(?:,{_PIECE.pattern})*")
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"(\d{1,12})(?:-(\d{1,12}))?")


def hosts(text: str) -> tuple[str, ...]:
    """Expand a host list such as ``n[1-4,7],m[001-003]``: at most 10,000 names; what is not well-formed stays."""
    if text in _NOWHERE:
        return ()
    if _LIST.fullmatch(text) is None:
        return (text,)
    found: list[str] = []
    for match in _PIECE.finditer(text):
        found += _expand(match[0], MAX_HOSTS - len(found))
    return tuple(found)


def _expand(piece: str, room: int) -> list[str]:
    names = [""]
    for match in _PART.finditer(piece):
        ends = [match[2]] if match[2] is not None else _numbers(match[1], room)
        if ends is None:
            return [piece][:room]
        names = [name + end for name in names[: room // max(len(ends), 1) + 1] for end in ends][:room]
    return names[:room]


def _numbers(text: str, room: int) -> list[str] | None:
    numbers: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        low, high = match[1], match[2] or match[1]
        last = min(int(high), int(low) + room)
        numbers += [str(number).zfill(len(low)) for number in range(int(low), last + 1)]
    return numbers


def partitions(partition_lines: str, node_lines: str) -> list[Partition]:
    """Sum up ``scontrol -o show node`` for each line of ``scontrol -o show partition``."""
    rows: dict[str, Partition] = {}
    for line in partition_lines.split("\n"):
        fields = pairs(line)
        name = fields.get("PartitionName", "")
        if not name or "State" not in fields:
            continue
        limit = limit_seconds(fields.get("MaxTime", ""))
        rows[name] = Partition(
            name,
            fields["State"].lower(),
            is_default=fields.get("Default") == "YES",
            time_limit=None if limit == UNLIMITED else limit or None,
            **_NO_NODES,
        )
    for line in node_lines.split("\n"):
        fields = pairs(line)
        for name in fields.get("Partitions", "").split(","):
            if name in rows and "NodeName" in fields:
                rows[name] = _add(rows[name], fields)
    return list(rows.values())


_OUT = frozenset(
    (
        *("DOWN", "UNKNOWN", "ERROR", "FUTURE", "FAIL", "FAILING", "DRAIN", "DRAINED", "DRAINING", "INVALID_REG"),
        *("NOT_RESPONDING", "NO_RESPOND", "MAINT", "MAINTENANCE", "POWERING_DOWN", "REBOOT_ISSUED", "BLOCKED"),
    )
)


_NO_NODES = dict.fromkeys(
    (
        *("nodes_total", "nodes_used", "nodes_free", "cores_total", "cores_used", "cores_free"),
        *("memory_total_bytes", "memory_used_bytes"),
    ),
    0,
)


def _add(row: Partition, node: Mapping[str, str]) -> Partition:
    """Add a node. One that is down or drained is neither used nor free; what still runs on it uses its cores."""
    states = {word.rstrip("*~#!%$@^-") for word in node.get("State", "UNKNOWN").split("+")}
    allocated = _number(node, "CPUAlloc")
    cores = _number(node, "CPUEfctv") or _number(node, "CPUTot")
    out = bool(states & _OUT)
    return replace(
        row,
        nodes_total=(row.nodes_total or 0) + 1,
        nodes_used=(row.nodes_used or 0) + (not out and allocated > 0),
        nodes_free=(row.nodes_free or 0) + (not out and allocated == 0),
        cores_total=(row.cores_total or 0) + cores,
        cores_used=(row.cores_used or 0) + allocated,
        cores_free=(row.cores_free or 0) + (0 if out else max(cores - allocated, 0)),
        memory_total_bytes=(row.memory_total_bytes or 0) + (_number(node, "RealMemory") << 20),
        memory_used_bytes=(row.memory_used_bytes or 0) + (_number(node, "AllocMem") << 20),
    )


def _number(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0


def jobs(text: str) -> list[ClusterJob]:
    """Read ``squeue -o JOBS``; jobs that have ended and garbled lines are left out."""
    found = []
    for line in text.split("\n"):
        match = _JOB_LINE.fullmatch(line)
        if match is None or states.PHASES.get(match[4]) is Phase.ENDED:
            continue
        id, user, partition, state, nodes, cores, start, nodelist, reason, name = match.groups()
        started = start.isdecimal() and states.PHASES.get(state) is not Phase.PENDING
        found.append(
            ClusterJob(
                id=id,
                name=name,
                user=user,
                partition=partition,
                state=state,
                reason="" if reason == "None" else reason,
                node_count=int(nodes),
                core_count=int(cores),
                nodes=tuple(re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist)),
                start_time=float(start) if started else None,
            )
        )
    return found
