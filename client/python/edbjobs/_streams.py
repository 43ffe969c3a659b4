"""Position of a stream, and how it is resumed after a failure. Used by both clients; no I/O here."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from edbjobs import _models as m
from edbjobs._calls import Call, JobFilter, Named, job_filter, wait
from edbjobs._convert import read
from edbjobs._enums import LogStream, to_number
from edbjobs._exceptions import (
    BusyError,
    ConnectError,
    DeadlineError,
    EdbJobsError,
    NotEdbJobsError,
    ServiceError,
    VersionError,
)
from edbjobs._wait_timeout import WaitTimeoutError
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1.job_ref_pb2 import JobRef

__all__ = ["LogCursor", "RetryDelay", "WaitLoop", "WatchCursor", "make_decoder", "wait_loop"]

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0


@dataclass
class RetryDelay:
    """Delay between retries while the service is unreachable, for example during a restart.

    Parameters
    ----------
    limit : float
        Longest time of retries, seconds, counted from the first of consecutive failures.
    """

    limit: float
    _since: float | None = None
    _delay: float = FIRST_DELAY

    def success(self) -> None:
        """Reset the delay after an answer of the service."""
        self._since, self._delay = None, FIRST_DELAY

    def delay(self, error: EdbJobsError, answered: bool) -> float:
        """Return the seconds to wait before the next try, or raise the error.

        It is raised at once if the service has never answered: the address is probably wrong.
        """
        if not answered or not _is_transient(error):
            raise error
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self.limit:
            raise error
        delay, self._delay = self._delay, min(2 * self._delay, LONGEST_DELAY)
        return delay


def _is_transient(error: EdbJobsError) -> bool:
    if isinstance(error, (NotEdbJobsError, VersionError)):
        return False
    # CANCELLED, INTERNAL and UNKNOWN without details: the stream failed together with its connection.
    broken = type(error) is ServiceError and not error.reason
    return broken or isinstance(error, (ConnectError, DeadlineError, BusyError))


@dataclass
class WatchCursor:
    """Position in the sequence of changes: every change once, in order, across any number of connections."""

    given: JobFilter
    after: m.Position | None = None
    from_oldest: bool = False
    include_updates: bool = False
    include_service_changes: bool = False

    def request(self) -> pb.WatchJobsRequest:
        """Build the request for the changes after the last position that was received."""
        request = pb.WatchJobsRequest(
            from_oldest=self.from_oldest and self.after is None,
            filter=job_filter(self.given),
            include_updates=self.include_updates,
            include_service_changes=self.include_service_changes,
        )
        if self.after is not None:
            request.after.revision, request.after.store_id = self.after.revision, self.after.store_id
        return request

    def accept(self, message: pb.WatchJobsResponse) -> Iterator[m.WatchEvent | m.JobUpdate]:
        """Process one message: yield its new changes, then its updates; the position is that of what was yielded."""
        store_id, left = message.position.store_id, frozenset(message.left_uids)
        last = {event.job_change.job.uid: event.revision for event in message.events}
        for event in message.events:
            if self.after is not None and event.revision <= self.after.revision:
                continue
            uid = event.job_change.job.uid
            found = read(m.WatchEvent, event)
            if found.job_change is not None and uid in left and last[uid] == event.revision:
                found = replace(found, job_change=replace(found.job_change, left=True))
            self.after = m.Position(event.revision, store_id)
            yield replace(found, position=self.after)
        if self.after is None or message.position.revision >= self.after.revision:
            self.after = m.Position(message.position.revision, store_id)
        for update in message.updates:
            yield read(m.JobUpdate, update)


@dataclass
class LogCursor:
    """Position in one output of one attempt."""

    job: JobRef
    stream: LogStream
    attempt: int | None
    offset: int
    max_bytes: int | None
    follow: bool
    ended: bool = False
    received: bool = False

    def request(self) -> pb.ReadLogRequest:
        """Build the request for the bytes after the last one that was received."""
        return pb.ReadLogRequest(
            job=self.job,
            stream=cast("pb.LogStream.ValueType", to_number(self.stream)),
            attempt=self.attempt,
            offset=self.offset,
            max_bytes=self.max_bytes,
            follow=self.follow,
        )

    def accept(self, message: pb.ReadLogResponse) -> m.LogPiece | None:
        """Process one message and return its bytes; None: a keepalive, or the end."""
        # Fixed from the first message on: after a reconnection "the last attempt" may be another one, the id another
        # job, and a negative offset would be counted from another end.
        if message.uid:
            self.job, self.attempt = JobRef(uid=message.uid), message.attempt
        self.offset = message.offset + len(message.data)
        self.received = True
        if self.max_bytes is not None:
            self.max_bytes -= len(message.data)
        self.ended = message.eof or self.max_bytes == 0
        return m.LogPiece(message.data, message.offset, message.uid, message.attempt) if message.data else None

    def restart(self, error: EdbJobsError) -> bool:
        """Begin again at 0 if a followed file became shorter while the connection was broken."""
        became_shorter = self.follow and self.received and error.reason == "OFFSET_BEYOND_END" and self.offset > 0
        if became_shorter:
            self.offset = 0
        return became_shorter


def make_decoder() -> codecs.IncrementalDecoder:
    """Return an incremental UTF-8 decoder that replaces invalid bytes."""
    return codecs.getincrementaldecoder("utf-8")("replace")


PROGRESS_STEP = 0.5
WAIT_STEP = 30.0


def wait_loop(name: str, timeout: float | None, progress: bool, retry_limit: float) -> WaitLoop:
    """Return the loop that waits for a job; with `progress` the state is polled twice a second."""
    deadline = None if timeout is None else time.monotonic() + timeout
    return WaitLoop(name, deadline, PROGRESS_STEP if progress else WAIT_STEP, RetryDelay(retry_limit))


@dataclass
class WaitLoop:
    """Repeated WaitJob calls until a job has ended.

    Parameters
    ----------
    name : str or JobRef
        uid or id.
    deadline : float, optional
        When to give up, by ``time.monotonic``.
    step : float
        Longest single wait, seconds.
    retry : RetryDelay
        Delay after failures of the connection.
    """

    name: Named
    deadline: float | None
    step: float
    retry: RetryDelay

    def call(self) -> Call[m.Job]:
        """Return the next call."""
        left = self.step if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)
        return wait(self.name, min(left, self.step))

    def pause(self, error: EdbJobsError, answered: bool) -> float:
        """Return the delay as `RetryDelay.delay` does, or raise the error if the deadline would pass."""
        delay = self.retry.delay(error, answered)
        if self.deadline is not None and time.monotonic() + delay >= self.deadline:
            raise error
        return delay

    def ended(self, job: m.Job) -> bool:
        """Process an answer; return True if the job has ended.

        Raises
        ------
        WaitTimeoutError
            If it has not and the deadline has passed.
        """
        self.retry.success()
        # The id may be used again once the job has ended; the uid is unique.
        self.name = JobRef(uid=job.uid)
        if not job.ended and self.deadline is not None and time.monotonic() >= self.deadline:
            raise WaitTimeoutError(f"job {job.id} has not ended in the given time; it is {job.state}", job)
        return job.ended
