"""Jobs as the service makes them, and a store that is started, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from edbjobs.v1 import job_config_pb2
from edbjobs_server.contract.codec import spec_from_config, summary_of
from edbjobs_server.core.job import Job
from edbjobs_server.store import Committed, Snapshot, Store

_NUMBERS = count(1)


def config_of(**values: Any) -> job_config_pb2.JobConfig:
    values.setdefault("project_path", "/projects/board.aedb")
    return job_config_pb2.JobConfig(**values)


def new_job(config: job_config_pb2.JobConfig | None = None, **values: Any) -> Job:
    """Make a job that is not accepted yet; its uid and id are new."""
    number = next(_NUMBERS)
    config = config if config is not None else config_of()
    values.setdefault("uid", f"uid-{number}")
    values.setdefault("id", f"job-{number}")
    values.setdefault("create_time", 1_700_000_000.0 + number)
    spec = spec_from_config(
        config,
        project_path=config.project_path,
        project_key=config.project_path,
        scheduler="local",
        cores=config.cores or 1,
        memory_bytes=config.memory_bytes,
    )
    data = config.SerializeToString(deterministic=True)
    return Job(seq=0, spec=spec, config=data, summary=summary_of(config), **values)


@dataclass
class Heard:
    """What a store told its owner."""

    commits: list[list[Committed]] = field(default_factory=list)
    resets: list[Snapshot] = field(default_factory=list)

    @property
    def events(self) -> list[Committed]:
        return [item for batch in self.commits for item in batch]

    def on_commit(self, batch: Sequence[Committed]) -> None:
        self.commits.append(list(batch))


@asynccontextmanager
async def started_store(folder: Path) -> AsyncIterator[tuple[Store, Heard]]:
    """Open a store, start it, and close it."""
    store = Store.open(folder)
    heard = Heard()
    store.start(asyncio.get_running_loop(), heard.on_commit, heard.resets.append)
    try:
        yield store, heard
    finally:
        await store.close()
