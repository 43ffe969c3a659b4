"""PyEDB's own job manager: no-op jobs, two at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path


async def main(projects: list[str], program: str) -> None:
    from pyedb.workflows.job_manager.backend.job_submission import HFSSSimulationConfig  # type: ignore[import-not-found]
    from pyedb.workflows.job_manager.backend.service import JobManager, ResourceLimits  # type: ignore[import-not-found]

    manager = JobManager(ResourceLimits(max_concurrent_jobs=2, max_cpu_percent=1e9, min_memory_gb=0, min_disk_gb=0))
    logging.disable(logging.CRITICAL)  # what it logs at DEBUG would cost it a third
    began = time.perf_counter()
    for number, path in enumerate(projects):
        config = HFSSSimulationConfig(ansys_edt_path=program, project_path=path, jobid=f"j{number}", user="bench")
        await manager.submit_job(config)
    await manager.wait_until_all_done()
    taken = time.perf_counter() - began
    done = sum(job.status.value == "completed" for job in manager.jobs.values())
    assert done == len(projects), f"{done} of {len(projects)} completed"
    print(json.dumps({"rate": done / taken}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_text().splitlines(), sys.argv[2]))
