"""Sizes and durations as people write them on a command line."""

from __future__ import annotations

import re
from decimal import Decimal

from edbjobs.cli._errors import fail

__all__ = ["duration", "size"]

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([KMGT])(?:I?B)?|B)?", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,5})-)?(\d{1,9}):(\d{1,2})(?::(\d{1,2}))?", re.ASCII)
_UNITS = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)([smhd]?)", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def size(text: str, option: str) -> int:
    """Read a size in bytes; K, M, G and T are powers of 1,024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        fail(f"{option} {text!r}: expected a size such as 64GB, or a number of bytes")
    return int(Decimal(match[1]) * 1024 ** _POWERS[(match[2] or "").upper()])


def duration(text: str, option: str) -> float:
    """Read a duration in seconds: ``7200``, ``90m``, ``2h``, ``1d``, ``HH:MM``, ``HH:MM:SS`` or ``D-HH:MM:SS``."""
    if match := _UNITS.fullmatch(text):
        return float(Decimal(match[1]) * _SECONDS[match[2].lower()])
    if match := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    fail(f"{option} {text!r}: expected seconds, a number with s, m, h or d, or HH:MM:SS")
