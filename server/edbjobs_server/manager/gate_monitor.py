"""Events for a gate that stays closed: they explain why no job starts."""

from __future__ import annotations

from edbjobs_server.core.planner import Planner
from edbjobs_server.core.states import EventType


class GateMonitor:
    """Reports when a gate has kept jobs from starting for long, and when it opens again.

    Parameters
    ----------
    core : Planner
        Source of the gates and the queue.
    seconds : float
        Time after which a closed gate is reported.
    """

    def __init__(self, core: Planner, seconds: float) -> None:
        self._core = core
        self._seconds = seconds
        self._since: float | None = None
        self._reported = False

    def check(self, now: float) -> tuple[EventType, str] | None:
        """Check the gates; return the event to record and its text, once for each change."""
        block = self._core.gate_block(now) if self._core.waiting_by_priority() else None
        if block is None:
            reported, self._since, self._reported = self._reported, None, False
            return (EventType.GATE_OPENED, "the gate is open again") if reported else None
        if self._since is None:
            self._since = now
        if self._reported or now - self._since < self._seconds:
            return None
        self._reported = True
        return EventType.GATE_CLOSED, f"for {self._seconds:g} s nothing has started: {block.detail}"
