"""Rendering a batch script and running it under plain bash, as a scheduler would."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from edbjobs.config import SchedulerOptions
from edbjobs_server.core.runs import RunKey
from edbjobs_server.executors.base import Allocation, RunSpec
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.cluster.script import Scripts, SiteLines

DEADLINE = 20.0
BEAT = 0.2
SCHEDULERS = ("slurm", "lsf", "pbs")


def until(told: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not told():
        assert time.monotonic() < deadline, f"waited {DEADLINE:g} s in vain: {what}"
        time.sleep(0.02)


@dataclass
class Bench:
    """One run: its folders, what it runs, and what the scheduler tells it."""

    root: Path
    scheduler: str = "slurm"
    program: str = "exit 0"
    arguments: Sequence[str] = ()
    additions: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    site: SiteLines = field(default_factory=SiteLines)
    templates: Path | None = None
    hosts: Sequence[str] = ()
    cores: int = 8
    tasks: int = 2
    gpus: int = 0

    def __post_init__(self) -> None:
        self.folder = self.root / "sha red" / "runs ü" / "7.1"
        self.news = self.root / "sha red" / "news" / "7.1"
        self.cwd = self.root / "project ü 'x'"
        self.tools = self.root / "tools"
        self.nodefile = self.root / "nodefile"
        for place in (self.cwd, self.news.parent, self.tools):
            place.mkdir(parents=True, exist_ok=True)
        self.tool("scontrol", 'tr " " "\\n" <<<"$EDB_TEST_HOSTS"')
        for name in ("srun", "blaunch", "pbsdsh"):
            self.tool(name, f'echo "{name} $*" >>{self.root}/everywhere')
        self.argv0 = self.tool("ansys edt", self.program)

    def tool(self, name: str, text: str) -> Path:
        path = self.tools / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def spec(self) -> RunSpec:
        allocation = Allocation(
            name="edb-j1-0123456789abcdef-1",
            comment="edbjobs:u:somebody",
            nodes=max(1, len(self.hosts)),
            tasks_per_node=self.tasks,
            cores_per_node=self.cores,
            options=SchedulerOptions(gpus_per_node=self.gpus),
        )
        return RunSpec(
            RunKey(7, "u7", 1),
            [str(self.argv0), *self.arguments],
            str(self.cwd),
            self.env,
            additions=self.additions,
            allocation=allocation,
        )

    def text(self, directives: Sequence[str] = ("--nodes=1",)) -> str:
        scripts = Scripts(self.templates, self.site, beat=BEAT)
        return scripts.render(f"{self.scheduler}.sh.j2", self.spec(), directives, str(self.folder), str(self.news))

    def environment(self, job: str = "41", restart: int = 0) -> dict[str, str]:
        """Give what the scheduler sets; LC_ALL=C is what the submitting command leaves."""
        hosts = [*self.hosts] or ["n1"]
        self.nodefile.write_text("".join(f"{host}\n" * self.tasks for host in hosts))
        told = {
            "slurm": {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restart), "SLURM_JOB_NODELIST": "n[1-4]"},
            "lsf": {"LSB_JOBID": job, "LSB_MCPU_HOSTS": " ".join(f"{host} {self.cores}" for host in hosts)},
            "pbs": {"PBS_JOBID": job, "PBS_NODEFILE": str(self.nodefile)},
        }[self.scheduler]
        if self.scheduler == "lsf" and restart:
            told["LSB_RESTART"] = "Y"
        path = f"{self.tools}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.root), "LC_ALL": "C", "EDB_TEST_HOSTS": " ".join(hosts), **told}

    @contextmanager
    def started(self, job: str = "41", restart: int = 0) -> Iterator[subprocess.Popen[str]]:
        """Run the script in a session of its own; whatever is left of the session is killed at the end."""
        script = record.prepare(self.folder, self.text())
        child = subprocess.Popen(
            ["bash", str(script)],
            env=self.environment(job, restart),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # As nodes start scripts: what runs the tests in the background may ignore SIGINT, which no shell undoes.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            yield child
        finally:
            for pid in session(child.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            child.communicate(timeout=DEADLINE)

    def run(self, job: str = "41", restart: int = 0) -> tuple[int, str]:
        """Run the script to its end; gives its exit code and its stderr."""
        with self.started(job, restart) as child:
            _, err = child.communicate(timeout=DEADLINE)
            return child.returncode, err

    def shown(self) -> list[str]:
        """Run the script to its end, which must be a success; gives the lines that the program printed."""
        code, err = self.run()
        assert code == 0, err
        return (self.folder / "stdout").read_text().splitlines()

    def read(self) -> record.Record:
        return record.read(self.folder)

    def wait_start(self) -> record.Start:
        until(lambda: self.read().start is not None, "its start is told")
        start = self.read().start
        assert start is not None
        return start

    def but(self, **fields: object) -> Bench:
        return replace(self, **fields)  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def members(group: int) -> list[int]:
    """Give the processes of a group that are no zombies."""
    return _having(2, group)


def session(leader: int) -> list[int]:
    """Give the processes of a session that are no zombies."""
    return _having(3, leader)


def _having(field: int, number: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[field]) == number and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
