"""Times, sizes and lists as the documented scheduler options write them: each scheduler has its own forms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60
_LIMIT = re.compile(r"(?:(?P<days>\d{1,5})-)?(?P<rest>\d{1,9}(?::\d{1,9}){0,2})", re.ASCII)
# What numbers between colons are in seconds, by how many there are.
_SLURM_UNITS: Mapping[int, Sequence[int]] = {1: (_MINUTE,), 2: (_MINUTE, 1), 3: (_HOUR, _MINUTE, 1)}
_HOURS_UNITS: Mapping[int, Sequence[int]] = {1: (_MINUTE,), 2: (_HOUR, _MINUTE), 3: (_HOUR, _MINUTE, 1)}
_PBS_UNITS: Mapping[int, Sequence[int]] = {1: (1,), 2: (_MINUTE, 1), 3: (_HOUR, _MINUTE, 1)}
_UNITS = {"pbs": _PBS_UNITS, "lsf": _HOURS_UNITS, "windows_hpc": _HOURS_UNITS}
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
_MIB = 1024**2


def limit_of(text: str, scheduler: str) -> timedelta:
    """Read a time limit in the form of a scheduler; 0: unlimited.

    A bare number is minutes, in PBS seconds. Two numbers are minutes and seconds in SLURM and PBS, hours and minutes
    in LSF and Windows HPC; three are hours, minutes and seconds everywhere. After ``D-`` they are always hours,
    minutes and seconds.

    Raises
    ------
    ValueError
        It is no limit.
    """
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return timedelta(0)
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ValueError("must be a time limit such as 24:00:00, 1-12:00:00, a number of minutes or UNLIMITED")
    parts = [int(part) for part in match["rest"].split(":")]
    units = _UNITS.get(scheduler, _SLURM_UNITS)
    weights = (_HOUR, _MINUTE, 1) if match["days"] is not None else units[len(parts)]
    seconds = int(match["days"] or 0) * _DAY + sum(part * weight for part, weight in zip(parts, weights, strict=False))
    if not seconds and scheduler != "slurm":  # in SLURM 0 is a word for no limit
        raise ValueError("must be more than 0")
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError("must be at most a year") from None


def limit_text(limit: timedelta) -> str:
    """Write a time limit in the form that all schedulers read alike."""
    seconds = math.ceil(limit.total_seconds())
    if not seconds:
        return "UNLIMITED"
    days, rest = divmod(seconds, _DAY)
    return f"{days}-{rest // _HOUR:02}:{rest // _MINUTE % 60:02}:{rest % 60:02}"


def memory_of(text: str) -> int:
    """Read a size in bytes: K, M, G and T are powers of 1,024, and a number without a unit is MiB, as in SLURM."""
    number = text.upper().rstrip("IB ")
    power = _POWERS.get(number[-1:])
    if power is not None:
        number = number[:-1]
    return math.ceil(Decimal(number.strip() or 0) * Decimal(1024) ** (power or _POWERS["M"]))


def memory_text(size: int) -> str:
    """Write a size in MiB, rounded up."""
    return f"{-(-size // _MIB)}MB"


def nodes_of(text: str) -> list[str]:
    """Split a list of nodes at commas and blanks outside brackets."""
    return [part for part in re.split(r"[,\s]+(?![^\[]*\])", text) if part]


def licenses_of(texts: Sequence[str]) -> dict[str, int]:
    """Read licenses written ``name`` or ``name:count``.

    Raises
    ------
    ValueError
        One is named twice.
    """
    found: dict[str, int] = {}
    for text in texts:
        name, _, count = text.partition(":")
        if name in found:
            raise ValueError(f"names {name} twice")
        found[name] = int(count or 1)
    return found


_AGO = {"second": 1, "minute": _MINUTE, "hour": _HOUR, "day": _DAY, "week": 7 * _DAY}
_CLOCKS = {
    "midnight": (0, 0, 0),
    "noon": (12, 0, 0),
    "elevenses": (11, 0, 0),
    "fika": (15, 0, 0),
    "teatime": (16, 0, 0),
}
_NOW = re.compile(r"now(?:\+(\d{1,9})(second|minute|hour|day|week)?s?)?", re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*([ap]m)?", re.IGNORECASE | re.ASCII)
_LSF = re.compile(r"(?:(?:(?:(\d{4}):)?(\d{1,2}):)?(\d{1,2}):)(\d{1,2}):(\d{1,2})", re.ASCII)
_PBS = re.compile(r"(\d{4}|\d{6}|\d{8}|\d{10}|\d{12})(?:\.(\d\d))?", re.ASCII)


def moment_of(text: str, scheduler: str, now: datetime) -> datetime:
    """Read the earliest start of a job in the form of a scheduler.

    Parameters
    ----------
    text : str
        ``2026-12-31T23:59``, ``now+1hour``, ``16:00``, ``midnight`` and so on, as SLURM has them, which are read for
        every scheduler; LSF's ``month:day:hour:minute`` and PBS' ``MMDDhhmm``. Local time where no zone is given.
    scheduler : str
        Name of the scheduler.
    now : datetime
        With its zone.

    Raises
    ------
    ValueError
        It is no moment.
    """
    try:
        if match := _NOW.fullmatch(text):
            return now + timedelta(seconds=int(match[1] or 0) * _AGO[(match[2] or "second").lower()])
        return _moment(text, scheduler, now.astimezone().replace(tzinfo=None)).astimezone()
    except (ValueError, OverflowError):
        raise ValueError("must be a moment such as 2026-12-31T23:59:00, 16:00 or now+1hour") from None


def _moment(text: str, scheduler: str, now: datetime) -> datetime:
    word = text.lower()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if word in ("today", "tomorrow"):
        return now if word == "today" else today + timedelta(days=1)
    if word in _CLOCKS:
        return _next(today, now, *_CLOCKS[word])
    if scheduler == "lsf" and (match := _LSF.fullmatch(text)):
        return _parts(today, match)
    if scheduler == "pbs" and (match := _PBS.fullmatch(text)):
        return _digits(today, now, match[1], int(match[2] or 0))
    if match := _CLOCK.fullmatch(text):
        return _next(today, now, _hour(int(match[1]), match[4]), int(match[2]), int(match[3] or 0))
    if not text[:4].isdigit() or "-" not in text:
        raise ValueError("no date")
    return datetime.fromisoformat(text[:-1] + "+00:00" if word.endswith("z") else text)


def _next(today: datetime, now: datetime, hour: int, minute: int, second: int) -> datetime:
    found = today.replace(hour=hour, minute=minute, second=second)
    return found if found > now else found + timedelta(days=1)


def _hour(hour: int, half: str | None) -> int:
    if half is None:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError("no hour of a half day")
    return hour % 12 + (12 if half.lower() == "pm" else 0)


def _parts(today: datetime, match: re.Match[str]) -> datetime:
    year, month, day, hour, minute = match.groups()
    return today.replace(
        year=int(year or today.year),
        month=int(month or today.month),
        day=int(day),
        hour=int(hour),
        minute=int(minute),
    )


def _digits(today: datetime, now: datetime, digits: str, second: int) -> datetime:
    hour, minute = int(digits[-4:-2]), int(digits[-2:])
    if len(digits) == 4:
        return _next(today, now, hour, minute, second)
    day = int(digits[-6:-4])
    month = int(digits[-8:-6] or today.month)
    year = today.year
    if len(digits) > 8:
        year = int(digits[:-8]) + (2000 if len(digits) == 10 else 0)
    return today.replace(year=year, month=month, day=day, hour=hour, minute=minute, second=second)
