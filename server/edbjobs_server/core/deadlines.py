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
        """Forget the time of a uid, if it has one."""
        time = self._times.pop(uid, None)
        if time is not None:
            del self._order[bisect_left(self._order, (time, uid))]

    def items(self) -> list[tuple[str, float]]:
        """Return each uid with its time."""
        return list(self._times.items())

    def first(self) -> float | None:
        """Tell the soonest time."""
        return self._order[0][0] if self._order else None

    def pop_due(self, now: float) -> list[str]:
        """Take out every uid whose time has come, soonest first."""
        due: list[str] = []
        while self._order and self._order[0][0] <= now:
            uid = self._order[0][1]
            self.drop(uid)
            due.append(uid)
        return due


class RecentStarts:
    """What runs that began within the last minute hold: the host's averages do not show it yet.

    Attributes
    ----------
    cores, memory_mib : int
        Sums over these runs, as of the last `expire`.
    """

    def __init__(self) -> None:
        self.cores = 0
        self.memory_mib = 0
        self._needs: dict[str, Need] = {}
        self._until = Deadlines()

    def add(self, uid: str, began: float, need: Need) -> None:
        """Count a run from when it began; again with another time moves it."""
        self.discard(uid)
        self._needs[uid] = need
        self._until.set(uid, began + SETTLING_SECONDS)
        self.cores += need.cores
        self.memory_mib += need.memory_mib

    def discard(self, uid: str) -> None:
        """Count a run no longer: it ended, or never began."""
        need = self._needs.pop(uid, None)
        if need is not None:
            self._until.drop(uid)
            self.cores -= need.cores
            self.memory_mib -= need.memory_mib

    def expire(self, now: float) -> None:
        """Count what began a minute ago no longer."""
        for uid in self._until.pop_due(now):
            self.discard(uid)
