"""When a scheduler is polled: seldom, sooner when a change is expected, less and less often while it is unreachable."""

from __future__ import annotations

HURRY_SECONDS = (1.0, 3.0, 8.0, 20.0)  # after a submit or a cancel: a start takes about a second on an idle SLURM
FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 60.0


class PollTiming:
    """Decides when to ask; times are those of a monotonic clock, in seconds.

    Parameters
    ----------
    interval : float, default: 30
        Between two questions about all runs.
    floor : float, default: 1
        Least time between any two questions; a site's own.
    tick : float, default: 1
        Between two looks at what runs have written.
    confirm : float, default: 60
        How long a scheduler must have denied a run before its own record decides.
    stale : float, default: 120
        How long the record of a run that the scheduler denies must have shown no life.
    """

    def __init__(
        self,
        interval: float = 30.0,
        floor: float = 1.0,
        tick: float = 1.0,
        confirm: float = 60.0,
        stale: float = 120.0,
    ) -> None:
        self.interval = max(interval, floor)
        self.floor = floor
        self.tick = tick
        self.confirm = confirm
        self.stale = stale
        self._last = float("-inf")
        self._next = float("-inf")
        self._failures = 0
        self._hurried: list[float] = []

    def is_due(self, now: float) -> bool:
        """Return whether to poll all runs now."""
        if self._failures:
            return now >= self._next
        return self.may_ask(now) and (now >= self._next or bool(self._hurried and now >= self._hurried[0]))

    def may_ask(self, now: float) -> bool:
        """Return whether the scheduler may be queried now."""
        return now - self._last >= self.floor and (not self._failures or now >= self._next)

    def asked(self, now: float) -> None:
        """Note that a query was answered."""
        self._last = now
        self._next = now + self.interval
        self._failures = 0
        self._hurried = [time for time in self._hurried if time > now]

    def looked(self, now: float) -> None:
        """Note that a query about a few runs was sent."""
        self._last = now

    def failed(self, now: float) -> None:
        """Note that a query was not answered."""
        self._last = now
        wait = min(FIRST_RETRY_SECONDS, self.interval) * 2.0 ** min(self._failures, 10)
        self._failures += 1
        self._next = now + max(min(wait, max(LAST_RETRY_SECONDS, self.interval)), self.floor)

    def hurry(self, now: float) -> None:
        """Note that a change is expected."""
        self._hurried = [now + wait for wait in HURRY_SECONDS]
