"""What a run asks for, as SLURM's ``#SBATCH`` directives.

sbatch splits a directive as a shell splits words, but expands nothing: quotes, backslashes and blanks have a meaning,
and ``#`` begins a remark (tried on 22.05.8). Every value is therefore held to a class of characters that has none of
them; only the comment is quoted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation

UNLIMITED = -1
_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}"
_NAMES = rf"{_NAME}(,{_NAME})*"
_NODES = r"[A-Za-z0-9][A-Za-z0-9_.,\[\]-]{0,4095}"  # no "/": a path would be read as a file of nodes
_CLASSES = {
    "name": r"[A-Za-z0-9_-]{1,80}",
    "queue": _NAMES,
    "account": _NAME,
    "reservation": _NAMES,
    "qos": _NAME,
    "wckey": _NAME,
    "gpu_type": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
    "constraints": r"[A-Za-z0-9_\[(][A-Za-z0-9_.,:|&*@=!()\[\]-]{0,254}",
    "email_notification": r"[A-Za-z0-9][A-Za-z0-9._%+=-]*@[A-Za-z0-9.-]+",
    "licenses": r"[A-Za-z0-9][A-Za-z0-9._@-]*(:[1-9][0-9]{0,8})?",
    "nodelist": _NODES,
    "exclude": _NODES,
    "begin": r"[A-Za-z0-9][A-Za-z0-9:+/.-]{0,63}",
}
_EXTRA_NAME = r"[a-z][a-z0-9-]{1,63}"
_EXTRA_VALUE = r"[A-Za-z0-9_.,:@%+=/()\[\]|&*!~-]*"
# What tells whose job it is, where its output goes and that it is one job and runs once.
_OURS = (
    *("job-name", "comment", "requeue", "no-requeue", "array", "clusters"),
    *("output", "error", "chdir", "open-mode", "parsable", "wrap", "wait", "test-only", "help", "usage", "version"),
)

# SLURM lets only operators go below 0, so there is no raising: jobs of the higher priorities are as others here, and
# stand first in the service's own order. 100 is what a bare `--nice` takes off.
_NICE = {"Lowest": 300, "Low": 200, "BelowNormal": 100}

_COMMENT_BYTES = 1000  # sbatch refuses longer ones than 1,023


def directives(allocation: Allocation) -> list[str]:
    """Write what is asked for; each line is a long option without its dashes.

    Raises
    ------
    Refused
        INVALID_JOB: a value has no form that SLURM takes.
    """
    lines = [
        f"job-name={_checked('name', allocation.name)}",
        f"comment={_quoted(allocation.comment)}",
        "no-requeue",
        "open-mode=append",
        f"nodes={allocation.nodes}",
        f"ntasks-per-node={allocation.tasks_per_node}",
        f"cpus-per-task={-(-allocation.cores_per_node // allocation.tasks_per_node)}",
        *_limits(allocation),
        *_options(allocation),
    ]
    return [*lines, *_extra(allocation, lines)]


def _limits(allocation: Allocation) -> Iterator[str]:
    if allocation.time:
        if limit_seconds(allocation.time) is None:
            raise _refused(
                "time",
                allocation.time,
                "write minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED",
            )
        yield f"time={allocation.time.upper()}"
    elif allocation.wall_clock_limit is not None:
        yield f"time={max(1, math.ceil(allocation.wall_clock_limit / _MINUTE))}"
    if allocation.memory_mib:
        yield f"mem={allocation.memory_mib}M"


def _options(allocation: Allocation) -> Iterator[str]:
    options = allocation.options
    for option, field, value in (
        ("partition", "queue", allocation.queue),
        ("account", "account", allocation.account),
        ("reservation", "reservation", options.reservation),
        ("qos", "qos", options.qos),
        ("constraint", "constraints", options.constraints),
        ("nodelist", "nodelist", options.nodelist),
        ("exclude", "exclude", options.exclude),
        ("begin", "begin", options.begin),
        ("wckey", "wckey", options.wckey),
        ("mail-user", "email_notification", options.email_notification),
    ):
        if value:
            yield f"{option}={_checked(field, value)}"
    if options.email_notification:
        yield "mail-type=END,FAIL"
    if options.licenses:
        yield "licenses=" + ",".join(_checked("licenses", item) for item in options.licenses)
    if options.exclusive:
        yield "exclusive"
    if options.gpus:
        kind = f"{_checked('gpu_type', options.gpu_type)}:" if options.gpu_type else ""
        yield f"gpus-per-node={kind}{options.gpus}"
    if options.priority in _NICE:
        yield f"nice={_NICE[options.priority]}"


def _extra(allocation: Allocation, lines: list[str]) -> Iterator[str]:
    taken = {line.partition("=")[0] for line in lines}
    for name, value in allocation.options.extra.items():
        if not re.fullmatch(_EXTRA_NAME, name):
            raise _refused(f"extra.{name}", name, "write the long name of an option of sbatch, without dashes")
        # sbatch takes the beginning of a name for the name
        if name in taken or any(own.startswith(name) for own in _OURS):
            raise _refused(f"extra.{name}", name, "this one is set by the service; use the field for it")
        if not re.fullmatch(_EXTRA_VALUE, value):
            raise _refused(f"extra.{name}", value, "blanks, quotes, backslashes and '#' are not possible here")
        yield f"{name}={value}" if value else name


def _checked(field: str, value: str) -> str:
    if not re.fullmatch(_CLASSES[field], value):
        raise _refused(field, value, "it holds characters that SLURM does not take there")
    return value


def _refused(field: str, value: str, advice: str) -> Refused:
    path = f"config.scheduler_options.{field}"
    message = f"{value[:100]!r} cannot be asked of SLURM: {advice}"
    return Refused("INVALID_JOB", f"{path}: {message}", fields={path: message})


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
