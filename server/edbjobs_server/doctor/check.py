"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
        What was looked at.
    status : {"ok", "warn", "fail"}
        ``fail``: the service cannot start, or cannot solve.
    text : str
        What was found, in one line.
    advice : str
        What to do; empty: nothing.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""
