"""The command line of a solve, for programs that show it or run it themselves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from edbjobs.config import JobConfig, make_job_id, total_cores
from edbjobs_server.config.settings import load_settings
from edbjobs_server.solver import project
from edbjobs_server.solver.command_line import batch_options, command_line, shell_line
from edbjobs_server.solver.environment import environment
from edbjobs_server.solver.releases import UNKNOWN, Release, choose, discover

__all__ = ["ANY", "batch_options", "command", "release_of", "run", "shell_line"]

ANY = Release(UNKNOWN, UNKNOWN, Path("ansysedt"), "any")  # for a command line of which only the arguments are used


def release_of(config: JobConfig) -> Release:
    """Return the solver: the program that is named, unchecked, else one that is installed or configured.

    Raises
    ------
    Refused
        SOLVER_NOT_FOUND.
    """
    if config.aedt_path:
        return Release(UNKNOWN, UNKNOWN, Path(config.aedt_path), "given")
    settings = load_settings()
    return choose(discover(os.environ, settings.solvers, settings.demo_solver), config.aedt_version, "")


def command(config: JobConfig, release: Release, job_id: str | None) -> list[str]:
    """Return the command line of a local run; without `job_id` it gets a new one."""
    project_path = os.path.realpath(config.project_path)
    return command_line(config, release, job_id or make_job_id(), total_cores(config), project_path=project_path)


def run(config: JobConfig, job_id: str | None, **given: Any) -> subprocess.CompletedProcess[Any]:
    """Run a solve and wait for its end; `given` are arguments of `subprocess.run`."""
    found = project.inspect_or_refuse(config.project_path)
    argv = command(config, release_of(config), job_id)
    options: dict[str, Any] = {
        "cwd": found.path.parent,
        "stdin": subprocess.DEVNULL,
        "env": environment(os.environ, config.environment),
        "check": False,
        **given,
    }
    return subprocess.run(argv, **options)
