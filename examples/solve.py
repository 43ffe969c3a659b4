"""Solve one project and print the evidence for its result."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edbjobs import Client
from edbjobs_server.solver.demo import example_project

project = Path(sys.argv[1]) if len(sys.argv) > 1 else example_project(Path(tempfile.mkdtemp(prefix="edbjobs-")))

with Client() as client:
    print(client.preview(project, cores=2).command_line)
    job = client.submit(project, cores=2)
    print(f"{job.id}: accepted, stored on the service's disk")
    job = client.wait(job.uid, progress=True)
    if (how := job.outcome) is not None:
        print(f"{job.id}: {job.state}, {how.reason}, evidence {how.evidence}: {how.message}")
