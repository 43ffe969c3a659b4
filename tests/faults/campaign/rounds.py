"""Which rounds there are."""

from __future__ import annotations

from pathlib import Path

from faults.campaign import kinds
from faults.campaign.round import Report, Round


def run(folder: Path, seed: int, number: int, seconds: float = float("inf")) -> Report:
    """Throw a number of faults at a new service; every third watcher is cut off, every fifth clock is stepped."""
    if seed % 5 == 0:
        return run_clock(folder, seed, number, seconds)
    at = Round(folder, seed, cutting=seed % 3 == 0)
    return at.run(kinds.draw(at, number), seconds)


def run_clock(folder: Path, seed: int, number: int, seconds: float = float("inf")) -> Report:
    """Step the clock of a new service."""
    at = Round(folder, seed, clock=True)
    return at.run(kinds.clock_steps(number), seconds)
