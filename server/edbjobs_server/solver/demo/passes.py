"""The steps of a solve, as lines of the log: adaptive passes, then the frequencies of each sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edbjobs_server.solver.demo.journal import Journal
from edbjobs_server.solver.setups import Setup, Sweep

_PASSES = 6  # passes of a setup that converges, where it allows as many
_INTERPOLATED = 9  # frequencies that an interpolating sweep solves
_MAX_DISCRETE = 50


class Step(NamedTuple):
    """A piece of work: lines before it and lines after it, as (setup, kind, text)."""

    setup: str
    before: tuple[tuple[str, str], ...]
    after: tuple[tuple[str, str], ...]

    def start(self, journal: Journal) -> None:
        """Write the log lines before the work."""
        self._write(journal, self.before)

    def end(self, journal: Journal) -> None:
        """Write the log lines after the work."""
        self._write(journal, self.after)

    def _write(self, journal: Journal, lines: Sequence[tuple[str, str]]) -> None:
        for kind, text in lines:
            if kind in ("info", "warning"):
                journal.message(text, kind)
            else:
                journal.profile(self.setup, text, kind)


def adaptive(setup: Setup, converges: bool) -> list[Step]:
    """Make the adaptive passes of a setup: delta S falls to its target in the last one, or stays above it."""
    most = setup.max_passes or _PASSES
    count = min(most, _PASSES) if converges else min(most, 2 * _PASSES)
    target = setup.delta_s or 0.02
    steps = []
    for number in range(1, count + 1):
        last = number == count
        delta = target * 10 ** ((count - number) * 0.25) * (0.87 if converges else 1.9)
        steps.append(_pass(setup, number, delta, last, converges))
    return steps


def _pass(setup: Setup, number: int, delta: float, last: bool, converges: bool) -> Step:
    elements = int(18_000 * 1.21 ** (number - 1))
    before = [("PROFILE", "Adaptive Meshing : Time:")] if number == 1 else []
    before.append(("PROFILE", f"Adaptive Pass {number} : Frequency: {setup.frequency or '5GHz'}"))
    cost = "Real Time 00:00:00 : CPU Time 00:00:00 : Memory"
    after = [
        (
            "PROFILE",
            f"Matrix Assembly : {cost} {200 + 40 * number} M : Tetrahedra: {elements}, Disk: 0 Bytes",
        ),
        (
            "PROFILE",
            f"Matrix Solve : {cost} {0.3 + 0.1 * number:.2f} G : Type: DCS, Matrix size: {5 * elements}",
        ),
        (
            "CONVERGE",
            f"Pass Number:  {number};  Solved Elements:  {elements};  Max Mag. Delta S:  "
            f"{'N/A' if number == 1 else f'{delta:.5g}'};  Delta Output Var:  N/A;  ",
        ),
    ]
    if last:
        after.append(("PROFILE", f"       Adaptive Passes {'converged' if converges else 'did not converge'}"))
        if not converges:
            after.append(("warning", f"{setup.name}: Adaptive Passes did not converge."))
    after.append(("PROFILE", "Stop :  "))
    return Step(setup.name, tuple(before), tuple(after))


def sweeps(setup: Setup, requested: Sequence[Sweep], host: str) -> list[Step]:
    """Make the solved frequencies of the sweeps of a setup."""
    return [step for sweep in requested for step in _sweep(setup, sweep, host)]


def _sweep(setup: Setup, sweep: Sweep, host: str) -> list[Step]:
    discrete = sweep.kind == "discrete"
    points = sweep.points or 101
    count = min(points, _MAX_DISCRETE) if discrete else min(points, _INTERPOLATED)
    kind = "Discrete" if discrete else "Interpolating"
    steps = []
    for number in range(count):
        frequency = f"{_at(sweep, number, count) / 1e9:.6g}GHz"
        before = [("PROFILE", f"Frequency - {frequency} : {host}")]
        if number == 0:
            before[:0] = [
                ("PROFILE", "Frequency Sweep : Time:"),
                ("PROFILE", f"Solution - {sweep.name} : {kind} HFSS Frequency Sweep, Solving Distributed"),
                (
                    "PROFILE",
                    f"       From {sweep.start / 1e9:g}GHz to {sweep.stop / 1e9:g}GHz, {points} Frequencies",
                ),
            ]
        after = [("PROFILE", f"Frequency - {frequency} : Elapsed time : 00:00:00")]
        if not discrete:
            error = "Additional basis points are needed before the interpolation error can be computed."
            if number > 3:
                error = f"S Matrix interpolation error = {10.0 ** -(number - 3):.4g}%"
            after.append(("PROFILE", f"       Basis Element # {number + 1}, Frequency: {frequency}; {error}"))
        if number == count - 1 and not discrete:
            after.append(("info", "Interpolating frequency sweep complete. Converged."))
        steps.append(Step(setup.name, tuple(before), tuple(after)))
    return steps


def _at(sweep: Sweep, number: int, count: int) -> float:
    return sweep.start + (sweep.stop - sweep.start) * number / max(1, count - 1)
