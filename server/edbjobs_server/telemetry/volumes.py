"""Space on volumes. A network file system may hang indefinitely: each path has a thread of its own."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DEADLINE_SECONDS = 2.0
MAX_FURTHER = 64  # paths beyond the service's own
MAX_HANGING = 16  # threads that wait for volumes that do not answer


@dataclass(frozen=True, slots=True)
class Volume:
    """Space on the volume of a path, bytes; free is what this account can use.

    `unreachable`: it does not answer; the numbers are the last known ones, 0 if there are none.
    """

    path: str
    total: int
    free: int
    unreachable: bool = False


class Volumes:
    """Asks for the space on volumes; one that does not answer in time is reported as such until it does."""

    def __init__(self, usage: Callable[[str], tuple[int, int, int]] | None = None) -> None:
        self._usage = usage or _usage
        self._open: dict[str, _Probe] = {}
        self._known: dict[str, tuple[int, int, int]] = {}  # by path, of those of the last sample

    def sample(self, own: Sequence[str], further: Sequence[str] = ()) -> tuple[Volume, ...]:
        """Return the space on each volume once, under the first of its paths.

        Parameters
        ----------
        own : sequence of str
            Always asked.
        further : sequence of str
            At most 64 of them are asked, and no new ones once 16 hang.
        """
        until = time.monotonic() + DEADLINE_SECONDS
        self._open = {path: probe for path, probe in self._open.items() if not probe.done.is_set()}
        crowded = len(self._open) >= MAX_HANGING
        paths = list(dict.fromkeys(further))[:MAX_FURTHER]
        paths = [*own, *(path for path in paths if path in self._open or not crowded)]
        hanging = set(self._open)
        probes = [self._probe(path) for path in dict.fromkeys(paths)]
        known: dict[str, tuple[int, int, int]] = {}
        found: dict[int | str, Volume] = {}
        for probe in probes:
            patience = 0.0 if probe.path in hanging else max(0.0, until - time.monotonic())
            answered = probe.done.wait(patience)
            answer = probe.answer if answered else self._known.get(probe.path)
            if answer is not None:
                known[probe.path] = answer
                device, total, free = answer
                found.setdefault(device, Volume(probe.path, total, free, not answered))
            elif not answered:
                found.setdefault(probe.path, Volume(probe.path, 0, 0, unreachable=True))
        self._known = known
        return tuple(found.values())

    def _probe(self, path: str) -> _Probe:
        if path not in self._open:
            self._open[path] = _Probe(path, self._usage)
        return self._open[path]


class _Probe:
    def __init__(self, path: str, usage: Callable[[str], tuple[int, int, int]]) -> None:
        self.path = path
        self.answer: tuple[int, int, int] | None = None
        self.done = threading.Event()
        self._usage = usage
        threading.Thread(target=self._ask, name="volume", daemon=True).start()

    def _ask(self) -> None:
        try:
            self.answer = self._usage(self.path)
        except OSError:
            pass  # not there, or not for us: as good as no answer
        finally:
            self.done.set()


def _usage(path: str) -> tuple[int, int, int]:
    space = shutil.disk_usage(path)
    return os.stat(path).st_dev, space.total, space.free
