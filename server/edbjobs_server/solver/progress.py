"""How far a solve is, from its log while it grows and from what the project asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edbjobs_server.solver.batch_log import LogReader, Segment
from edbjobs_server.solver.setup_log import SetupLog
from edbjobs_server.solver.setups import Setup
from edbjobs_server.util.files import GrowingFile

POLL_LIMIT = 8 * 1024 * 1024
# Shares of a setup that are done after meshing, adaptive passes and sweeps: a convention, as none is known.
_MESHED, _ADAPTED, _SWEPT = 0.1, 0.6, 0.95


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a solve is; fields, units and the meaning of 0 are those of ``edbjobs.v1.JobProgress``."""

    setup: str = ""
    adaptive_pass: int = 0
    max_passes: int = 0
    delta_s: float | None = None
    target_delta_s: float | None = None
    elements: int = 0
    frequencies_solved: int = 0
    frequencies_total: int = 0
    fraction: float | None = None
    phase: str = ""


class LogFollower:
    """Reads a growing log incrementally; a log that was truncated or replaced is read from the start.

    Parameters
    ----------
    path : Path
        The log; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._reader = LogReader()

    def poll(self) -> Segment:
        """Read what is new, at most 8 MiB of it; blocks on the file system.

        Raises
        ------
        OSError
            The log is there but cannot be read.
        """
        data = self._file.read(POLL_LIMIT)
        if self._file.restarted:
            self._reader = LogReader()
        return self._reader.feed(data)


def progress(segment: Segment, setups: Sequence[Setup]) -> Progress:
    """Return how far a solve is.

    Parameters
    ----------
    segment : Segment
        Of the log so far.
    setups : sequence of Setup
        Those to be solved, as `setups.select` gives them; empty: not known.

    Returns
    -------
    Progress
        Its `fraction` is None where no honest number can be given, as in an interpolating sweep, whose number
        of solved frequencies is not known before its end.
    """
    log = segment.setups.get(segment.current)
    if log is None:
        return Progress()
    setup = next((setup for setup in setups if setup.name == log.name), Setup("", log.name))
    done = sum(1 for other in segment.setups.values() if other.normal and other is not log)
    share = _fraction(log, setup)
    count = max(len(setups), len(segment.setups))
    return Progress(
        setup=f"{log.name} : {log.sweep}" if log.phase == "sweep" else log.name,
        adaptive_pass=log.adaptive_pass,
        max_passes=setup.max_passes,
        delta_s=log.delta_s,
        target_delta_s=setup.delta_s or None,
        elements=log.elements,
        frequencies_solved=log.frequencies,
        frequencies_total=log.points if log.sweep_kind == "discrete" else 0,
        fraction=None if share is None or not setups else min(1.0, (done + share) / count),
        phase=log.phase,
    )


def _fraction(log: SetupLog, setup: Setup) -> float | None:
    if log.normal:
        return 1.0
    if log.phase == "adaptive":
        return _adaptive(log, setup)
    if log.phase == "sweep":
        if log.sweep_kind != "discrete" or not log.points:
            return None
        names = [sweep.name for sweep in setup.sweeps]
        before = names.index(log.sweep) if log.sweep in names else 0
        solved = (before + min(1.0, log.frequencies / log.points)) / max(1, len(names))
        return _ADAPTED + (_SWEPT - _ADAPTED) * solved
    return 0.0


def _adaptive(log: SetupLog, setup: Setup) -> float | None:
    shares = []
    if setup.max_passes:
        shares.append(log.passes_done / setup.max_passes)
    if log.delta_s and 0 < setup.delta_s < 1:
        # Delta S falls by about the same factor each pass: its logarithm, from 1 to the target, is the way gone.
        shares.append(math.log(min(1.0, log.delta_s)) / math.log(setup.delta_s))
    return _MESHED + (_ADAPTED - _MESHED) * min(1.0, max(shares)) if shares else None
