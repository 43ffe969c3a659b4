"""Options of the demo solver: how it behaves, above all how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

VARIABLE = "ANS_EDBJOBS_DEMO"
WITNESS = "ANS_EDBJOBS_DEMO_WITNESS"
_BLOCK_LIMIT = 64 * 1024

FAILURES = {
    "license": "no license: exit code 1; with -waitforlicense it waits indefinitely",
    "engine": "hf3d crashes: visible in the log only, exit code 0",
    "mpi": "the engines cannot be launched: exit code 1",
    "model": "the model is refused by hf3d: exit code 0",
    "sweep": "the sweep fails after good adaptive passes: exit code 0",
    "convergence": "the passes run out before delta S is reached; the solve ends normally, as in AEDT",
    "hang": "stops in the middle without further output, until it is ended",
    "killed": "the program itself is killed in the middle and leaves its lock behind: exit code 137",
    "cut": "the log stops in the middle although the exit code is 0",
    "nothing": "solves nothing, because it finds its solutions up to date: exit code 0",
    "nolog": "writes no log and prints nothing: exit code 0",
    "exit": "ends with exit code 3 and a log without a reason",
}
CHILDREN = {
    "normal": "engines end with the program",
    "stubborn": "engines ignore TERM and outlive the program",
    "daemon": "engines leave the session and the process group and outlive the program",
    "ansyscl": "a license client stays behind, as the real one may",
}


class Behavior(NamedTuple):
    """How one solve behaves.

    Attributes
    ----------
    seconds : float
        Length of the solve; default 2.
    fail : str
        A key of `FAILURES`, or empty.
    children : str
        A key of `CHILDREN`.
    linger : float
        Longest time, in seconds, that anything outlives the program; default 60.
    exit_code : int or None
        Exit code instead of the usual one.
    output_mib : float
        Size, in MiB, of extra output on stdout; default 0.
    license_wait : float
        Seconds to wait for the license; default 0.
    term : str
        ``abort`` (default): stop on TERM as AEDT does; ``ignore``: do not.
    """

    seconds: float = 2.0
    fail: str = ""
    children: str = "normal"
    linger: float = 60.0
    exit_code: int | None = None
    output_mib: float = 0.0
    license_wait: float = 0.0
    term: str = "abort"


def read(project: Path, environ: Mapping[str, str]) -> Behavior:
    """Read the project's ``EdbJobsDemo`` block, then the variable ANS_EDBJOBS_DEMO, which takes precedence.

    Raises
    ------
    ValueError
        An option is unknown or not a number; the message names it.
    """
    words = _block(project) + [word for word in environ.get(VARIABLE, "").split(",") if word.strip()]
    values: dict[str, str] = {}
    for word in words:
        key, separator, value = (part.strip() for part in word.partition("="))
        if not separator:
            raise ValueError(f"{word!r} is not name=value")
        values[key] = value
    return _behavior(values)


def _block(project: Path) -> list[str]:
    if project.is_dir():
        return []
    with project.open("rb") as file:
        text = file.read(_BLOCK_LIMIT).decode("latin-1")
    _, found, rest = text.partition("$begin 'EdbJobsDemo'")
    block, closed, _ = rest.partition("$end 'EdbJobsDemo'")
    return block.split() if found and closed else []


def _behavior(values: dict[str, str]) -> Behavior:
    known = dict(values)
    fail, children, term = known.pop("fail", ""), known.pop("children", "normal"), known.pop("term", "abort")
    if fail and fail not in FAILURES:
        raise ValueError(f"fail={fail}: choose one of {', '.join(FAILURES)}")
    if children not in CHILDREN:
        raise ValueError(f"children={children}: choose one of {', '.join(CHILDREN)}")
    if term not in ("abort", "ignore"):
        raise ValueError(f"term={term}: choose abort or ignore")
    exit_code = known.pop("exit", None)
    made = Behavior(
        seconds=_number(known, "seconds", 2.0),
        fail=fail,
        children=children,
        linger=_number(known, "linger", 60.0),
        exit_code=None if exit_code is None else int(exit_code),
        output_mib=_number(known, "output", 0.0),
        license_wait=_number(known, "license_wait", 0.0),
        term=term,
    )
    if known:
        raise ValueError(f"{', '.join(known)}: not known")
    return made


def _number(values: dict[str, str], key: str, default: float) -> float:
    number = float(values.pop(key, default))
    if not 0 <= number <= 86_400:
        raise ValueError(f"{key}={number:g} is not between 0 and 86400")
    return number
