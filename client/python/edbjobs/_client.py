"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from edbjobs import _calls as calls
from edbjobs import _models as m
from edbjobs._calls import JobFilter, LimitValues, Submittable
from edbjobs._connection import Settings
from edbjobs._convert import read
from edbjobs._enums import LogStream
from edbjobs._exceptions import EdbJobsError
from edbjobs._progress import display
from edbjobs._streams import LogCursor, Patience, WatchCursor, make_decoder, wait_loop
from edbjobs._times import duration
from edbjobs._transport import Transport
from edbjobs.v1.resources_service_pb2 import WatchResourcesRequest

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["Client"]


class Client:
    """A connection to an edbjobs service; made at the first call, kept, and renewed when it breaks.

    Parameters
    ----------
    target : str, optional
        ``host:port`` or ``unix:/path``; else ``EDBJOBS_TARGET``, else endpoint.json in the runtime folder of this
        user, else 127.0.0.1:18080.
    token : str, optional
        Sent with every call; else ``EDBJOBS_TOKEN``, else the file that endpoint.json names.
    timeout : float
        Longest time of one call, seconds; default 30.
    patience : float
        How long `watch`, `logs` and `wait` try again while the service is away, seconds; default 300.
    certificates : path, optional
        Folder with ca.crt, client.crt and client.key for mutual TLS.

    Raises
    ------
    EdbJobsError
        From every method: see the tree in `edbjobs._exceptions`. ``name`` in a method is a uid, or an id, which
        addresses the newest job that bears it.

    Examples
    --------
    >>> with Client() as client:
    ...     job = client.submit("board.aedb", cores=8)
    ...     job = client.wait(job.uid, progress=True)
    ...     print(job.status, job.reason, job.message)
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        patience: float = 300.0,
        certificates: str | Path | None = None,
    ) -> None:
        self._patience = patience
        self._transport = Transport(Settings(target, token, timeout, certificates))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; jobs go on."""
        self._transport.close()

    def submit(
        self,
        project: Submittable,
        *,
        jobid: str | None = None,
        priority: int = 0,
        user: str | None = None,
        hold: bool = False,
        request_id: str | None = None,
        **config_fields: Any,
    ) -> m.Job:
        """Submit a job; when this returns, the job is on the service's disk.

        Parameters
        ----------
        project : str, path, HFSSSimulationConfig or mapping
            A project (relative to the current folder), a configuration, or the documented dictionary of one.
        jobid : str, optional
            Name of the job; made by the service if absent.
        priority : int
            Higher runs first; default 0.
        user : str, optional
            On whose behalf; else the caller's account.
        hold : bool
            Keep it from starting until it is released.
        request_id : str, optional
            The same request_id is the same job. Made here if absent, so that trying again after a broken
            connection never makes a second job.
        **config_fields
            Fields of `HFSSSimulationConfig`, put over those of `project`.

        Raises
        ------
        pydantic.ValidationError
            For a value that cannot be right; nothing was sent.
        """
        request = calls.submit_request(
            project, config_fields, jobid=jobid, priority=priority, user=user, hold=hold, request_id=request_id
        )
        return self._transport.call(calls.submit(request))

    def submit_many(
        self,
        projects: Iterable[Submittable],
        *,
        priority: int = 0,
        user: str | None = None,
        hold: bool = False,
        **config_fields: Any,
    ) -> Sequence[m.SubmitResult]:
        """Submit many jobs, up to 1,000 in one transaction; each gets its job or its own error.

        Parameters are those of `submit`, for all; the results are in the order of `projects`.
        """
        requests = calls.submit_requests(projects, config_fields, priority=priority, user=user, hold=hold)
        return [result for call in calls.submit_many(requests) for result in self._transport.call(call)]

    def preview(self, project: Submittable, *, jobid: str | None = None, **config_fields: Any) -> m.Preview:
        """Tell the exact command line or batch script of a submit; nothing is run or recorded."""
        request = calls.submit_request(project, config_fields, jobid=jobid)
        return self._transport.call(calls.preview(request))

    def get(self, name: str) -> m.Job:
        """Tell how a job is."""
        return self._transport.call(calls.get(name))

    def list(
        self, *, newest_first: bool = False, omit_config: bool = False, **given: Unpack[JobFilter]
    ) -> Iterator[m.Job]:
        """Give the jobs a filter finds, oldest first; pages are fetched as they are needed."""
        token = ""
        while True:
            page = self._transport.call(
                calls.list_page(given, token=token, newest_first=newest_first, omit_config=omit_config)
            )
            yield from page.jobs
            token = page.next_token
            if not token:
                return

    def snapshot(self, **given: Unpack[JobFilter]) -> m.Snapshot:
        """Give the jobs a filter finds and the revision they stand for; `watch` goes on from there."""
        first = page = self._transport.call(calls.list_page(given))
        jobs = list(page.jobs)
        while page.next_token:
            page = self._transport.call(calls.list_page(given, token=page.next_token))
            jobs += page.jobs
        return m.Snapshot(tuple(jobs), first.revision, first.store_id)

    def cancel(self, name: str, *, grace_seconds: float | None = None, abandon: bool = False) -> m.Job:
        """Cancel a job: answers at once; it is CANCELLED when none of its processes is left.

        Parameters
        ----------
        grace_seconds : float, optional
            Time between TERM and KILL; else the job's own.
        abandon : bool
            End the record even if the system cannot end some processes; only for a job waiting UNKILLABLE.
        """
        return self._transport.call(calls.cancel(name, grace_seconds, abandon))

    def cancel_many(
        self, *, all_jobs: bool = False, grace_seconds: float | None = None, **given: Unpack[JobFilter]
    ) -> Sequence[str]:
        """Cancel all live jobs a filter finds, an empty filter only with `all_jobs`; gives their uids."""
        return self._transport.call(calls.cancel_many(given, all_jobs, grace_seconds))

    def hold(self, name: str) -> m.Job:
        """Keep a waiting job from starting."""
        return self._transport.call(calls.hold(name))

    def release(self, name: str) -> m.Job:
        """Let a held job start."""
        return self._transport.call(calls.release(name))

    def set_priority(self, name: str, priority: int) -> m.Job:
        """Change the priority of a waiting job."""
        return self._transport.call(calls.set_priority(name, priority))

    def retry(self, name: str, *, request_id: str | None = None) -> m.Job:
        """Make a new job of the same id from an ended one."""
        return self._transport.call(calls.retry(name, request_id))

    def delete(self, name: str) -> None:
        """Remove the record of an ended job and its run folders; never projects or results."""
        self._transport.call(calls.delete(name))

    def wait(self, name: str, timeout: float | None = None, progress: bool = False) -> m.Job:
        """Wait until a job has ended, however it ended.

        Parameters
        ----------
        name : str
            uid or id.
        timeout : float, optional
            Seconds; else as long as it takes. The service may be restarted meanwhile.
        progress : bool
            Show a bar in a terminal or notebook, elsewhere a line for each change, on standard error.

        Raises
        ------
        WaitTimeoutError
            If it has not ended in time; the error carries the job.
        """
        loop = wait_loop(name, timeout, progress, self._patience)
        with display(progress) as view:
            while True:
                try:
                    job = self._transport.call(loop.call())
                except EdbJobsError as error:
                    time.sleep(loop.pause(error, self._transport.answered))
                    continue
                view.update(job)
                if loop.ended(job):
                    return job

    def watch(
        self,
        *,
        after_revision: int | None = None,
        store_id: str = "",
        service_events: bool = False,
        **given: Unpack[JobFilter],
    ) -> Iterator[m.Event]:
        """Give every change as it happens, each once and in order, across breaks of the connection.

        Parameters
        ----------
        after_revision : int, optional
            Begin after this one; 0: with the oldest on record; absent: with what is new.
        store_id : str
            Store that the revision belongs to; empty: not checked.
        service_events : bool
            Also changes of limits and queue, and gates.
        **given
            Which jobs, as in `list`.

        Raises
        ------
        OutOfRangeError
            If the revision is not there any more, or belongs to another store: take a `snapshot`.
        """
        cursor = WatchCursor(given, service_events, after_revision, store_id)
        patience = Patience(self._patience)
        while True:
            try:
                for message in self._transport.stream("Jobs", "WatchJobs", cursor.request()):
                    patience.success()
                    yield from cursor.accept(message)
            except EdbJobsError as error:
                time.sleep(patience.delay(error, self._transport.answered))

    @overload
    def logs(
        self,
        name: str,
        *,
        stream: LogStream | str = ...,
        attempt: int = ...,
        offset: int = ...,
        follow: bool = ...,
        text: Literal[False] = ...,
    ) -> Iterator[m.LogPiece]: ...

    @overload
    def logs(
        self,
        name: str,
        *,
        stream: LogStream | str = ...,
        attempt: int = ...,
        offset: int = ...,
        follow: bool = ...,
        text: Literal[True],
    ) -> Iterator[str]: ...

    def logs(
        self,
        name: str,
        *,
        stream: LogStream | str = LogStream.STDOUT,
        attempt: int = 0,
        offset: int = 0,
        follow: bool = False,
        text: bool = False,
    ) -> Iterator[m.LogPiece] | Iterator[str]:
        """Give the output of a run in pieces of at most 64 KiB, across breaks of the connection.

        Parameters
        ----------
        name : str
            uid or id.
        stream : LogStream or str
            ``stdout``, ``stderr``, ``solver`` or ``script``.
        attempt : int
            0: the last.
        offset : int
            First byte; negative: counted back from the present end.
        follow : bool
            Stay until the attempt has ended.
        text : bool
            Decode as UTF-8; what is not UTF-8 becomes U+FFFD.
        """
        cursor = LogCursor(name, LogStream(stream), attempt, offset, follow)
        data = self._log_bytes(cursor)
        return _texts(data) if text else data

    def _log_bytes(self, cursor: LogCursor) -> Iterator[m.LogPiece]:
        patience = Patience(self._patience)
        while not cursor.ended:
            try:
                for message in self._transport.stream("Jobs", "TailLog", cursor.request()):
                    patience.success()
                    yield cursor.accept(message)
            except EdbJobsError as error:
                time.sleep(patience.delay(error, self._transport.answered))
            else:
                return

    def resources(self) -> m.ResourceSnapshot:
        """Tell how the service's host is."""
        return self._transport.call(calls.resources())

    def watch_resources(self, interval: float = 5.0) -> Iterator[tuple[m.ResourceSnapshot, m.QueueStatus]]:
        """Give host and queue now and then every `interval` seconds, at least 1."""
        request = WatchResourcesRequest(interval=duration(timedelta(seconds=interval)))
        for message in self._transport.stream("Resources", "WatchResources", request):
            yield read(m.ResourceSnapshot, message.resources), read(m.QueueStatus, message.queue)

    def queue(self) -> m.QueueStatus:
        """Tell how the queue is."""
        return self._transport.call(calls.queue())

    def pause_queue(self) -> m.QueueStatus:
        """Start no more jobs; what runs goes on."""
        return self._transport.call(calls.pause_queue())

    def resume_queue(self) -> m.QueueStatus:
        """Start jobs again."""
        return self._transport.call(calls.resume_queue())

    def limits(self) -> m.Limits:
        """Tell the limits."""
        return self._transport.call(calls.limits())

    def update_limits(self, **values: Unpack[LimitValues]) -> m.Limits:
        """Change the named limits, all or none; gives the limits now in force."""
        return self._transport.call(calls.update_limits(values))

    def status(self) -> m.SystemStatus:
        """Tell what the service is and whether its parts answer."""
        return self._transport.call(calls.status())

    def partitions(self, scheduler: str = "") -> Sequence[m.Partition]:
        """Give the partitions or queues of a scheduler; empty: the detected one."""
        return self._transport.call(calls.partitions(scheduler))

    def cluster_jobs(self, scheduler: str = "", *, partition: str = "", user: str = "") -> Sequence[m.ClusterJob]:
        """Give the jobs of a cluster, this service's and others'."""
        return self._transport.call(calls.cluster_jobs(scheduler, partition, user))

    def solvers(self) -> Sequence[m.Solver]:
        """Give the installed solvers, newest first."""
        return self._transport.call(calls.solvers())


def _texts(pieces: Iterator[m.LogPiece]) -> Iterator[str]:
    decoder = make_decoder()
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest
