"""The order of waiting jobs, and which of them are candidates to start."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Container, Iterator

from edbjobs_server.core.admission import Need
from edbjobs_server.core.job import Job

Entry = tuple[int, int, str]  # -priority, seq, uid: sorts as the queue does
Kind = tuple[str, Need]  # executor and needs: what stops one job of a kind stops all of them


def entry_of(job: Job) -> Entry:
    """Return the sort key of a job, ending in its uid."""
    return (*job.order, job.uid)


def _insert(entries: list[Entry], entry: Entry) -> None:
    if not entries or entries[-1] < entry:  # as of nearly every new job
        entries.append(entry)
    else:
        insort(entries, entry)


def _remove(entries: list[Entry], entry: Entry) -> None:
    index = bisect_left(entries, entry)
    assert entries[index] == entry, "an entry is removed as it was put in"
    del entries[index]


class WaitingQueue:
    """Waiting jobs in order.

    Eligible jobs are kept by kind. Of each project only the first of a kind is a candidate, and none while one of
    the project's jobs runs; of each kind only the first candidate is looked at. So ten thousand jobs of one
    project, or of one user at the cap, cost no more to plan than one.

    Attributes
    ----------
    version : int
        Grows with every change of the candidates and of the projects with a run.
    held : int
        Number of held jobs.
    priorities : Counter of int
        Number of jobs of each priority.
    """

    def __init__(self) -> None:
        self.version = 0
        self.held = 0
        self.priorities: Counter[int] = Counter()
        self._all: list[Entry] = []
        self._jobs: dict[str, Job] = {}
        self._kinds: dict[str, Kind] = {}
        self._eligible: dict[str, dict[Kind, list[Entry]]] = {}  # by project
        self._busy: set[str] = set()
        self._shown: dict[tuple[str, Kind], Entry] = {}  # the candidate of a project and kind
        self._heads: dict[Kind, list[Entry]] = {}  # the same by kind
        self._fronts: dict[str, list[Entry]] = {}  # the first of each kind, by executor

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, uid: object) -> bool:
        return uid in self._jobs

    def add(self, job: Job, need: Need, eligible: bool) -> None:
        """Add a waiting job that is not in the queue yet."""
        self._jobs[job.uid] = job
        self._kinds[job.uid] = (job.spec.scheduler, need)
        self.held += job.held
        self.priorities[job.priority] += 1
        _insert(self._all, entry_of(job))
        if eligible:
            self.enable(job.uid)

    def need(self, uid: str) -> Need:
        """Return what a waiting job needs."""
        return self._kinds[uid][1]

    def remove(self, uid: str) -> None:
        """Remove a job."""
        self._disable(uid)
        job = self._jobs.pop(uid)
        del self._kinds[uid]
        self.held -= job.held
        self.priorities[job.priority] -= 1
        if not self.priorities[job.priority]:
            del self.priorities[job.priority]
        _remove(self._all, entry_of(job))

    def enable(self, uid: str) -> None:
        """Make a waiting job a candidate; it must not be one yet."""
        job, kind = self._jobs[uid], self._kinds[uid]
        key = job.spec.project_key
        _insert(self._eligible.setdefault(key, {}).setdefault(kind, []), entry_of(job))
        self._refresh(key, kind)

    def _disable(self, uid: str) -> None:
        job, kind = self._jobs[uid], self._kinds[uid]
        key, entry = job.spec.project_key, entry_of(job)
        kinds = self._eligible.get(key, {})
        entries = kinds.get(kind, [])
        index = bisect_left(entries, entry)
        if entries[index : index + 1] != [entry]:
            return
        del entries[index]
        if not entries:
            del kinds[kind]
        if not kinds:
            del self._eligible[key]
        self._refresh(key, kind)

    def take_project(self, key: str) -> None:
        """Exclude the jobs of a project from the candidates: one of them runs."""
        self._busy.add(key)
        self._refresh_all(key)

    def free_project(self, key: str) -> None:
        """Admit the jobs of a project as candidates again."""
        self._busy.discard(key)
        self._refresh_all(key)

    def before(self, uid: str) -> int:
        """Return the number of waiting jobs before one."""
        return bisect_left(self._all, entry_of(self._jobs[uid]))

    def candidates(self, stands_aside: Callable[[Need], bool], stopped: Container[str]) -> Iterator[Job]:
        """Yield the candidates of all executors in order.

        Parameters
        ----------
        stands_aside : callable
            Returns whether jobs of these needs wait for something that concerns no other job: they are skipped.
        stopped : container of str
            Executors whose candidates are skipped from now on.

        Notes
        -----
        Before the next candidate is requested, the caller removes the last one from the queue, or adds its
        executor to `stopped`.
        """
        entry: Entry | None = None
        while (entry := self._next(entry, stopped)) is not None:
            if not stands_aside(self._kinds[entry[2]][1]):
                yield self._jobs[entry[2]]

    def _next(self, last: Entry | None, stopped: Container[str]) -> Entry | None:
        best: Entry | None = None
        for lane, fronts in self._fronts.items():
            index = bisect_right(fronts, last) if last is not None else 0
            if lane not in stopped and index < len(fronts) and (best is None or fronts[index] < best):
                best = fronts[index]
        return best

    def _refresh_all(self, key: str) -> None:
        self.version += 1
        for kind in self._eligible.get(key, {}):
            self._refresh(key, kind)

    def _refresh(self, key: str, kind: Kind) -> None:
        """Show the first eligible job of a project and kind among the candidates, or none while the project is busy."""
        self.version += 1
        entries = self._eligible.get(key, {}).get(kind)
        first = entries[0] if entries and key not in self._busy else None
        shown = self._shown.get((key, kind))
        if shown == first:
            return
        heads = self._heads.setdefault(kind, [])
        front = heads[0] if heads else None
        if shown is not None:
            _remove(heads, shown)
            del self._shown[key, kind]
        if first is not None:
            _insert(heads, first)
            self._shown[key, kind] = first
        self._refresh_front(kind[0], front, heads[0] if heads else None)
        if not heads:
            del self._heads[kind]

    def _refresh_front(self, lane: str, before: Entry | None, after: Entry | None) -> None:
        if before == after:
            return
        fronts = self._fronts.setdefault(lane, [])
        if before is not None:
            _remove(fronts, before)
        if after is not None:
            insort(fronts, after)
