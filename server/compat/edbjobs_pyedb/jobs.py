"""Jobs as the documented objects: a snapshot of each, and a live view of all."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edbjobs._convert import read
from edbjobs._enums import Word
from edbjobs._models import Job
from edbjobs.v1 import job_pb2, job_state_pb2, jobs_messages_pb2
from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.contract.codec import seconds
from edbjobs_server.gateway.documented.translation import from_job_config
from edbjobs_server.manager.job_manager import JobManager

from edbjobs_pyedb.configuration import HFSSSimulationConfig
from edbjobs_pyedb.embedded import Work
from edbjobs_pyedb.errors import JobManagerError

__all__ = ["JobId", "JobInfo", "JobStatus", "Jobs"]

T = TypeVar("T")
ENDED_LISTED = 1000
OUTPUT_BYTES = 64 * 1024
_ENDED = (job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED)


class JobId(str):
    """Id of a submitted job, a text, that can also be awaited or given to `asyncio.run`; that gives the id itself.

    The documentation awaits a call that has always been synchronous.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, JobId]:
        yield from ()
        return self

    def send(self, value: Any) -> Any:
        """Return the result, as a coroutine that has finished."""
        raise StopIteration(self)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raise the exception, as a coroutine does."""
        raise kind if isinstance(kind, BaseException) else value or kind

    def close(self) -> None:
        """Do nothing: nothing is open."""


class JobStatus(Word):
    """State of a job, in the documented words; no job is ever PENDING."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class JobInfo:
    """A snapshot of a job.

    Attributes
    ----------
    config : HFSSSimulationConfig
        A copy; changing it changes no job.
    status : JobStatus
        A text, equal to its documented word.
    start_time, end_time : datetime, optional
        Local time without a zone, as documented.
    return_code : int, optional
        Exit code, or the signal below zero.
    output, error : str
        The last 64 KiB of stdout and stderr, once it has ended.
    process, local_resources : None
        Always: the solver is no child of this program.
    scheduler_job_id : str, optional
        Id in the cluster.
    priority : int
        Higher first.
    job : edbjobs.Job, optional
        The whole job: uid, reason and message of its end, why it waits, attempts, progress.
    """

    config: HFSSSimulationConfig
    status: JobStatus
    start_time: datetime | None = None
    end_time: datetime | None = None
    return_code: int | None = None
    output: str = ""
    error: str = ""
    process: Any | None = None
    scheduler_job_id: str | None = None
    local_resources: dict[str, Any] | None = None
    priority: int = 0
    job: Job | None = None


def job_info(message: job_pb2.Job) -> JobInfo:
    """Return the documented object of a job, with its output if it has ended."""
    job = read(Job, message)
    outcome, directory = job.outcome, job.attempts[-1].run_directory if job.attempts else ""
    config = from_job_config(accepted_config(message.config.SerializeToString()), job.id, job.user)
    return JobInfo(
        config=HFSSSimulationConfig.of(config),
        status=JobStatus(job.state.value),
        start_time=_naive(job.start_time),
        end_time=_naive(job.end_time),
        return_code=None if outcome is None else outcome.exit_code if outcome.signal is None else -outcome.signal,
        output=_tail(directory, "stdout") if job.ended else "",
        error=_tail(directory, "stderr") if job.ended else "",
        scheduler_job_id=job.scheduler_job_id or None,
        priority=job.priority,
        job=job,
    )


def _naive(time: datetime | None) -> datetime | None:
    return time.astimezone().replace(tzinfo=None) if time is not None else None


def _tail(directory: str, stream: str) -> str:
    """Return the end of an output; empty if there is none: the job never ran, or its folder is gone."""
    if not directory:
        return ""
    try:
        with Path(directory, stream).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - OUTPUT_BYTES))
            return file.read(OUTPUT_BYTES).decode(errors="replace")
    except OSError:
        return ""


class Caller(Protocol):
    """Runs coroutines on the service's loop."""

    @property
    def running(self) -> bool:
        """Whether the service is started."""

    def call(self, work: Work[T], timeout: float | None = None) -> T:
        """Run a coroutine and wait for its result."""


class Jobs(Mapping[str, JobInfo]):
    """Jobs by id, or by uid, as they are now.

    Iteration yields the ids of all live jobs and of the newest 1,000 ended ones, oldest first. An id that was used
    again means its newest job.

    Parameters
    ----------
    caller : Caller
        Runs coroutines on the service's loop.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __getitem__(self, job_id: str) -> JobInfo:
        try:
            message = self._caller.call(partial(_get, job_id=job_id))
        except JobManagerError as error:
            if error.reason == "JOB_NOT_FOUND":
                raise KeyError(job_id) from None
            raise
        return job_info(message)

    def __iter__(self) -> Iterator[str]:
        return iter(self._caller.call(_ids))

    def __len__(self) -> int:
        return len(self._caller.call(_ids))


async def _get(manager: JobManager, job_id: str) -> job_pb2.Job:
    return await manager.get(await manager.ref_of(job_id))


async def _ids(manager: JobManager) -> list[str]:
    # Live jobs first: a job that ends in between is then found twice, not missed.
    live = [(job.create_time, job.id) for job in manager.live_jobs().jobs]
    job_filter = jobs_messages_pb2.JobFilter(states=_ENDED)
    ended = await manager.list_jobs(
        jobs_messages_pb2.ListJobsRequest(
            filter=job_filter,
            page_size=ENDED_LISTED,
            order=jobs_messages_pb2.JOB_ORDER_CREATE_TIME_DESCENDING,
            view=job_pb2.JOB_VIEW_BASIC,
        )
    )
    found = sorted([*live, *((seconds(job.create_time), job.id) for job in ended.jobs)])
    return list(dict.fromkeys(job_id for _, job_id in found))
