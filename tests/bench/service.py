"""The service as it is measured: a process of its own, with solvers that do nothing or only sleep."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edbjobs.v1 import job_config_pb2, resources_service_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from support.service import ServiceProcess

NOOP = "/bin/true"
TESTS = Path(__file__).resolve().parent.parent


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
    script: str = "",
    prelude: str = "",
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[ServiceProcess]:
    """Run the service on a state folder; `script` is what its solver does, else it does nothing."""
    folder.mkdir(exist_ok=True)
    values = {"demo_solver": False, "solvers": [str(solver(folder, script))], "min_disk_gb": 0.0, **settings}
    running = ServiceProcess(folder, **values)
    running.prelude = prelude
    running.environment.update(environment or {})
    running.environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
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
