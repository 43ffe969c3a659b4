"""PyEDB's own job manager: no-op jobs, two at a time; or submits that wait."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any


def make(at_once: int) -> tuple[Any, Any]:
    from pyedb.workflows.job_manager.backend.job_submission import HFSSSimulationConfig
    from pyedb.workflows.job_manager.backend.service import JobManager, ResourceLimits

    limits = ResourceLimits(max_concurrent_jobs=at_once, max_cpu_percent=1e9, min_memory_gb=0, min_disk_gb=0)
    manager = JobManager(limits)
    logging.disable(logging.CRITICAL)  # what it logs at DEBUG would cost it a third
    return manager, HFSSSimulationConfig


async def noop(projects: list[str], program: str) -> dict[str, float]:
    manager, config = make(at_once=2)
    started_at = time.perf_counter()
    for number, path in enumerate(projects):
        await manager.submit_job(config(ansys_edt_path=program, project_path=path, jobid=f"j{number}", user="bench"))
    await manager.wait_until_all_done()
    taken = time.perf_counter() - started_at
    done = sum(job.status.value == "completed" for job in manager.jobs.values())
    assert done == len(projects), f"{done} of {len(projects)} completed"
    return {"rate": done / taken}


async def submit(projects: list[str], program: str) -> dict[str, list[float]]:
    manager, config = make(at_once=0)
    taken = []
    for number, path in enumerate(projects):
        made = config(ansys_edt_path=program, project_path=path, jobid=f"j{number}", user="bench")
        started_at = time.perf_counter()
        await manager.submit_job(made)
        taken.append(time.perf_counter() - started_at)
    return {"seconds": taken}


def main(mode: str, values: dict[str, Any]) -> None:
    print(json.dumps(asyncio.run({"noop": noop, "submit": submit}[mode](values["projects"], values["program"]))))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
