"""Delays between repetitions."""

from __future__ import annotations

LONGEST_SECONDS = 60.0


class Backoff:
    """Delays that double from repetition to repetition, up to a bound.

    Parameters
    ----------
    first : float, default: 0.1
        First delay, seconds.
    longest : float, default: 60
        Bound of the delays, seconds.

    Attributes
    ----------
    count : int
        Number of delays given since the start or the last `reset`.
    """

    def __init__(self, first: float = 0.1, longest: float = LONGEST_SECONDS) -> None:
        self._first = first
        self._longest = longest
        self.count = 0

    def next(self) -> float:
        """Return the next delay, in seconds."""
        delay = min(self._longest, self._first * 2.0 ** min(self.count, 32))
        self.count += 1
        return delay

    def reset(self) -> None:
        """Start again from the first delay."""
        self.count = 0
