"""Run two solves concurrently with asyncio, and follow the solver's log of the first."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from edbjobs import AsyncClient, Job
from edbjobs_server.solver.demo import example_project


async def follow(client: AsyncClient, job: Job) -> None:
    async for text in client.logs(job.uid, stream="solver", follow=True, text=True):
        for line in text.splitlines():
            if "[CONVERGE]" in line:
                print(f"{job.id}: {line.partition('[CONVERGE] ')[2]}")


async def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="edbjobs-"))
    projects = [Path(name) for name in sys.argv[1:]]
    if not projects:
        projects = [example_project(folder), example_project(folder, "via_transition")]
    async with AsyncClient() as client:
        jobs = await asyncio.gather(*(client.submit(project) for project in projects))
        ended = await asyncio.gather(*(client.wait(job.uid) for job in jobs), follow(client, jobs[0]))
        for job in ended:
            if job is not None and job.outcome is not None:
                print(f"{job.id}: {job.state}, {job.outcome.message}")


asyncio.run(main())
