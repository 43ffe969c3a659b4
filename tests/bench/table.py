"""What a measure gives, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure beside its floor.

    Attributes
    ----------
    value : float
        In `unit`; the median where there were several rounds.
    goal : str
        What is to be reached; those of DESIGN.md, section 7.
    floor : float or None
        The least that any program must spend (or the most that it can reach) on this machine in this run.
    floor_name : str
        What the floor is.
    others : mapping of str to float or None
        What others reached in this run, by name; None: not installed.
    more_is_better : bool
        A rate; else a time or a size.
    """

    measure: str
    value: float
    unit: str
    goal: str
    floor: float | None = None
    floor_name: str = ""
    others: Mapping[str, float | None] = field(default_factory=dict)
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How near the floor is: 1 is at the floor, 0.5 is half as good."""
        if self.floor is None or not self.value:
            return None
        return self.value / self.floor if self.more_is_better else self.floor / self.value

    def as_json(self) -> dict[str, Any]:
        """Make what `json` can write."""
        return {**asdict(self), "ratio": self.ratio}


def median_of(rounds: int, measure: Callable[[], float]) -> float:
    """Measure several times and take the median: the machine has other work, too."""
    return statistics.median([measure() for _ in range(rounds)])


def percentile(values: Sequence[float], part: float) -> float:
    """Give the value that `part` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def markdown(rows: Sequence[Row]) -> str:
    """Make a table."""
    lines = [_line("measure", "value", "floor", "ratio", "peers in this run", "goal"), _line(*["---"] * 6)]
    for row in rows:
        floor = f"{number(row.floor)} {row.unit} ({row.floor_name})" if row.floor is not None else ""
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        others = ", ".join(f"{name} {_other(value)}" for name, value in row.others.items())
        lines.append(_line(row.measure, f"{number(row.value)} {row.unit}", floor, ratio, others, row.goal))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def promises(peers: Mapping[str, tuple[str, str]]) -> str:
    """Make the table of what is on disk when a submit is answered, and what becomes of a run when the manager dies."""
    lines = [_line("", "on disk when a submit is answered", "a run when its manager dies"), _line(*["---"] * 3)]
    return "\n".join([*lines, *(_line(name, *texts) for name, texts in peers.items())])


def _other(value: float | None) -> str:
    return "not installed" if value is None else number(value)


def number(value: float) -> str:
    """Write a figure with three digits or more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
