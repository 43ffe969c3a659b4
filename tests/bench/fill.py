"""Large stores, filled through the store's own transactions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from edbjobs.v1 import job_config_pb2
from edbjobs_server.contract.codec import spec_from_config, summary_of
from edbjobs_server.core.job import Attempt, Job, Outcome
from edbjobs_server.core.states import EventType, Evidence, Reason, State
from edbjobs_server.store import Store, Transaction

_PART = 2_000
_PROJECTS = 1_000


def fill_ended(state_dir: Path, number: int) -> None:
    """Make a store with so many jobs that have ended."""
    fill(state_dir, ended=number)


def fill(state_dir: Path, *, ended: int = 0, queued: int = 0) -> None:
    """Make a store with so many jobs that have ended, then so many that wait."""
    asyncio.run(_fill(state_dir, ended, queued))


async def _fill(state_dir: Path, ended: int, queued: int) -> None:
    store = Store.open(state_dir)
    store.start(asyncio.get_running_loop(), lambda batch: None, lambda snapshot: None)
    done = [_ended_job(i) for i in range(_PROJECTS)]
    waiting = [_queued_job(job) for job in done]
    try:
        for numbers in _parts(0, ended):
            insert = partial(_insert, kinds=done, event=EventType.JOB_COMPLETED, numbers=numbers)
            await store.write(insert)
        for numbers in _parts(ended, ended + queued):
            insert = partial(_insert, kinds=waiting, event=EventType.JOB_QUEUED, numbers=numbers)
            await store.write(insert)
    finally:
        await store.close()


def _parts(first: int, end: int) -> list[range]:
    return [range(start, min(start + _PART, end)) for start in range(first, end, _PART)]


def _insert(tx: Transaction, kinds: list[Job], event: EventType, numbers: range) -> None:
    for number in numbers:
        job = replace(kinds[number % _PROJECTS], uid=f"{number:032x}", id=f"job-{number}")
        tx.insert(job, event)


def _queued_job(ended: Job) -> Job:
    """Make the same job before its first start."""
    return replace(ended, state=State.QUEUED, attempts=(), start_time=None, end_time=None, outcome=None)


def _ended_job(number: int) -> Job:
    now = time.time()
    path = f"/projects/board{number}.aedb"
    config = job_config_pb2.JobConfig(project_path=path, design="Board", setup="Setup1", batch=f"batch{number % 10}")
    spec = spec_from_config(
        config, project_path=path, project_key=path.removesuffix(".aedb"), scheduler="local", cores=4, memory_bytes=0
    )
    outcome = Outcome(
        Reason.NORMAL, Evidence.SOLVER_LOG, "Setup1: normal completion after 6 adaptive passes", exit_code=0
    )
    attempt = Attempt(
        1,
        now - 60,
        start_time=now - 60,
        end_time=now,
        nodes=("host",),
        pid=4711,
        outcome=outcome,
        run_directory=f"/state/runs/000000/{number}.1",
    )
    return Job(
        uid="",
        seq=0,
        id="",
        spec=spec,
        create_time=now - 3600,
        config=config.SerializeToString(deterministic=True),
        summary=summary_of(config),
        digest=bytes(16),
        user=f"user{number % 5}",
        state=State.COMPLETED,
        attempts=(attempt,),
        start_time=now - 60,
        end_time=now,
        outcome=outcome,
        aedt_version="2025.2",
    )
