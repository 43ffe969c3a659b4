"""Reading the output of a run by attempt and offset, and following it to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edbjobs.v1 import job_pb2, jobs_messages_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.log import find_log
from edbjobs_server.util.path_workers import PathWorkers

_FILES = {
    jobs_messages_pb2.LOG_STREAM_UNSPECIFIED: ("stdout",),
    jobs_messages_pb2.LOG_STREAM_STDOUT: ("stdout",),
    jobs_messages_pb2.LOG_STREAM_STDERR: ("stderr",),
    jobs_messages_pb2.LOG_STREAM_SCRIPT: ("script", "script.ps1"),
}
CHUNK = 65_536
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Output:
    """One output file of an attempt, and whether the attempt has ended."""

    path: Path | None
    attempt: int
    ended: bool


async def tail(
    request: jobs_messages_pb2.TailLogRequest, get: Callable[[], Awaitable[job_pb2.Job]], paths: PathWorkers
) -> AsyncIterator[jobs_messages_pb2.TailLogResponse]:
    """Send bytes of an output, in order, each once.

    Parameters
    ----------
    request : TailLogRequest
        Offset (negative: from the present end), limit, and whether to follow.
    get : callable
        Gives the job as it is now; asked again while following.
    paths : PathWorkers
        Threads for the file work.

    Raises
    ------
    Refused
        OFFSET_BEYOND_END, LOG_NOT_FOUND or PATH_UNREACHABLE.
    """
    left = request.limit if request.limit > 0 else None
    found = await paths.run(partial(_output, await get(), request), "the run's folder")
    offset = await paths.run(partial(_first_offset, found, request), str(found.path))
    while True:
        # `ended` is looked at before reading, so that nothing written before the end is missed.
        data = await paths.run(partial(_read, found, offset, left), str(found.path))
        if data:
            yield jobs_messages_pb2.TailLogResponse(data=data, offset=offset, attempt=found.attempt)
            offset += len(data)
            left = None if left is None else left - len(data)
            if left == 0:
                return
            continue
        if found.ended or not request.follow:
            yield jobs_messages_pb2.TailLogResponse(offset=offset, attempt=found.attempt, eof=found.ended)
            return
        await asyncio.sleep(POLL_SECONDS)
        job = await get()
        found = await paths.run(partial(_output, job, request), "the run's folder")


def _output(job: job_pb2.Job, request: jobs_messages_pb2.TailLogRequest) -> Output:
    """Find an output; its place is told by the number of the job, which names its run folders."""
    number = request.attempt or job.attempt
    if not job.attempt and job.end_time.ByteSize():
        raise Refused("LOG_NOT_FOUND", f"job {job.id} ended before it started; it has no output")
    if request.attempt and not 0 < number <= job.attempt:
        raise Refused("LOG_NOT_FOUND", f"job {job.id} has no attempt {number}; its last is {job.attempt}")
    if not job.attempt:
        return Output(None, 0, ended=False)
    attempt = next((item for item in job.attempts if item.number == number), None)
    ended = attempt is not None and attempt.HasField("end_time")
    last = Path(job.run_directory)
    seq = last.name.partition(".")[0]
    folder = last.with_name(f"{seq}.{number}")
    if request.stream == jobs_messages_pb2.LOG_STREAM_SOLVER:
        return Output(find_log(Path(job.config.project_path), f"{job.id}-{seq}-{number}"), number, ended)
    names = _FILES.get(request.stream)
    if names is None:
        raise Refused("LOG_NOT_FOUND", f"this release knows no output of the kind {request.stream}")
    files = [folder / name for name in names]
    return Output(next((file for file in files if file.exists()), files[0]), number, ended)


def _first_offset(found: Output, request: jobs_messages_pb2.TailLogRequest) -> int:
    size = _size(found)
    if size is None and (found.ended or not request.follow):
        raise Refused("LOG_NOT_FOUND", f"attempt {found.attempt} has no such output" + _where(found))
    size = size or 0
    if request.offset < 0:
        return max(0, size + request.offset)
    if request.offset > size and not request.follow:
        raise Refused(
            "OFFSET_BEYOND_END",
            f"offset {request.offset} lies beyond the end, {size}",
            metadata={"size": str(size)},
        )
    return request.offset


def _where(found: Output) -> str:
    return f": {found.path} does not exist" if found.path is not None else ""


def _size(found: Output) -> int | None:
    if found.path is None:
        return None
    try:
        return os.stat(found.path).st_size
    except FileNotFoundError:
        return None


def _read(found: Output, offset: int, left: int | None) -> bytes:
    if found.path is None:
        return b""
    try:
        with open(found.path, "rb") as file:
            file.seek(offset)
            return file.read(CHUNK if left is None else min(CHUNK, left))
    except FileNotFoundError:
        return b""
