"""Samples of the host: processors, memory, volumes; taken by a thread, never on the event loop."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import structlog

from edbjobs_server.core.gates import HostLoad
from edbjobs_server.core.limits import Host
from edbjobs_server.telemetry.processors import usable_processors
from edbjobs_server.telemetry.run_usage import RunTimes
from edbjobs_server.telemetry.volumes import Volume, Volumes
from edbjobs_server.util import timeouts

_WINDOW_SECONDS = 60.0
_FIRST_SECONDS = 0.25  # a share of processor time needs two readings


def capacity() -> Host:
    """Return the host's capacity for runs."""
    return Host(usable_processors(), psutil.virtual_memory().total)


@dataclass(frozen=True, slots=True)
class Sample:
    """The host at one moment.

    Attributes
    ----------
    time : float
        Seconds since the epoch.
    cpu_percent : float
        Processor use since the sample before, percent of all processors of the host.
    foreign_cpu_percent : float
        Processor use over the last minute that is not of our own runs, percent of all processors of the host.
    cpu_count : int
        Processors the service may use: affinity and cgroup quota count.
    host_cpu_count : int
        Processors of the host, of which the percentages are shares.
    memory_total, memory_available, memory_used : int
        Bytes; available is what a new process can have without swapping.
    volumes : tuple of Volume
        Volumes that were asked.
    """

    time: float
    cpu_percent: float
    foreign_cpu_percent: float
    cpu_count: int
    host_cpu_count: int
    memory_total: int
    memory_available: int
    memory_used: int
    volumes: tuple[Volume, ...]

    def load(self) -> HostLoad:
        """Make what the gates decide by."""
        disks = tuple((volume.path, volume.free) for volume in self.volumes if not volume.unreachable)
        return HostLoad(self.foreign_cpu_percent, self.host_cpu_count, self.memory_available, disks)


@dataclass(frozen=True, slots=True)
class _Reading:
    time: float  # monotonic
    total: float  # processor seconds since boot, idle ones included
    busy: float
    own: float  # processor seconds of our runs, since the sampler started


class HostSampler:
    """Samples the host every `interval` seconds while :meth:`run` runs.

    Parameters
    ----------
    state_dir : Path
        Its volume is sampled, and so is that of the temporary folder.
    interval : float, default 5
        Seconds between two samples.
    run_pids : callable, optional
        Gives the pids of the supervisors of our runs; called on the event loop.
    project_paths : callable, optional
        Gives folders whose volumes matter too, the most important first; called on the event loop.
    on_sample : callable, optional
        Called on the event loop with each sample.
    """

    def __init__(
        self,
        state_dir: Path,
        interval: float = 5.0,
        *,
        run_pids: Callable[[], Iterable[int]] = tuple,
        project_paths: Callable[[], Iterable[str]] = tuple,
        on_sample: Callable[[Sample], None] | None = None,
    ) -> None:
        self.latest: Sample | None = None
        self._paths = (str(state_dir), tempfile.gettempdir())
        self._interval = interval
        self._run_pids = run_pids
        self._project_paths = project_paths
        self._on_sample = on_sample
        self._next: asyncio.Future[Sample] | None = None
        self._volumes = Volumes()
        self._run_times = RunTimes()
        self._readings: deque[_Reading] = deque()

    async def run(self) -> None:
        """Sample until cancelled. A sample that fails is logged, and the next one is tried."""
        log = structlog.get_logger("telemetry")
        pool = ThreadPoolExecutor(1, thread_name_prefix="telemetry")
        work: Callable[[], Sample | None] = partial(self._begin, list(self._run_pids()))
        pause = min(_FIRST_SECONDS, self._interval)
        try:
            while True:
                try:
                    sample = await asyncio.get_running_loop().run_in_executor(pool, work)
                except (OSError, psutil.Error) as error:
                    log.warning("the host cannot be sampled", error=str(error))
                else:
                    if sample is not None:
                        self._publish(sample)
                await asyncio.sleep(pause)
                work = partial(self._sample, list(self._run_pids()), list(self._project_paths()))
                pause = self._interval
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    async def next(self, timeout: float = 30.0) -> Sample:
        """Wait for the next sample.

        Raises
        ------
        asyncio.TimeoutError
            There was none within `timeout` seconds.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        async with timeouts.timeout(timeout):
            return await asyncio.shield(self._next)

    def _publish(self, sample: Sample) -> None:
        self.latest = sample
        waiting, self._next = self._next, None
        if waiting is not None and not waiting.done():
            waiting.set_result(sample)
        if self._on_sample is not None:
            self._on_sample(sample)

    # In the thread ---------------------------------------------------------------------------------------

    def _begin(self, pids: Sequence[int]) -> None:
        self._read(pids)

    def _sample(self, pids: Sequence[int], paths: Sequence[str]) -> Sample:
        previous = self._readings[-1] if self._readings else self._read(pids)
        now = self._read(pids)
        since = self._readings[0]
        memory = psutil.virtual_memory()
        return Sample(
            time=time.time(),
            cpu_percent=_percent(now.busy - previous.busy, now.total - previous.total),
            foreign_cpu_percent=_percent(now.busy - since.busy - (now.own - since.own), now.total - since.total),
            cpu_count=usable_processors(),
            host_cpu_count=psutil.cpu_count() or 1,
            memory_total=memory.total,
            memory_available=memory.available,
            memory_used=memory.total - memory.available,
            volumes=self._volumes.sample(self._paths, paths),
        )

    def _read(self, pids: Sequence[int]) -> _Reading:
        times = psutil.cpu_times()
        # guest time is counted in user time too; iowait is idle time
        idle = times.idle + getattr(times, "iowait", 0.0)
        extra = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        total = sum(times) - extra
        now = time.monotonic()
        reading = _Reading(now, total, total - idle, self._run_times.total(pids, now, total - idle))
        self._readings.append(reading)
        while len(self._readings) > 2 and self._readings[1].time <= now - _WINDOW_SECONDS:
            self._readings.popleft()
        return reading


def _percent(part: float, whole: float) -> float:
    return min(100.0, max(0.0, 100.0 * part / whole)) if whole > 0 else 0.0
