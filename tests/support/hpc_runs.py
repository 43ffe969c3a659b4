"""A cluster executor on the double of an HPC Pack head node, and a node that does what the batch script would."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

from edbjobs.v1 import job_config_pb2, jobs_messages_pb2
from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.core.runs import OpenRun, RunKey
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.poll_timing import PollTiming
from edbjobs_server.executors.cluster.run_folders import RunFolders
from edbjobs_server.executors.cluster.script import Scripts, SiteLines
from edbjobs_server.executors.schedulers.windows_hpc import WindowsHpc
from edbjobs_server.manager.run_spec import run_spec
from edbjobs_server.manager.submission import Rules, draft
from edbjobs_server.solver.demo import example_project
from edbjobs_server.solver.releases import on_windows_nodes

from support.cluster_runs import Told
from support.fake_hpcpack import PASSWORD, USER, FakeHpcPack

DEADLINE = 20.0
SHARE = "\\\\fs\\work $1"
SOLVER = PureWindowsPath("C:\\Program Files\\ANSYS Inc\\v252\\AnsysEM\\ansysedt.exe")
_T = TypeVar("_T")


class Node:
    """Plays a node: it knows only what the task and its script tell, and paths as Windows has them."""

    def __init__(self, fake: FakeHpcPack, shared: Path) -> None:
        self._fake = fake
        self._shared = shared
        self.name = "CN001"

    def script(self, job_id: str) -> str:
        """Read the script that the task's command runs."""
        command = self._fake.jobs[int(job_id)].tasks[0]["CommandLine"]
        match = re.search(r' -File "([^"]+\.ps1)"$', command)
        assert match is not None, command
        return self._here(match[1]).read_bytes().decode("utf-8-sig")

    def told(self, job_id: str, variable: str) -> str:
        """Read what the script sets a variable or a property to."""
        match = re.search(rf"^\${re.escape(variable)} = '([^\r\n]*)'\r$", self.script(job_id), re.MULTILINE)
        assert match is not None, variable
        return match[1].replace("''", "'")

    def job_starts(self, job_id: str) -> None:
        """Let the job begin: it claims its run and starts its program."""
        self._fake.start(job_id, self.name)
        line = f"kind=run job={job_id} restart=0 host={self.name} pid=8 time={int(time.time())}"
        with (self._folder(job_id) / "claim").open("x") as file:
            file.write(line + "\n")
        self.writes(job_id, "start", f"time={int(time.time())} pid=8 host={self.name} nodes={self.name}")

    def program_ends(self, job_id: str, code: int) -> None:
        """Let the program end; the head node does not know it yet."""
        self.writes(job_id, "exit", f"code={code} signal=none time={int(time.time())}")

    def ends(self, job_id: str, code: int) -> None:
        """Let the program and the task end."""
        self.program_ends(job_id, code)
        self._fake.finish(job_id, code)

    def writes(self, job_id: str, name: str, line: str) -> None:
        """Write a file of the run's record, and ring."""
        temporary = self._folder(job_id) / f".{name}.new"
        temporary.write_text(line + "\n")
        temporary.replace(self._folder(job_id) / name)
        self._here(self.told(job_id, "edbjobs_news")).touch()

    def prints_errors(self, job_id: str, text: str) -> None:
        """Let PowerShell write to the task's standard error."""
        self._here(self._fake.jobs[int(job_id)].tasks[0]["StdErrFilePath"]).write_text(text)

    def _folder(self, job_id: str) -> Path:
        return self._here(self.told(job_id, "edbjobs_folder"))

    def _here(self, path: str) -> Path:
        assert path.startswith(SHARE + "\\"), f"no node sees {path}"
        return self._shared.joinpath(*path[len(SHARE) + 1 :].split("\\"))


class HpcScene(Told):
    """An executor on such a head node, and what it has told.

    Parameters
    ----------
    fake : FakeHpcPack
        The head node.
    root : Path
        Gets the folder that the nodes see as `SHARE`.
    **timing
        As for `Timing`.
    """

    def __init__(self, fake: FakeHpcPack, root: Path, **timing: float) -> None:
        self.shared = root / "shared ü"
        self.shared.mkdir()
        self.fake = fake
        self.node = Node(fake, self.shared)
        self.credentials: Callable[[], tuple[str, str]] = lambda: (USER, PASSWORD)
        self._timing = {"interval": 0.05, "floor": 0.0, "tick": 0.01, "confirm": 0.2, "stale": 0.2, **timing}
        super().__init__()
        self.hpc, self.executor = self._make()

    def _make(self) -> tuple[WindowsHpc, ClusterExecutor]:
        path_map = {str(self.shared): SHARE}
        hpc = WindowsHpc(self.fake.url, lambda: self.credentials(), self.fake.ca_file, path_map, deadline=5.0)
        timing: Any = self._timing
        return hpc, ClusterExecutor(
            hpc, Scripts(None, SiteLines()), RunFolders(self.shared / "runs"), PollTiming(**timing)
        )

    async def __aenter__(self) -> HpcScene:
        await self.executor.open(self._listen)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.executor.close()

    async def restart(self, job_id: str = "", *, started: bool = False) -> None:
        """Let another service take over; what the first one told is forgotten."""
        run = self.run
        assert run.allocation is not None, "it is a cluster's"
        await self.executor.close()
        self.updates.clear()
        self.hpc, self.executor = self._make()
        await self.executor.open(self._listen)
        old = OpenRun(run.key, "boot", None, started, scheduler_job_id=job_id, name=run.allocation.name)
        await self.executor.adopt([old])

    # A job -------------------------------------------------------------------------------------------------

    def rules(self, **more: Any) -> Rules:
        """What submits are checked against."""
        given: dict[str, Any] = {
            "releases": (),
            "schedulers": frozenset({"windows_hpc"}),
            "host": Host(8, 1 << 36),
            "clusters": {"windows_hpc": self.hpc},
            "node_releases": {"windows_hpc": on_windows_nodes([SOLVER])},
            "policy": ClusterPolicy(shared_dir=self.shared),
        }
        return Rules(**{**given, **more})

    def prepared(self, project: Path | None = None, **rules: Any) -> RunSpec:
        """Draft a job and work out its run, as the manager does."""
        path = project if project is not None else example_project(self.shared / "it's a board")
        config = job_config_pb2.JobConfig(
            project_path=str(path),
            scheduler="windows_hpc",
            scheduler_options=job_config_pb2.SchedulerOptions(cores_per_node=4),
        )
        asked = jobs_messages_pb2.SubmitJobRequest(config=config, job_id="board")
        job = replace(draft(asked, Principal("ann", Role.USER), self.rules(**rules), Limits()), seq=7)
        return run_spec(job, accepted_config(job.config), self.rules(**rules), {"PATH": "/usr/bin"})

    async def submit(self) -> None:
        """Start the run."""
        self.run = self.prepared()
        await self.executor.start(self.run)

    @property
    def key(self) -> RunKey:
        """Which run."""
        return self.run.key
