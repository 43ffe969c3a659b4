"""Let the demo solver fail in several failures, and print how the service reports each failure."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edbjobs import Client
from edbjobs_server.solver.demo import example_project

FAILURES = ("license", "engine", "sweep", "cut", "nothing", "nolog", "exit", "killed", "convergence", "")
folder = Path(tempfile.mkdtemp(prefix="edbjobs-"))

with Client() as client:
    jobs = {
        failure: client.submit(
            example_project(folder / (failure or "none")),
            environment={"ANS_EDBJOBS_DEMO": f"seconds=0.3,fail={failure}"},
        )
        for failure in FAILURES
    }
    for failure, job in jobs.items():
        ended = client.wait(job.uid)
        if (how := ended.outcome) is not None:
            print(f"{failure or '(none)':12} {ended.state!s:10} {how.reason!s:15} {how.evidence!s:11} {how.message}")
