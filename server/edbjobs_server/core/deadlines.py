"""Times that come due, and starts that do not show in the host's averages yet."""

from __future__ import annotations

from bisect import bisect_left, insort

from edbjobs_server.core.admission import Need

SETTLING_SECONDS = 60.0  # until a start shows in the host's averages


class Deadlines:
    """One time for each uid, soonest first."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []

    def set(self, uid: str, time: float) -> None:
        """Set or move the time of a uid."""
        self.drop(uid)
        self._times[uid] = time
        insort(self._order, (time, uid))

    def drop(self, uid: str) -> None:
        """Remove the time of a uid, if it has one."""
        time = self._times.pop(uid, None)
        if time is not None:
            del self._order[bisect_left(self._order, (time, uid))]

    def items(self) -> list[tuple[str, float]]:
        """Return each uid with its time."""
        return list(self._times.items())

    def first(self) -> float | None:
        """Return the soonest time."""
        return self._order[0][0] if self._order else None

    def pop_due(self, now: float) -> list[str]:
        """Remove and return every uid whose time has come, soonest first."""
        due: list[str] = []
        while self._order and self._order[0][0] <= now:
            uid = self._order[0][1]
            self.drop(uid)
            due.append(uid)
        return due


class RecentStarts:
    """Reservations of runs that started within the last minute: the host's averages do not show them yet.

    Attributes
    ----------
    cores, memory_bytes : int
        Sums over these runs, as of the last `expire`.
    """

    def __init__(self) -> None:
        self.cores = 0
        self.memory_bytes = 0
        self._needs: dict[str, Need] = {}
        self._until = Deadlines()

    def add(self, uid: str, start_time: float, need: Need) -> None:
        """Count a run from its start; a second call with another time moves it."""
        self.discard(uid)
        self._needs[uid] = need
        self._until.set(uid, start_time + SETTLING_SECONDS)
        self.cores += need.cores
        self.memory_bytes += need.memory_bytes

    def discard(self, uid: str) -> None:
        """Stop counting a run: it ended, or never started."""
        need = self._needs.pop(uid, None)
        if need is not None:
            self._until.drop(uid)
            self.cores -= need.cores
            self.memory_bytes -= need.memory_bytes

    def expire(self, now: float) -> None:
        """Stop counting runs that started a minute ago or earlier."""
        for uid in self._until.pop_due(now):
            self.discard(uid)
