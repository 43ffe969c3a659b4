"""The directives engine: tables of a scheduler say how each field is requested; every value is checked here.

No value can add a directive or an option: each is held to a pattern, and what no scheduler accepts is refused alike
by all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from edbjobs.config import SchedulerOptions

from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation

T = TypeVar("T")
Taker = Callable[[Allocation], Iterable[T]]
ExtraTaker = Callable[[str, str], Iterable[T]]

HOST = r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}"
RESOURCE = r"[A-Za-z][A-Za-z0-9_]{0,127}"
NAME = r"[A-Za-z][A-Za-z0-9_-]{0,79}"
_MAIL = r"[A-Za-z0-9][A-Za-z0-9._%+=-]*@[A-Za-z0-9][A-Za-z0-9.-]*"
_TIME = re.compile(r"(?:(?P<days>\d{1,5})-)?(?P<rest>\d{1,9}(?::\d{1,9}){0,2})", re.ASCII)
_OPTIONS = "config.scheduler_options"
_TEXTS = (
    *("account", "queue", "reservation", "qos", "constraints", "gpu_type"),
    *("nodelist", "exclude", "begin", "wckey"),
)
# A shell, a directive or a property list would interpret these; no scheduler's names need them.
_NOWHERE = re.compile(r"""["'`$;\\]""")


class _WrongField(ValueError):
    """A ValueError about a field."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Attribute a ValueError to a field, where a directive is made of several."""
    try:
        yield
    except ValueError as error:
        raise _WrongField(field, str(error)) from error


def collect(
    label: str,
    allocation: Allocation,
    takers: Mapping[str, Taker[T]],
    unsupported: Mapping[str, str],
    take_extra: ExtraTaker[T],
) -> list[T]:
    """Translate a request for a scheduler: every field is checked, and all faults are reported at once.

    Parameters
    ----------
    label : str
        The scheduler's name, for the message.
    allocation : Allocation
        What is requested.
    takers : mapping of str to callable
        By field of `SchedulerOptions`: returns its directives, or raises ValueError with the fault.
    unsupported : mapping of str to str
        Fields without a counterpart at this scheduler, and what to do instead.
    take_extra : callable
        Returns the directives of one entry of ``extra``, or raises ValueError.

    Raises
    ------
    Refused
        INVALID_JOB, by field ``config.scheduler_options.<name>``.
    """
    assert re.fullmatch(NAME, allocation.name), "names are made here"
    options = allocation.options
    wrong = {name: why for name, why in unsupported.items() if getattr(options, name)}
    wrong |= dict(_wrong_anywhere(allocation))  # the same for all schedulers
    found: list[T] = []
    for name, take in takers.items():
        assert name in SchedulerOptions.model_fields, "fields are named as they are"
        if name not in wrong:
            _take(wrong, name, found, take, allocation)
    for name, value in options.extra.items():
        _take(wrong, f"extra.{name}", found, take_extra, name, value)
    if wrong:
        text = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        fields = {f"{_OPTIONS}.{name}": why for name, why in wrong.items()}
        raise Refused("INVALID_JOB", f"{label} does not accept this request: {text}", fields=fields)
    return found


def _take(wrong: dict[str, str], name: str, found: list[T], take: Callable[..., Iterable[T]], *given: Any) -> None:
    try:
        found += take(*given)
    except _WrongField as error:
        wrong[error.field] = str(error)
    except ValueError as error:
        wrong[name] = str(error)


def _wrong_anywhere(allocation: Allocation) -> Iterator[tuple[str, str]]:
    """Return the faults of a request that do not depend on the scheduler."""
    options = allocation.options
    for name in _TEXTS:
        text = getattr(allocation, name, None) or getattr(options, name) or ""
        if not text.isprintable() or _NOWHERE.search(text) or text.startswith("-"):
            yield name, f"{text[:100]!r} has a line break, a quote or another character that no scheduler accepts"
    if options.email_notification and not re.fullmatch(_MAIL, options.email_notification, re.ASCII):
        yield "email_notification", f"{options.email_notification[:100]!r} must be a plain e-mail address"
    if options.gpu_type and not options.gpus:
        yield "gpu_type", "set gpus, the number of GPUs on each node, as well"


def checked(text: str, pattern: str, what: str) -> str:
    """Return a text that matches a pattern; `what` describes it in the error."""
    if not re.fullmatch(pattern, text, re.ASCII):
        raise ValueError(f"{text!r} must be {what}")
    return text


def hosts(text: str) -> list[str]:
    """Read a list of nodes, separated by commas or blanks."""
    return [checked(name, HOST, "node names with commas between, without ranges") for name in re.split(r"[,\s]+", text)]


def licenses(allocation: Allocation) -> list[tuple[str, int]]:
    """Read licenses that the scheduler counts as its own resources."""
    found = []
    for item in allocation.options.licenses:
        name, _, count = item.partition(":")
        checked(name, RESOURCE, "the name of one of the scheduler's resources")
        found.append((name, int(checked(count or "1", r"[1-9]\d{0,8}", "followed by a count"))))
    return found


def extra_option(name: str, text: str, ours: frozenset[str], value: str) -> str:
    """Check an entry of ``extra``, which the site allowed by name; returns the option's name without dashes.

    `ours` are the options that the service sets itself; `value` is the pattern of a value.
    """
    plain = checked(name.lstrip("-"), r"[A-Za-z][A-Za-z0-9_-]{0,31}", "the name of an option")
    if plain in ours:
        raise ValueError(f"-{plain} is set by the service")
    if text:
        checked(text, value, "of letters, digits and _.,:=+@/%^- only")
    return plain


def limit_seconds(allocation: Allocation, units: Mapping[int, Sequence[int]]) -> int | None:
    """Return the time limit in seconds.

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
        Seconds, at least 1; None: no limit is requested.
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
        raise ValueError("must be more than 0")
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
