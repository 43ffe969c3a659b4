"""The client for asyncio: the same methods as `Client`, where they are documented."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from edbjobs import _calls as calls
from edbjobs import _models as m
from edbjobs._calls import JobFilter, LimitValues, Submittable, job_ref
from edbjobs._connection import Settings
from edbjobs._convert import read
from edbjobs._enums import JobOrder, JobView, LogStream
from edbjobs._exceptions import EdbJobsError
from edbjobs._progress import display
from edbjobs._streams import LogCursor, RetryDelay, WatchCursor, make_decoder, wait_loop
from edbjobs._times import duration
from edbjobs._transport import AsyncTransport
from edbjobs.v1.resources_service_pb2 import WatchResourcesRequest

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """A connection to an edbjobs service for asyncio; bound to the event loop of its first call.

    Parameters, errors and methods are those of `Client`; iterators are asynchronous ones.

    Examples
    --------
    >>> async with AsyncClient() as client:
    ...     job = await client.submit("board.aedb", cores=8)
    ...     job = await client.wait(job.uid)
    ...     print(job.state, job.outcome)
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
        self._retry_limit = patience
        self._transport = AsyncTransport(Settings(target, token, timeout, certificates))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Client.close`."""
        await self._transport.close()

    async def submit(
        self,
        project: Submittable,
        *,
        job_id: str | None = None,
        priority: int = 0,
        user: str | None = None,
        hold: bool = False,
        request_id: str | None = None,
        **config_fields: Any,
    ) -> m.Job:
        """As `Client.submit`."""
        request = calls.submit_request(
            project, config_fields, job_id=job_id, priority=priority, user=user, hold=hold, request_id=request_id
        )
        return await self._transport.call(calls.submit(request))

    async def submit_many(
        self,
        projects: Iterable[Submittable],
        *,
        priority: int = 0,
        user: str | None = None,
        hold: bool = False,
        **config_fields: Any,
    ) -> Sequence[m.SubmitResult]:
        """As `Client.submit_many`."""
        requests = calls.submit_requests(projects, config_fields, priority=priority, user=user, hold=hold)
        return [result for call in calls.submit_many(requests) for result in await self._transport.call(call)]

    async def preview(self, project: Submittable, *, job_id: str | None = None, **config_fields: Any) -> m.Preview:
        """As `Client.preview`."""
        request = calls.submit_request(project, config_fields, job_id=job_id)
        return await self._transport.call(calls.preview(request))

    async def get(self, name: str) -> m.Job:
        """As `Client.get`."""
        return await self._transport.call(calls.get(name))

    async def list(
        self,
        *,
        order: JobOrder | str = JobOrder.CREATE_TIME,
        view: JobView | str = JobView.BASIC,
        **given: Unpack[JobFilter],
    ) -> AsyncIterator[m.Job]:
        """As `Client.list`."""
        token = ""
        while True:
            page = await self._transport.call(calls.list_page(given, token=token, order=order, view=view))
            for job in page.jobs:
                yield job
            token = page.next_token
            if not token:
                return

    async def snapshot(self, **given: Unpack[JobFilter]) -> m.Snapshot:
        """As `Client.snapshot`."""
        first = page = await self._transport.call(calls.list_page(given))
        jobs = list(page.jobs)
        while page.next_token:
            page = await self._transport.call(calls.list_page(given, token=page.next_token))
            jobs += page.jobs
        return m.Snapshot(tuple(jobs), first.position)

    async def cancel(self, name: str, *, grace_period: float | None = None, abandon: bool = False) -> m.Job:
        """As `Client.cancel`."""
        return await self._transport.call(calls.cancel(name, grace_period, abandon))

    async def cancel_many(
        self, *, all_jobs: bool = False, grace_period: float | None = None, **given: Unpack[JobFilter]
    ) -> Sequence[m.JobResult]:
        """As `Client.cancel_many`."""
        results: list[m.JobResult] = []
        while True:
            done = await self._transport.call(calls.cancel_many(given, all_jobs, grace_period))
            results += done.results
            if not done.more:
                return results

    async def hold(self, name: str) -> m.Job:
        """As `Client.hold`."""
        return await self._transport.call(calls.hold(name))

    async def release(self, name: str) -> m.Job:
        """As `Client.release`."""
        return await self._transport.call(calls.release(name))

    async def set_priority(self, name: str, priority: int) -> m.Job:
        """As `Client.set_priority`."""
        return await self._transport.call(calls.set_priority(name, priority))

    async def retry(self, name: str, *, request_id: str | None = None) -> m.Job:
        """As `Client.retry`."""
        return await self._transport.call(calls.retry(name, request_id))

    async def delete(self, uid: str) -> None:
        """As `Client.delete`."""
        await self._transport.call(calls.delete(uid))

    async def wait(self, name: str, timeout: float | None = None, progress: bool = False) -> m.Job:
        """As `Client.wait`."""
        loop = wait_loop(name, timeout, progress, self._retry_limit)
        with display(progress) as view:
            while True:
                try:
                    job = await self._transport.call(loop.call())
                except EdbJobsError as error:
                    await asyncio.sleep(loop.pause(error, self._transport.answered))
                    continue
                view.update(job)
                if loop.ended(job):
                    return job

    @overload
    def watch(
        self,
        *,
        after: m.Position | None = ...,
        from_oldest: bool = ...,
        include_updates: Literal[False] = ...,
        include_service_changes: bool = ...,
        **given: Unpack[JobFilter],
    ) -> AsyncIterator[m.WatchEvent]: ...

    @overload
    def watch(
        self,
        *,
        after: m.Position | None = ...,
        from_oldest: bool = ...,
        include_updates: bool,
        include_service_changes: bool = ...,
        **given: Unpack[JobFilter],
    ) -> AsyncIterator[m.WatchEvent | m.JobUpdate]: ...

    async def watch(
        self,
        *,
        after: m.Position | None = None,
        from_oldest: bool = False,
        include_updates: bool = False,
        include_service_changes: bool = False,
        **given: Unpack[JobFilter],
    ) -> AsyncIterator[Any]:
        """As `Client.watch`."""
        cursor = WatchCursor(given, after, from_oldest, include_updates, include_service_changes)
        retry = RetryDelay(self._retry_limit)
        while True:
            try:
                async with aclosing(self._transport.stream("JobsService", "WatchJobs", cursor.request())) as messages:
                    async for message in messages:
                        retry.success()
                        for item in cursor.accept(message):
                            yield item
            except EdbJobsError as error:
                await asyncio.sleep(retry.delay(error, self._transport.answered))

    @overload
    def logs(
        self,
        name: str,
        *,
        stream: LogStream | str = ...,
        attempt: int | None = ...,
        offset: int = ...,
        max_bytes: int | None = ...,
        follow: bool = ...,
        text: Literal[False] = ...,
    ) -> AsyncIterator[m.LogPiece]: ...

    @overload
    def logs(
        self,
        name: str,
        *,
        stream: LogStream | str = ...,
        attempt: int | None = ...,
        offset: int = ...,
        max_bytes: int | None = ...,
        follow: bool = ...,
        text: Literal[True],
    ) -> AsyncIterator[str]: ...

    def logs(
        self,
        name: str,
        *,
        stream: LogStream | str = LogStream.SOLVER,
        attempt: int | None = None,
        offset: int = 0,
        max_bytes: int | None = None,
        follow: bool = False,
        text: bool = False,
    ) -> AsyncIterator[m.LogPiece] | AsyncIterator[str]:
        """As `Client.logs`."""
        cursor = LogCursor(job_ref(name), LogStream(stream), attempt, offset, max_bytes, follow)
        data = self._log_bytes(cursor)
        return _texts(data) if text else data

    async def _log_bytes(self, cursor: LogCursor) -> AsyncIterator[m.LogPiece]:
        retry = RetryDelay(self._retry_limit)
        while not cursor.ended:
            try:
                async with aclosing(self._transport.stream("JobsService", "ReadLog", cursor.request())) as messages:
                    async for message in messages:
                        retry.success()
                        if (piece := cursor.accept(message)) is not None:
                            yield piece
            except EdbJobsError as error:
                if not cursor.restart(error):
                    await asyncio.sleep(retry.delay(error, self._transport.answered))
            else:
                return

    async def resources(self) -> m.HostResources:
        """As `Client.resources`."""
        return await self._transport.call(calls.resources())

    async def watch_resources(self, interval: float = 5.0) -> AsyncIterator[tuple[m.HostResources, m.QueueStatus]]:
        """As `Client.watch_resources`."""
        request = WatchResourcesRequest(interval=duration(timedelta(seconds=interval)))
        async with aclosing(self._transport.stream("ResourcesService", "WatchResources", request)) as messages:
            async for message in messages:
                yield read(m.HostResources, message.resources), read(m.QueueStatus, message.queue)

    async def queue(self) -> m.QueueStatus:
        """As `Client.queue`."""
        return await self._transport.call(calls.queue())

    async def pause_queue(self) -> m.QueueStatus:
        """As `Client.pause_queue`."""
        return await self._transport.call(calls.pause_queue())

    async def resume_queue(self) -> m.QueueStatus:
        """As `Client.resume_queue`."""
        return await self._transport.call(calls.resume_queue())

    async def limits(self) -> m.Limits:
        """As `Client.limits`."""
        return await self._transport.call(calls.limits())

    async def update_limits(self, **values: Unpack[LimitValues]) -> m.Limits:
        """As `Client.update_limits`."""
        return await self._transport.call(calls.update_limits(values))

    async def status(self) -> m.SystemStatus:
        """As `Client.status`."""
        return await self._transport.call(calls.status())

    async def partitions(self, scheduler: str = "") -> Sequence[m.Partition]:
        """As `Client.partitions`."""
        return await self._all(lambda token: calls.partitions(scheduler, token))

    async def cluster_jobs(self, scheduler: str = "", *, partition: str = "", user: str = "") -> Sequence[m.ClusterJob]:
        """As `Client.cluster_jobs`."""
        return await self._all(lambda token: calls.cluster_jobs(scheduler, partition, user, token))

    async def solvers(self) -> Sequence[m.Solver]:
        """As `Client.solvers`."""
        return await self._all(calls.solvers)

    async def _all(self, page: Callable[[str], calls.Call[calls.Listed[T]]]) -> Sequence[T]:
        """Return the items of all pages."""
        items, token = await self._transport.call(page(""))
        while token:
            more, token = await self._transport.call(page(token))
            items += more
        return items


async def _texts(pieces: AsyncIterator[m.LogPiece]) -> AsyncIterator[str]:
    decoder = make_decoder()
    async for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest
