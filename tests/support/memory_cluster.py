"""A service in the tests' own process whose cluster is in memory: every answer of the scheduler is made by the test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from edbjobs_pyedb.handler import JobManagerHandler
from edbjobs_server.config.settings import Settings
from edbjobs_server.core.runs import RunKey
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.poll_timing import PollTiming
from edbjobs_server.executors.cluster.run_folders import RunFolders
from edbjobs_server.executors.cluster.script import Scripts, SiteLines
from edbjobs_server.executors.schedulers.base import ClusterJob, Partition

from support.cluster_runs import MemoryScheduler

DEADLINE = 30.0
GIB = 1024**3
PARTITIONS = (
    Partition("normal", "up", True, 4, 1, 3, 32, 8, 24, 256 * GIB, 64 * GIB, 36 * 3600),
    Partition("closed", "down", False, 2, 0, 0, 16, 0, 0, 128 * GIB, 0, None),
)


class MemorySlurm(MemoryScheduler):
    """A SLURM in memory."""

    name = "slurm"

    async def partitions(self) -> Sequence[Partition]:
        self._answer("partitions")
        return PARTITIONS

    async def jobs(self) -> Sequence[ClusterJob]:
        self._answer("jobs")
        others = ClusterJob("9000", "weather", "bob", "closed", "RUNNING", "", 2, 16, ("n[1-2]",), 1_700_000_000.0)
        ours = [ClusterJob(job.id, job.name, "ann", "normal", job.state, job.reason) for job in self.table.values()]
        return [*ours, others]


class ClusterService:
    """The whole service with its endpoints, in a thread of this process.

    Parameters
    ----------
    folder : Path
        Gets its state and the folder for runs.
    **settings
        Settings of the service.

    Attributes
    ----------
    scheduler : MemorySlurm
        Its cluster.
    handler : JobManagerHandler
        The façade it is hosted by.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.scheduler = MemorySlurm()
        self.shared = folder / "shared"
        self._folders: RunFolders | None = None
        self._uds = folder / "s"
        given = {"uds": self._uds, "demo_solver": True, "scheduler": "auto", "shared_dir": self.shared, **settings}
        self.handler = JobManagerHandler(port=0, state_dir=folder / "state", **given)
        self._patch = mock.patch("edbjobs_server.service.app.make_clusters", self._make)

    def _make(self, settings: Settings, site: object, environ: object, store_id: str) -> dict[str, ClusterExecutor]:
        self._folders = RunFolders(self.shared / store_id)
        scripts = Scripts(None, SiteLines())
        timing = PollTiming(interval=0.05, floor=0.0, tick=0.01, confirm=0.2, stale=0.2)
        return {"slurm": ClusterExecutor(self.scheduler, scripts, self._folders, timing)}

    def __enter__(self) -> ClusterService:
        with self._patch:
            self.handler.start_service()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handler.close()

    @property
    def url(self) -> str:
        """Base URL of the HTTP endpoint."""
        return self.handler.url

    @property
    def target(self) -> str:
        """Address of the gRPC endpoint."""
        return f"unix:{self._uds}"

    def until(self, true: Callable[[], Any]) -> Any:
        """Call until the answer is true; gives it."""
        end = time.monotonic() + DEADLINE
        while not (found := true()):
            assert time.monotonic() < end, "it did not come true in time"
            time.sleep(0.01)
        return found

    # What happens on the cluster --------------------------------------------------------------------------

    def write(self, seq: int, name: str, line: str) -> None:
        """Write a file of a run's record, as its batch script does."""
        assert self._folders is not None, "the service has started"
        key = RunKey(seq, "", 1)
        path = self._folders.of(key) / name
        temporary = path.with_name(f".{name}.new")
        temporary.write_text(line + "\n")
        os.replace(temporary, path)
        self._folders.notification(key).touch()

    def job_starts(self, seq: int, job: str, *nodes: str) -> None:
        """Start a run on nodes."""
        now = int(time.time())
        self.write(seq, "claim", f"kind=run job={job} restart=0 host={nodes[0]} pid=9 time={now}")
        self.write(seq, "start", f"time={now} pid=4711 host={nodes[0]} nodes={','.join(nodes)}")

    def exits(self, seq: int, code: int) -> None:
        """Let a run end."""
        self.write(seq, "exit", f"code={code} signal=none time={int(time.time())}")
