"""The order of waiting jobs, and which of them are candidates to start."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from edbjobs_server.core.job import LOCAL, Job

Entry = tuple[int, int, str]  # -priority, seq, uid: sorts as the queue does


def entry_of(job: Job) -> Entry:
    """Sort key of a job, ending in its uid."""
    return (-job.priority, job.seq, job.uid)


def _remove(entries: list[Entry], entry: Entry) -> None:
    index = bisect_left(entries, entry)
    assert entries[index] == entry, "an entry is removed as it was put in"
    del entries[index]


class WaitingQueue:
    """Waiting jobs in order.

    Of each project only its first eligible job is a candidate, and none while one of its jobs runs: so a
    thousand jobs of one project cost no more to plan than one.
    """

    def __init__(self) -> None:
        self._all: list[Entry] = []
        self._jobs: dict[str, Job] = {}
        self._eligible: dict[str, list[Entry]] = {}
        self._busy: set[str] = set()
        self._shown: dict[str, tuple[str, Entry]] = {}
        self._heads: dict[str, list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, uid: object) -> bool:
        return uid in self._jobs

    def jobs(self) -> Iterator[Job]:
        """Go through the waiting jobs in order."""
        return (self._jobs[entry[2]] for entry in self._all)

    def add(self, job: Job, eligible: bool) -> None:
        """Put a waiting job in; it must not be in."""
        self._jobs[job.uid] = job
        insort(self._all, entry_of(job))
        if eligible:
            self.enable(job.uid)

    def remove(self, uid: str) -> None:
        """Take a job out."""
        self.disable(uid)
        _remove(self._all, entry_of(self._jobs.pop(uid)))

    def is_eligible(self, uid: str) -> bool:
        """Tell whether a waiting job may be planned."""
        job = self._jobs[uid]
        entries = self._eligible.get(job.spec.project_key, [])
        index = bisect_left(entries, entry_of(job))
        return index < len(entries) and entries[index][2] == uid

    def enable(self, uid: str) -> None:
        """Make a waiting job a candidate."""
        job = self._jobs[uid]
        if not self.is_eligible(uid):
            insort(self._eligible.setdefault(job.spec.project_key, []), entry_of(job))
            self._refresh(job.spec.project_key)

    def disable(self, uid: str) -> None:
        """Make a waiting job no candidate."""
        job = self._jobs[uid]
        if self.is_eligible(uid):
            key = job.spec.project_key
            _remove(self._eligible[key], entry_of(job))
            if not self._eligible[key]:
                del self._eligible[key]
            self._refresh(key)

    def take_project(self, key: str) -> None:
        """Let no job of a project be a candidate: one of them runs."""
        self._busy.add(key)
        self._refresh(key)

    def free_project(self, key: str) -> None:
        """Let the jobs of a project be candidates again."""
        self._busy.discard(key)
        self._refresh(key)

    def before(self, uid: str) -> int:
        """Count the waiting jobs that come before one."""
        return bisect_left(self._all, entry_of(self._jobs[uid]))

    def lanes(self) -> list[str]:
        """Executors that have candidates, local first."""
        return sorted((lane for lane, heads in self._heads.items() if heads), key=lambda lane: (lane != LOCAL, lane))

    def candidates(self, lane: str, stands_aside: Callable[[Job], bool]) -> Iterator[Job]:
        """Go through the candidates of an executor in order.

        Parameters
        ----------
        lane : str
            Executor.
        stands_aside : callable
            Tells of a candidate that it waits for something of its own; it is stepped over, and the next
            job of its project becomes a candidate in its place.

        Notes
        -----
        A candidate that was given out may be taken out of the queue before the next is asked for.
        """
        position: Entry | None = None
        substitutes: list[Entry] = []
        while True:
            entry = self._next(lane, position, substitutes)
            if entry is None:
                return
            if substitutes and substitutes[0] == entry:
                heapq.heappop(substitutes)
            else:
                position = entry
            job = self._jobs.get(entry[2])
            if job is None or job.spec.project_key in self._busy:
                continue
            if stands_aside(job):
                follower = self._follower(job, lane)
                if follower is not None:
                    heapq.heappush(substitutes, follower)
            else:
                yield job

    def _next(self, lane: str, position: Entry | None, substitutes: list[Entry]) -> Entry | None:
        heads = self._heads.get(lane, [])
        index = 0 if position is None else bisect_left(heads, (*position[:2], position[2] + "\0"))
        best = heads[index] if index < len(heads) else None
        if substitutes and (best is None or substitutes[0] < best):
            best = substitutes[0]
        return best

    def _follower(self, job: Job, lane: str) -> Entry | None:
        entries = self._eligible.get(job.spec.project_key, [])
        for index in range(bisect_left(entries, entry_of(job)) + 1, len(entries)):
            if self._jobs[entries[index][2]].spec.executor == lane:
                return entries[index]
        return None

    def _refresh(self, key: str) -> None:
        """Show the first eligible job of a project among the candidates, or none while the project is busy."""
        entries = self._eligible.get(key)
        wanted = None
        if entries and key not in self._busy:
            wanted = (self._jobs[entries[0][2]].spec.executor, entries[0])
        shown = self._shown.get(key)
        if shown == wanted:
            return
        if shown is not None:
            _remove(self._heads[shown[0]], shown[1])
            del self._shown[key]
        if wanted is not None:
            insort(self._heads.setdefault(wanted[0], []), wanted[1])
            self._shown[key] = wanted
