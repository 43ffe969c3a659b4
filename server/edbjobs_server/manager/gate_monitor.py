"""A gate that stays shut is an event, so that nobody wonders why nothing starts."""

from __future__ import annotations

from edbjobs_server.core.planner import Planner


class GateMonitor:
    """Notices when a gate has kept jobs from starting for long, and when it opens again.

    Parameters
    ----------
    core : Planner
        Knows the gates and the queue.
    seconds : float
        After how long a shut gate is told.
    """

    def __init__(self, core: Planner, seconds: float) -> None:
        self._core = core
        self._seconds = seconds
        self._since: float | None = None
        self._told = False

    def look(self, now: float) -> str | None:
        """Look at the gates; gives what is to be told, once."""
        block = self._core.gate_block(now) if self._core.counts()["queued"] else None
        if block is None:
            told, self._since, self._told = self._told, None, False
            return "the gate is open again" if told else None
        if self._since is None:
            self._since = now
        if self._told or now - self._since < self._seconds:
            return None
        self._told = True
        return f"for {self._seconds:g} s nothing has started: {block.detail}"
