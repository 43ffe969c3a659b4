"""What tests of the façade share: a private state folder, projects, and programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edbjobs_pyedb.configuration import HFSSSimulationConfig
from edbjobs_server.solver.demo import example_project

ROOT = Path(__file__).resolve().parents[2]
BACKEND = "pyedb.workflows.job_manager.backend"


def environment(state: Path, **more: str) -> dict[str, str]:
    """Return the environment of a program with a private state folder and the demo solver."""
    found = {"EDBJOBS_STATE_DIR": str(state), "EDBJOBS_DEMO_SOLVER": "1", **more}
    return {**os.environ, **found}


def program(state: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(state, **more),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=state,
        stdin=subprocess.DEVNULL,
    )


def config(folder: Path, seconds: float = 0.2, **more: Any) -> HFSSSimulationConfig:
    """Make the configuration of a solve with a project of its own."""
    demo = {"ANS_EDBJOBS_DEMO": f"seconds={seconds}"}
    return HFSSSimulationConfig.from_dict(
        {"project_path": str(example_project(folder)), "environment": demo, "cancel_grace": 1.0, **more}
    )
