"""A process that writes to a store and tells on standard output what was acknowledged.

``python -m support.store_child FOLDER CALLERS``: each of so many callers inserts jobs and ends them, forever.
A line ``ok UID REVISION STATE`` is written after each answer, ``no REASON`` after each refusal, ``reset REVISION``
when the store read its state again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.states import EventType, State
from edbjobs_server.store import Store, Transaction

from support.store_jobs import config_of, new_job


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def insert(tx: Transaction, job: Job) -> Job:
    return tx.insert(job, EventType.JOB_QUEUED)


def end(tx: Transaction, uid: str) -> Job:
    job = tx.job(uid)
    return tx.put(replace(job, state=State.COMPLETED, end_time=tx.now), EventType.JOB_COMPLETED)


async def call(store: Store, caller: int) -> None:
    config = config_of(environment={"ANS_PAD": "x" * 500})
    for number in range(1_000_000):
        uid = f"{os.getpid()}-{caller}-{number}"
        job = new_job(config, uid=uid, id=uid, request_id=uid)
        for command in (partial(insert, job=job), partial(end, uid=uid)):
            try:
                made = await store.write(command)
            except Refused as refused:
                say(f"no {refused.reason}")
                await asyncio.sleep(0.01)
                break
            say(f"ok {uid} {made.revision} {int(made.state)}")


async def main() -> None:
    store = Store.open(Path(sys.argv[1]))
    store.start(asyncio.get_running_loop(), lambda _: None, lambda snapshot: say(f"reset {snapshot.revision}"))
    say("open")
    await asyncio.gather(*[call(store, caller) for caller in range(int(sys.argv[2]))])


asyncio.run(main())
