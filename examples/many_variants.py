"""Submit many variants in one call, run the last one first, and print every event as it happens."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edbjobs import Client
from edbjobs_server.solver.demo import example_project

BATCH = "variants"
folder = Path(tempfile.mkdtemp(prefix="edbjobs-"))
projects = [Path(name) for name in sys.argv[1:]]
if not projects:
    projects = [example_project(folder / f"v{number}", "via_transition") for number in range(4)]

with Client() as client:
    before = client.snapshot()  # a watch from its position misses no event
    results = client.submit_many(projects, batch=BATCH, labels={"study": "via"}, hold=True)
    for project, result in zip(projects, results, strict=True):
        if result.error is not None:
            print(f"{project}: {result.error}")
    waiting = {result.job.uid for result in results if result.job is not None}
    if results[-1].job is not None:  # all are still held, so that none has started
        client.set_priority(results[-1].job.uid, 10)
    for uid in waiting:
        client.release(uid)
    for event in client.watch(after=before.position, batches=[BATCH]) if waiting else ():
        if event.job_change is None or event.job is None or event.job.uid not in waiting:
            continue
        message = event.job.outcome.message if event.job.outcome is not None else ""
        print(f"{event.revision:6} {event.job_change.type!s:16} {event.job.id} {message}")
        if event.job.ended:
            waiting.remove(event.job.uid)
        if not waiting:
            break
