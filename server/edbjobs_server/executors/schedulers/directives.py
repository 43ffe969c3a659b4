"""Directives of batch scripts: every value is checked against what it may consist of, so that none adds another."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from edbjobs.config import SchedulerOptions

from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation

Taker = Callable[[Allocation], Iterable[str]]

HOST = r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}"
RESOURCE = r"[A-Za-z][A-Za-z0-9_]{0,127}"
NAME = r"[A-Za-z][A-Za-z0-9_-]{0,79}"
_MAIL = r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9][A-Za-z0-9.-]*"
_TIME = re.compile(r"(?:(?P<days>\d{1,5})-)?(?P<rest>\d{1,9}(?::\d{1,9}){0,2})", re.ASCII)
_OPTIONS = "config.scheduler_options"
_LINE = re.compile(r"-[\x20-\x7e]+")


class _WrongField(ValueError):
    """What is wrong, with the field it is in."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Say which field a ValueError is about, where a directive is made of several."""
    try:
        yield
    except ValueError as error:
        raise _WrongField(field, str(error)) from error


def directives(
    label: str, allocation: Allocation, takers: Mapping[str, Taker], no_word: Mapping[str, str]
) -> list[str]:
    """Write directives.

    Parameters
    ----------
    label : str
        The scheduler's name, for the message.
    allocation : Allocation
        What is asked for.
    takers : mapping of str to callable
        By field of `SchedulerOptions`: gives its directives, or raises ValueError with what is wrong.
    no_word : mapping of str to str
        Fields this scheduler cannot be asked for, and what to do instead.

    Raises
    ------
    Refused
        INVALID_JOB, by field ``config.scheduler_options.<name>``.
    """
    assert re.fullmatch(NAME, allocation.name), "names are made here"
    options = allocation.options
    wrong = {name: why for name, why in no_word.items() if getattr(options, name)}
    lines: list[str] = []
    for name, take in takers.items():
        assert name in SchedulerOptions.model_fields, "fields are named as they are"
        try:
            lines += [] if name in wrong else take(allocation)
        except _WrongField as error:
            wrong[error.field] = str(error)
        except ValueError as error:
            wrong[name] = str(error)
    if wrong:
        text = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        fields = {f"{_OPTIONS}.{name}": why for name, why in wrong.items()}
        raise Refused("INVALID_JOB", f"{label} cannot be asked so: {text}", fields=fields)
    assert all(_LINE.fullmatch(line) for line in lines), "every value was checked"
    return lines


def checked(text: str, pattern: str, what: str) -> str:
    """Give a text that consists of what it may; `what` says of what, for the error."""
    if not re.fullmatch(pattern, text, re.ASCII):
        raise ValueError(f"{text!r} must be {what}")
    return text


def mail_address(allocation: Allocation) -> str:
    """Give the address for mail; empty: none."""
    address = allocation.options.email_notification or ""
    return checked(address, _MAIL, "a plain e-mail address") if address else ""


def hosts(text: str) -> list[str]:
    """Read a list of nodes, separated by commas or blanks."""
    return [checked(name, HOST, "node names with commas between, without ranges") for name in re.split(r"[,\s]+", text)]


def licenses(allocation: Allocation) -> list[tuple[str, int]]:
    """Read licences that the scheduler counts as resources of its own."""
    found = []
    for item in allocation.options.licenses:
        name, _, count = item.partition(":")
        checked(name, RESOURCE, "the name of one of the scheduler's resources")
        found.append((name, int(checked(count or "1", r"[1-9]\d{0,8}", "followed by a count"))))
    return found


def extra(allocation: Allocation, ours: frozenset[str], value: str) -> list[tuple[str, str]]:
    """Read further directives, which the site allowed by name; `ours` are not to be given so."""
    found = []
    for name, text in allocation.options.extra.items():
        plain = checked(name.lstrip("-"), r"[A-Za-z][A-Za-z0-9_-]{0,31}", "the name of an option")
        if plain in ours:
            raise ValueError(f"-{plain} is set by the service")
        found.append((plain, checked(text, value, "of letters, digits and _.,:=+@/%^- only") if text else ""))
    return found


def limit_seconds(allocation: Allocation, units: Mapping[int, Sequence[int]]) -> int | None:
    """Tell the time limit.

    Parameters
    ----------
    allocation : Allocation
        Asks for it in `time`, else in `wall_clock_limit`.
    units : mapping of int to sequence of int
        What numbers between colons are in seconds, by how many there are; after ``D-`` they are always hours,
        minutes and seconds, as in SLURM.

    Returns
    -------
    int or None
        Seconds, at least 1; None: no limit is asked for.
    """
    if not allocation.time:
        limit = allocation.wall_clock_limit
        return None if limit is None else max(1, math.ceil(limit))
    match = _TIME.fullmatch(allocation.time)
    if match is None:
        raise ValueError(f"{allocation.time!r} must be a time limit such as 24:00:00 or 1-12:00:00")
    parts = [int(part) for part in match["rest"].split(":")]
    days = match["days"]
    weights = (3600, 60, 1) if days is not None else units[len(parts)]
    seconds = int(days or 0) * 86_400 + sum(part * weight for part, weight in zip(parts, weights, strict=False))
    if seconds < 1:
        raise ValueError("must be more than nothing")
    return seconds


def begin_moment(text: str) -> datetime | None:
    """Read a time of the form 2026-12-31T23:59 or 2026-12-31T23:59:00; None: it is of another form.

    It has no zone: a scheduler takes it as its own local time.
    """
    for form in ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None
