"""The directives engine: tables of a scheduler say how each field is requested; every value is checked here.

No value can add a directive or an option: each is held to a pattern, and what no scheduler accepts is refused alike
by all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
UNLIMITED_SECONDS = 5 * 365 * 86_400
TIME_LIMIT = "time_limit"  # the one field that is not of `SchedulerOptions`
_OPTIONS = "config.scheduler_options"
_TEXTS = (
    *("account", "partition", "reservation", "qos", "constraint", "gpu_type"),
    *("include_nodes", "exclude_nodes", "wckey"),
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
        By field of `SchedulerOptions`, or ``time_limit``: returns its directives, or raises ValueError with the fault.
    unsupported : mapping of str to str
        Fields without a counterpart at this scheduler, and what to do instead.
    take_extra : callable
        Returns the directives of one entry of ``extra``, or raises ValueError.

    Raises
    ------
    Refused
        INVALID_JOB, by field: ``config.scheduler_options.<name>`` or ``config.time_limit``.
    """
    assert re.fullmatch(NAME, allocation.name), "names are made here"
    options = allocation.options
    wrong = {name: why for name, why in unsupported.items() if getattr(options, name)}
    wrong |= dict(_wrong_anywhere(allocation))  # the same for all schedulers
    found: list[T] = []
    for name, take in takers.items():
        assert name == TIME_LIMIT or name in SchedulerOptions.model_fields, "fields are named as they are"
        if name not in wrong:
            _take(wrong, name, found, take, allocation)
    for name, value in options.extra.items():
        _take(wrong, f"extra.{name}", found, take_extra, name, value)
    if wrong:
        text = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        fields = {f"config.{name}" if name == TIME_LIMIT else f"{_OPTIONS}.{name}": why for name, why in wrong.items()}
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
        value = getattr(allocation, name, None) or getattr(options, name)
        text = value if isinstance(value, str) else ",".join(value)
        if not text.isprintable() or _NOWHERE.search(text) or text.startswith("-"):
            yield name, f"{text[:100]!r} has a line break, a quote or another character that no scheduler accepts"
    if options.email and not re.fullmatch(_MAIL, options.email, re.ASCII):
        yield "email", f"{options.email[:100]!r} must be a plain e-mail address"
    if options.gpu_type and not options.gpus_per_node:
        yield "gpu_type", "set gpus_per_node, the number of GPUs on each node, as well"


def checked(text: str, pattern: str, what: str) -> str:
    """Return a text that matches a pattern; `what` describes it in the error."""
    if not re.fullmatch(pattern, text, re.ASCII):
        raise ValueError(f"{text!r} must be {what}")
    return text


def hosts(names: Iterable[str]) -> list[str]:
    """Check names of nodes."""
    return [checked(name, HOST, "the name of one node, without ranges") for name in names]


def licenses(allocation: Allocation) -> list[tuple[str, int]]:
    """Return licenses that the scheduler counts as its own resources, sorted by name."""
    found = sorted(allocation.options.licenses.items())
    return [(checked(name, RESOURCE, "the name of one of the scheduler's resources"), count) for name, count in found]


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


def limit_seconds(allocation: Allocation) -> int | None:
    """Return the time limit in seconds, at least 1; None: none is requested.

    Schedulers without a word for "unlimited" are asked for five years, which is how PBS counts a job without a limit:
    a partition with a default limit would apply that to a job that asks for nothing.
    """
    limit = allocation.time_limit
    if limit is None:
        return None
    return math.ceil(limit) or UNLIMITED_SECONDS
