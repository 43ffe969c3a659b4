"""Output of a run by attempt and offset, followed to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edbjobs.v1 import job_pb2, jobs_messages_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.batch_log import find_log, job_name
from edbjobs_server.util import files
from edbjobs_server.util.files import GrowingFile, is_transient, text_of
from edbjobs_server.util.path_workers import PathWorkers

_FILES = {
    jobs_messages_pb2.LOG_STREAM_STDOUT: ("stdout",),
    jobs_messages_pb2.LOG_STREAM_STDERR: ("stderr",),
    jobs_messages_pb2.LOG_STREAM_SCRIPT: ("script", "script.ps1"),
}
_SOLVER = (jobs_messages_pb2.LOG_STREAM_UNSPECIFIED, jobs_messages_pb2.LOG_STREAM_SOLVER)
CHUNK = 65_536
POLL_SECONDS = 0.25
KEEPALIVE_SECONDS = 15.0
UNREACHABLE_SECONDS = 30.0  # a followed file may be unreachable for so long


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of an output; if empty, whether there can be more.

    Attributes
    ----------
    data : bytes
        Empty: no new output.
    offset : int
        Offset of the first byte, or of the next one.
    attempt : int
        Attempt of the output.
    ended : bool
        Whether the attempt had ended before the file was read: no more output follows.
    cut : bool
        Whether the file was truncated or replaced since the last piece; without following it the two do not join.
    """

    data: bytes
    offset: int
    attempt: int
    ended: bool
    cut: bool = False


async def read_log(
    request: jobs_messages_pb2.ReadLogRequest,
    get: Callable[[], Awaitable[job_pb2.Job]],
    paths: PathWorkers,
    project_path: str,
) -> AsyncIterator[jobs_messages_pb2.ReadLogResponse]:
    """Yield the bytes of an output, in order, each once; while nothing is written, empty keepalive messages.

    A file that is truncated or replaced while it is followed is sent from its start: the offset goes back to 0.

    Parameters
    ----------
    request : ReadLogRequest
        Offset (negative: from the present end), number of bytes, and whether to follow.
    get : callable
        Returns the job as it is now; called again while following.
    paths : PathWorkers
        Threads for the file work.
    project_path : str
        Real path of the job's project.

    Raises
    ------
    Refused
        ATTEMPT_NOT_FOUND, OFFSET_BEYOND_END, LOG_NOT_FOUND or PATH_UNREACHABLE; INVALID_REQUEST.
    """
    _require_size(request)
    output = Output(request, project_path)
    job = await get()
    sent = time.monotonic()
    while True:
        # The job is read before the file, so that no output written before its end is missed.
        piece = await paths.run(partial(output.read, job), output.source)
        message = jobs_messages_pb2.ReadLogResponse(
            data=piece.data, offset=piece.offset, uid=job.uid, attempt=piece.attempt
        )
        if output.left == 0:
            yield message
            return
        if piece.data:
            sent = time.monotonic()
            yield message
            continue
        if piece.ended or piece.cut or not request.follow:
            message.eof = piece.ended and not piece.cut
            yield message
            return
        if time.monotonic() - sent >= KEEPALIVE_SECONDS:
            sent = time.monotonic()
            yield message
        await asyncio.sleep(POLL_SECONDS)
        job = await get()


class Output:
    """One output of one attempt, and how far it has been read; its methods block on the file system.

    Parameters
    ----------
    request : ReadLogRequest
        Of the client; its attempt defaults to the last one at the time of the first read.
    project_path : str
        Real path of the job's project.
    """

    def __init__(self, request: jobs_messages_pb2.ReadLogRequest, project_path: str) -> None:
        self._request = request
        self._project = project_path
        self._attempt = request.attempt if request.HasField("attempt") else None
        self._file: GrowingFile | None = None
        self._sent = False
        self._unreachable_since: float | None = None
        self.left = request.max_bytes if request.HasField("max_bytes") else None

    @property
    def source(self) -> str:
        """The file that is read, for error messages."""
        return str(self._file.path) if self._file is not None else "the run's output"

    def read(self, job: job_pb2.Job) -> Piece:
        """Return the next bytes.

        Raises
        ------
        Refused
            As of `read_log`.
        """
        if self._attempt is None:
            self._attempt = job.attempt_count or 1  # until the first one starts, it is waited for
        if self._awaits(job):
            return Piece(b"", max(0, self._request.offset), self._attempt, ended=False)
        attempt = next((item for item in job.attempts if item.number == self._attempt), None)
        # Of attempts in a row that never ran, only the latest stay on record.
        ended = attempt is None or attempt.HasField("end_time")
        try:
            piece = self._read(job, ended)
        except OSError as error:
            self._wait_or_refuse(error, ended)
            return Piece(b"", self._file.offset if self._file else 0, self._attempt, ended=False)
        self._unreachable_since = None
        self._sent = self._sent or bool(piece.data)
        if self.left is not None:
            self.left -= len(piece.data)
        return piece

    def _awaits(self, job: job_pb2.Job) -> bool:
        """Return whether the attempt may still start; refuse one that the job does not have."""
        if self._attempt is not None and 1 <= self._attempt <= job.attempt_count:
            return False
        if self._request.follow and self._attempt == job.attempt_count + 1 and not job.HasField("end_time"):
            return True
        what = f"its last one is {job.attempt_count}" if job.attempt_count else "none has started"
        raise Refused(
            "ATTEMPT_NOT_FOUND",
            f"job {job.id} has no attempt {self._attempt}: {what}",
            metadata={"attempt_count": str(job.attempt_count)},
        )

    def _read(self, job: job_pb2.Job, ended: bool) -> Piece:
        assert self._attempt is not None, "it was chosen before"
        path = self._path(job)
        if self._file is None:
            self._file = GrowingFile(path, self._first_offset(path, ended))
        elif self._file.path != path:  # until the log exists, it may get either of two names
            self._file = GrowingFile(path, 0 if self._sent else self._file.offset)
        file = self._file
        data = file.read(CHUNK if self.left is None else min(CHUNK, self.left))
        start = file.offset - len(data)
        if file.restarted and not self._request.follow:
            return Piece(b"", start, self._attempt, ended, cut=True)
        return Piece(data, start, self._attempt, ended)

    def _path(self, job: job_pb2.Job) -> Path:
        """Return the path of the output; run folders are named after the job's number."""
        last = Path(job.attempts[-1].run_directory)
        seq = last.name.partition(".")[0]
        assert self._attempt is not None, "it was chosen before"
        if self._request.stream in _SOLVER:
            return find_log(self._project, job_name(self._project, job.id, int(seq), self._attempt))
        paths = [last.with_name(f"{seq}.{self._attempt}") / name for name in _FILES[self._request.stream]]
        return next((path for path in paths if files.mode_of(path) is not None), paths[0])

    def _first_offset(self, path: Path, ended: bool) -> int:
        offset, follow = self._request.offset, self._request.follow
        found = files.status_of(path)
        if found is None and (ended or not follow):
            raise Refused("LOG_NOT_FOUND", f"attempt {self._attempt} has no such output: {path} does not exist")
        size = found.st_size if found is not None else 0
        if offset < 0:
            return max(0, size + offset)
        if offset > size and found is not None:
            text = f"offset {offset} lies beyond the end, {size}"
            raise Refused("OFFSET_BEYOND_END", text, metadata={"size_bytes": str(size)})
        return offset

    def _wait_or_refuse(self, error: OSError, ended: bool) -> None:
        """Raise for a file that cannot be read; a followed one may become reachable again."""
        where = str(error.filename or "the output")
        if not is_transient(error):
            raise Refused("LOG_NOT_FOUND", f"{where} cannot be read: {text_of(error)}") from error
        now = time.monotonic()
        self._unreachable_since = self._unreachable_since or now
        if not self._request.follow or now - self._unreachable_since >= UNREACHABLE_SECONDS:
            raise Refused("PATH_UNREACHABLE", f"{where} cannot be read now: {text_of(error)}; try again") from error


def _require_size(request: jobs_messages_pb2.ReadLogRequest) -> None:
    if request.max_bytes < 0:
        what = "expected a number that is not negative"
        raise Refused("INVALID_REQUEST", f"max_bytes: {what}", fields={"max_bytes": what})
