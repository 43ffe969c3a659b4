"""The service as it is measured: a process of its own, with solvers that do nothing or only sleep."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from edbjobs.v1 import job_config_pb2, resources_service_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs_server.telemetry.run_usage import tree_times
from support.service import ServiceProcess

NOOP = "/bin/true"
TESTS = Path(__file__).resolve().parent.parent


class MeasuredService(ServiceProcess):
    """A service of this checkout, or of another one, which is started as a user starts it.

    Parameters
    ----------
    folder : Path
        Gets state and runtime folder.
    tree : Path or None
        The other checkout.
    **settings
        Settings by name.
    """

    def __init__(self, folder: Path, tree: Path | None = None, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.tree = tree
        sources = [TESTS, *sys.path] if tree is None else [tree / "client" / "python", tree / "server"]
        self.environment["PYTHONPATH"] = os.pathsep.join(map(str, sources))

    def command(self) -> list[str]:
        """Return the command line of the process."""
        if self.tree is None:
            return super().command()
        config = self.folder / "settings.toml"
        config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in self.settings.items()))
        installed = self.tree / ".venv" / "bin" / "edbjobs"
        program = [str(installed)] if installed.exists() else [sys.executable, "-m", "edbjobs"]
        places = ["--state-dir", str(self.state_dir), "--ready-file", str(self.ready_file)]
        return [*program, "serve", "--config", str(config), *places]

    def spent(self) -> float:
        """Return the processor time of the service, its launcher and all their descendants, ended ones too, in s."""
        return sum(tree_times(self._roots()).values())

    def processes(self) -> list[psutil.Process]:
        """Return the service, its launcher, the supervisors and the solvers."""
        found: dict[int, psutil.Process] = {}
        for pid in self._roots():
            root = psutil.Process(pid)
            found.update((item.pid, item) for item in (root, *root.children(recursive=True)))
        return list(found.values())

    def _roots(self) -> set[int]:
        """Return the service, and what has detached itself from it: it has a file of the service's folder open."""
        assert self.process is not None
        others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
        return {self.process.pid, *(pid for pid in others if _has_open(pid, f"{self.folder}/"))}


def _has_open(pid: int, folder: str) -> bool:
    try:
        files = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:  # it has ended, or closes one just now
        return False
    return any(file.startswith(folder) for file in files)


def solver(folder: Path, script: str = "") -> Path:
    """Make a program that stands where AEDT would: it does nothing, or what a shell script says."""
    path = folder / "v252" / "Linux64" / "ansysedt"
    path.parent.mkdir(parents=True)
    if script:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    else:
        path.symlink_to(NOOP)
    return path


@contextmanager
def service(
    folder: Path,
    *,
    tree: Path | None = None,
    script: str = "",
    prelude: str = "",
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[MeasuredService]:
    """Run the service on a state folder; `script` is what its solver does, else it does nothing."""
    folder.mkdir(exist_ok=True)
    values = {"demo_solver": False, "solvers": [str(solver(folder, script))], **settings}
    running = MeasuredService(folder, tree, **values)
    running.prelude = prelude
    running.environment.update(environment or {})
    with running:
        yield running


def projects(folder: Path, number: int) -> list[Path]:
    """Make projects, one for each job: two jobs never run on the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i}.aedt" for i in range(number)]
    for path in paths:
        path.touch()
    return paths


def request(project: Path, **values: Any) -> pb.SubmitJobRequest:
    """Make a submit as clients send it."""
    return pb.SubmitJobRequest(config=job_config_pb2.JobConfig(project_path=str(project)), **values)


def pause(running: ServiceProcess) -> None:
    """Let nothing start, so that only submits are measured."""
    running.resources.PauseQueue(resources_service_pb2.PauseQueueRequest())
