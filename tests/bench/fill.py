"""Large stores, filled through the store's own transactions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from edbjobs.v1 import job_config_pb2
from edbjobs_server.codec import spec_from_config
from edbjobs_server.core.job import Attempt, Job
from edbjobs_server.core.states import EventType, Evidence, Reason, State
from edbjobs_server.store import Store, Transaction

_PART = 2_000
_PROJECTS = 1_000


def fill_ended(state_dir: Path, number: int) -> None:
    """Make a store with so many jobs that have ended."""
    asyncio.run(_fill(state_dir, number))


async def _fill(state_dir: Path, number: int) -> None:
    store = Store.open(state_dir)
    store.start(asyncio.get_running_loop(), lambda batch: None, lambda snapshot: None)
    kinds = [_ended_job(i) for i in range(_PROJECTS)]
    try:
        for start in range(0, number, _PART):
            await store.write(partial(_insert, kinds=kinds, numbers=range(start, min(start + _PART, number))))
    finally:
        await store.close()


def _insert(tx: Transaction, kinds: list[Job], numbers: range) -> None:
    for number in numbers:
        job = replace(kinds[number % _PROJECTS], uid=f"{number:032x}", id=f"job-{number}")
        tx.insert(job, EventType.JOB_COMPLETED)


def _ended_job(number: int) -> Job:
    now = time.time()
    path = f"/projects/board{number}.aedb"
    config = job_config_pb2.JobConfig(project_path=path, setup_name="Setup1", batch=f"batch{number % 10}")
    spec = spec_from_config(
        config, project_path=path, project_key=path.removesuffix(".aedb"), executor="local", cores=4, memory_mib=0
    )
    attempt = Attempt(
        1, now - 60, start_time=now - 60, end_time=now, nodes=("host",), pid=4711, reason=Reason.NORMAL, exit_code=0
    )
    return Job(
        uid="",
        seq=0,
        id="",
        spec=spec,
        create_time=now - 3600,
        config=config.SerializeToString(deterministic=True),
        digest=bytes(16),
        user=f"user{number % 5}",
        state=State.COMPLETED,
        attempts=(attempt,),
        start_time=now - 60,
        end_time=now,
        reason=Reason.NORMAL,
        exit_code=0,
        evidence=Evidence.SOLVER_LOG,
        message="Setup1: normal completion after 6 adaptive passes",
        solver_version="2025.2",
        run_directory=f"/state/runs/000000/{number}.1",
    )
