"""What a run asks for, as SLURM's ``#SBATCH`` directives.

sbatch splits a directive as a shell splits words, but expands nothing: quotes, backslashes and blanks have a meaning,
and ``#`` starts a remark (tried on 22.05.8). Every value is therefore held to a class of characters that has none of
them; only the comment is quoted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from edbjobs.config import SchedulerPriority

from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.directives import TIME_LIMIT, Taker, checked, collect

UNLIMITED = -1
_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}"
_NAMES = rf"{_NAME}(,{_NAME})*"
_NODES = r"[A-Za-z0-9][A-Za-z0-9_.,\[\]-]{0,4095}"  # no "/": a path would be read as a file of nodes
_GPU = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_LICENSE = r"[A-Za-z0-9][A-Za-z0-9._@-]*"
_WHAT = "of characters that SLURM accepts there"
_EXTRA_NAME = r"[a-z][a-z0-9-]{1,63}"
_EXTRA_VALUE = r"[A-Za-z0-9_.,:@%+=/()\[\]|&*!~-]*"
_UNSUPPORTED = {"run_as_administrator": "only Windows HPC has this"}
# Options that decide whose job it is, where its output goes and that it is one job and runs once; also those that a
# field sets.
_OURS = (
    *("job-name", "comment", "requeue", "no-requeue", "array", "clusters"),
    *("output", "error", "chdir", "open-mode", "parsable", "wrap", "wait", "test-only", "help", "usage", "version"),
)
_BY_FIELD = frozenset({
    "nodes", "ntasks-per-node", "cpus-per-task", "time", "mem", "partition", "account", "reservation", "qos",
    "constraint", "nodelist", "exclude", "wckey", "mail-user", "mail-type", "licenses", "exclusive",
    "gpus-per-node", "nice",
})  # fmt: skip

# SLURM lets only operators go below 0, so priorities cannot be raised: jobs of the higher ones are as others here, and
# come first in the service's own order. 100 is what a bare `--nice` subtracts.
_NICE = {SchedulerPriority.LOWEST: 300, SchedulerPriority.LOW: 200, SchedulerPriority.BELOW_NORMAL: 100}

_COMMENT_BYTES = 1000  # sbatch refuses longer ones than 1,023


def directives(allocation: Allocation) -> list[str]:
    """Return the directives of a request; each is a long option without its dashes.

    Raises
    ------
    Refused
        INVALID_JOB: a value has no form that SLURM accepts.
    """
    fixed = [f"job-name={allocation.name}", f"comment={_quoted(allocation.comment)}", "no-requeue", "open-mode=append"]
    return fixed + collect("SLURM", allocation, _TAKERS, _UNSUPPORTED, _extra)


def _size(allocation: Allocation) -> Iterable[str]:
    yield f"nodes={allocation.nodes}"
    yield f"ntasks-per-node={allocation.tasks_per_node}"
    if allocation.cores_per_node is not None:
        yield f"cpus-per-task={-(-allocation.cores_per_node // allocation.tasks_per_node)}"


def _time(allocation: Allocation) -> Iterable[str]:
    limit = allocation.time_limit
    if limit is not None:
        days, seconds = divmod(math.ceil(limit), _DAY)
        clock = f"{seconds // _HOUR:02}:{seconds // _MINUTE % 60:02}:{seconds % 60:02}"
        yield f"time={days}-{clock}" if days or seconds else "time=UNLIMITED"


def _memory(allocation: Allocation) -> Iterable[str]:
    if allocation.memory_mib:
        yield f"mem={allocation.memory_mib}M"


def _value(option: str, field: str, pattern: str) -> Taker[str]:
    """Return the taker of a field that is one option with one value."""

    def take(allocation: Allocation) -> Iterable[str]:
        value = getattr(allocation if field in ("partition", "account") else allocation.options, field)
        if value:
            text = value if isinstance(value, str) else ",".join(value)
            yield f"{option}={checked(text, pattern, _WHAT)}"

    return take


def _mail(allocation: Allocation) -> Iterable[str]:
    if allocation.options.email:
        yield f"mail-user={allocation.options.email}"
        yield "mail-type=END,FAIL"


def _licenses(allocation: Allocation) -> Iterable[str]:
    found = sorted(allocation.options.licenses.items())
    if found:
        yield "licenses=" + ",".join(f"{checked(name, _LICENSE, _WHAT)}:{count}" for name, count in found)


def _exclusive(allocation: Allocation) -> Iterable[str]:
    if allocation.options.exclusive:
        yield "exclusive"


def _gpus(allocation: Allocation) -> Iterable[str]:
    options = allocation.options
    if options.gpus_per_node:
        kind = f"{checked(options.gpu_type, _GPU, _WHAT)}:" if options.gpu_type else ""
        yield f"gpus-per-node={kind}{options.gpus_per_node}"


def _nice(allocation: Allocation) -> Iterable[str]:
    if allocation.options.priority in _NICE:
        yield f"nice={_NICE[allocation.options.priority]}"


def _extra(name: str, value: str) -> Iterable[str]:
    if not re.fullmatch(_EXTRA_NAME, name):
        raise ValueError("must be the long name of an option of sbatch, without dashes")
    # sbatch accepts the start of a name for the name.
    if name in _BY_FIELD or any(own.startswith(name) for own in _OURS):
        raise ValueError("is set by the service; use its field")
    if not re.fullmatch(_EXTRA_VALUE, value):
        raise ValueError(f"{value[:100]!r}: blanks, quotes, backslashes and '#' are not possible here")
    yield f"{name}={value}" if value else name


_TAKERS: Mapping[str, Taker[str]] = {
    "nodes": _size,
    TIME_LIMIT: _time,
    "memory_bytes_per_node": _memory,
    "partition": _value("partition", "partition", _NAMES),
    "account": _value("account", "account", _NAME),
    "reservation": _value("reservation", "reservation", _NAMES),
    "qos": _value("qos", "qos", _NAME),
    "constraint": _value("constraint", "constraint", r"[A-Za-z0-9_\[(][A-Za-z0-9_.,:|&*@=!()\[\]-]{0,254}"),
    "include_nodes": _value("nodelist", "include_nodes", _NODES),
    "exclude_nodes": _value("exclude", "exclude_nodes", _NODES),
    "wckey": _value("wckey", "wckey", _NAME),
    "email": _mail,
    "licenses": _licenses,
    "exclusive": _exclusive,
    "gpu_type": _gpus,
    "priority": _nice,
}


def _quoted(comment: str) -> str:
    """Quote the comment, the one value with blanks: within quotes only ``"`` and the backslash have a meaning."""
    printable = "".join(letter if letter.isprintable() else " " for letter in comment)
    fitting = printable.encode()[:_COMMENT_BYTES].decode(errors="ignore")
    return '"' + fitting.replace("\\", "\\\\").replace('"', '\\"') + '"'


_FORMS = (
    (re.compile(r"([0-9]{1,6})"), (_MINUTE,)),
    (re.compile(r"([0-9]{1,6}):([0-9]{1,2})"), (_MINUTE, 1)),
    (re.compile(r"([0-9]{1,5}):([0-9]{1,2}):([0-9]{1,2})"), (_HOUR, _MINUTE, 1)),
    (re.compile(r"([0-9]{1,4})-([0-9]{1,2})"), (_DAY, _HOUR)),
    (re.compile(r"([0-9]{1,4})-([0-9]{1,2}):([0-9]{1,2})"), (_DAY, _HOUR, _MINUTE)),
    (re.compile(r"([0-9]{1,4})-([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})"), (_DAY, _HOUR, _MINUTE, 1)),
)


def limit_seconds(text: str) -> int | None:
    """Read a time limit in any of sbatch's forms; `UNLIMITED` for none, as 0 is one, and None for what is no limit."""
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return UNLIMITED
    for form, units in _FORMS:
        match = form.fullmatch(text)
        if match:
            return sum(int(number) * unit for number, unit in zip(match.groups(), units, strict=True)) or UNLIMITED
    return None
