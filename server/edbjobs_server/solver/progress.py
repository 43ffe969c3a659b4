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
    """How far a solve is; fields and units are those of ``edbjobs.v1.JobProgress``, None: not known.

    Attributes
    ----------
    phase : str
        ``meshing``, ``adaptive``, ``sweep`` or ``done``; empty: not known.
    last_pass, delta, elements : int, float and int, or None
        Of the last finished adaptive pass.
    """

    phase: str = ""
    setup: str = ""
    sweep: str = ""
    last_pass: int | None = None
    delta: float | None = None
    elements: int | None = None
    current_pass: int | None = None
    max_passes: int | None = None
    target_delta: float | None = None
    frequencies_solved: int | None = None
    frequencies_total: int | None = None
    fraction: float | None = None


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
        phase=log.phase,
        setup=log.name,
        sweep=log.sweep if log.phase == "sweep" else "",
        last_pass=log.passes_done or None,
        delta=log.delta_s,
        elements=log.elements or None,
        current_pass=log.adaptive_pass if log.adaptive_pass > log.passes_done else None,
        max_passes=setup.max_passes or None,
        target_delta=setup.delta_s or None,
        frequencies_solved=log.frequencies if log.phase == "sweep" or log.frequencies else None,
        frequencies_total=log.points or None if log.sweep_kind == "discrete" else None,
        fraction=None if share is None or not setups else min(1.0, (done + share) / count),
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
