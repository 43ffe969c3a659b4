"""The clusters of the service: which there are, whether their schedulers respond, their partitions and jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edbjobs.v1 import cluster_pb2, cluster_service_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract import codec
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.planner import Explanation, Planner
from edbjobs_server.core.runs import Reachability
from edbjobs_server.core.states import State, Waiting
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.cluster.allocation import job_name
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.poller import waiting_text
from edbjobs_server.executors.cluster.script import ScriptError
from edbjobs_server.executors.schedulers.base import ClusterJob, Partition, Phase, Unreachable
from edbjobs_server.manager.pages import page_of
from edbjobs_server.manager.run_spec import run_key
from edbjobs_server.solver.command_line import shell_line
from edbjobs_server.util.timeouts import timeout

T = TypeVar("T")

NO_CLUSTER = "none"
_FIRST_ANSWER_SECONDS = 15.0  # a request to a scheduler times out after 10
ANSWER_SECONDS = 10.0  # clients do not wait much longer
FRESH_SECONDS = 5.0  # age up to which an answer is reused


_Query = Callable[[], Awaitable[Sequence[T]]]


@dataclass(frozen=True)
class _Answers(Generic[T]):
    """What schedulers answered, each with the time at which it was asked; and the state of all that were asked."""

    answers: Sequence[tuple[ClusterExecutor, float, Sequence[T]]]
    schedulers: Sequence[cluster_pb2.SchedulerStatus]

    @property
    def update_time(self) -> Timestamp | None:
        """The oldest time."""
        times = [at for _, at, _ in self.answers]
        return codec.timestamp(min(times)) if times else None


class Clusters:
    """Queries the clusters of the service.

    Parameters
    ----------
    executors : mapping of str to ClusterExecutor
        Clusters of the service, the preferred one first.
    core : Planner
        Source of the service's own jobs.
    chosen : bool
        Whether the administrator has configured the scheduler: it is the detected one even before it responds.
    """

    def __init__(self, executors: Mapping[str, ClusterExecutor], core: Planner, chosen: bool = False) -> None:
        self._executors = executors
        self._core = core
        self._chosen = chosen
        self._first = {name: executor.reach for name, executor in executors.items()}
        self._answers: dict[tuple[str, str], tuple[float, asyncio.Task[Any]]] = {}

    @property
    def detected(self) -> str:
        """The cluster that jobs go to which name no scheduler; ``none``: they run on this host.

        A scheduler is detected once it has responded, and stays so when it becomes unreachable: a job for a cluster
        must not run on its login node meanwhile.
        """
        for name, executor in self._executors.items():
            if self._chosen or executor.reach.version or executor.reach.responding:
                return name
        return NO_CLUSTER

    async def detect(self) -> str:
        """Return the same once every scheduler was queried: a service that has just started has no answers yet."""
        end = time.monotonic() + _FIRST_ANSWER_SECONDS
        while True:
            if time.monotonic() > end or self._chosen:
                self._first.clear()
            self._first = {name: first for name, first in self._first.items() if self._executors[name].reach is first}
            if not self._first:
                return self.detected
            await asyncio.sleep(0.02)

    def statuses(self) -> list[cluster_pb2.SchedulerStatus]:
        """Return for each cluster whether its scheduler responds, and since when."""
        return [_status(executor.reach) for executor in self._executors.values()]

    def explain(self, job: Job) -> Explanation | None:
        """Return why a job that was submitted to a cluster does not run; None: the cluster is not the reason."""
        executor = self._executors.get(job.spec.scheduler)
        if (
            executor is None
            or job.open_attempt is None
            or job.cancel_request_time is not None
            or job.state is State.RUNNING
        ):
            return None
        if not executor.reach.responding:
            detail = self._core.unreachable.get(job.spec.scheduler, executor.reach.error)
            return Explanation(Waiting.SCHEDULER_UNREACHABLE, detail)
        status = executor.status(run_key(job))
        if job.state is not State.SCHEDULED:
            return None
        if status is None or status.phase is not Phase.PENDING:
            return Explanation(
                Waiting.SCHEDULER_PENDING, f"{executor.name} has it as {job.attempts[-1].scheduler_job_id}"
            )
        reason = Waiting.NEVER_RUNNABLE if status.never else Waiting.SCHEDULER_PENDING
        return Explanation(reason, f"{executor.name} job {status.id}: {waiting_text(status)}")

    async def preview(self, name: str, spec: RunSpec) -> tuple[str, str]:
        """Return the batch script of a run and the command that would submit it.

        Raises
        ------
        Refused
            INVALID_TEMPLATE: a template of the site cannot be used.
        """
        executor = self._executors[name]
        try:
            script = await asyncio.to_thread(executor.script, spec)
        except ScriptError as error:
            raise Refused("INVALID_TEMPLATE", str(error)) from error
        return script, shell_line(list(executor.scheduler.submit_command(executor.submission(spec))))

    async def partitions(
        self, request: cluster_service_pb2.ListPartitionsRequest
    ) -> cluster_service_pb2.ListPartitionsResponse:
        """Return a page of the partitions or queues of one scheduler, or of all.

        Raises
        ------
        Refused
            NO_SCHEDULER, SCHEDULER_UNREACHABLE or INVALID_PAGE_TOKEN.
        """
        found = await self._ask(request.scheduler, "partitions", lambda executor: executor.scheduler.partitions)
        items = [partition_message(executor.name, item) for executor, _, answer in found.answers for item in answer]
        asked = cluster_service_pb2.ListPartitionsRequest(scheduler=request.scheduler)
        page, token = page_of(items, asked, request.page_size, request.page_token, _partition_key)
        return cluster_service_pb2.ListPartitionsResponse(
            partitions=page, next_page_token=token, update_time=found.update_time, schedulers=found.schedulers
        )

    async def jobs(
        self, request: cluster_service_pb2.ListClusterJobsRequest
    ) -> cluster_service_pb2.ListClusterJobsResponse:
        """Return a page of the jobs that have not ended of one cluster, or of all, ours and others'.

        Raises
        ------
        Refused
            NO_SCHEDULER, SCHEDULER_UNREACHABLE or INVALID_PAGE_TOKEN.
        """
        found = await self._ask(request.scheduler, "jobs", lambda executor: executor.scheduler.jobs)
        ours = {  # by id and name: a controller that crashed reuses ids
            (
                job.spec.scheduler,
                job.attempts[-1].scheduler_job_id,
                job_name(job.uid, job.id, job.attempt_count),
            ): job.uid
            for job in self._core.jobs.values()
            if job.attempts
        }
        items = [
            _job_message(executor.name, item, ours.get((executor.name, item.id, item.name), ""))
            for executor, _, answer in found.answers
            for item in answer
            if request.partition in ("", item.partition) and request.user in ("", item.user)
        ]
        asked = cluster_service_pb2.ListClusterJobsRequest(
            scheduler=request.scheduler, partition=request.partition, user=request.user
        )
        page, token = page_of(items, asked, request.page_size, request.page_token, _job_key)
        return cluster_service_pb2.ListClusterJobsResponse(
            jobs=page, next_page_token=token, update_time=found.update_time, schedulers=found.schedulers
        )

    async def close(self) -> None:
        """Cancel pending queries."""
        tasks = [task for _, task in self._answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, scheduler: str, what: str, query_of: Callable[[ClusterExecutor], _Query[T]]) -> _Answers[T]:
        """Query one scheduler, or all of them; an unreachable one is not queried again for each request."""
        await self.detect()
        if scheduler:
            executor = self._executor(scheduler)
            at, answer = await self._query(executor, what, query_of(executor))
            return _Answers([(executor, at, answer)], [_status(executor.reach)])
        executors = list(self._executors.values())
        queries = [self._query(executor, what, query_of(executor)) for executor in executors]
        answers: list[tuple[ClusterExecutor, float, Sequence[T]]] = []
        schedulers = []
        for executor, result in zip(executors, await asyncio.gather(*queries, return_exceptions=True), strict=True):
            status = _status(executor.reach)
            if isinstance(result, Refused):
                status.responding = False
                status.error = status.error or result.message
            elif isinstance(result, BaseException):
                raise result
            else:
                answers.append((executor, *result))
            schedulers.append(status)
        return _Answers(answers, schedulers)

    def _executor(self, name: str) -> ClusterExecutor:
        executor = self._executors.get(name)
        if executor is None:
            have = ", ".join(self._executors) or "none"
            text = f"{name} is no cluster of this service; clusters it has: {have}"
            raise Refused("NO_SCHEDULER", text, fields={"scheduler": f"one of {have}"})
        return executor

    async def _query(self, executor: ClusterExecutor, what: str, query: _Query[T]) -> tuple[float, Sequence[T]]:
        """Query a scheduler once for all requests of a few seconds."""
        if not executor.reach.responding:
            raise _unreachable(executor.name, executor.reach.error)
        now = time.time()
        key = (executor.name, what)
        at, task = self._answers.get(key, (0.0, None))
        fresh = 0 <= now - at < FRESH_SECONDS
        if task is None or not (fresh or not task.done()):
            at, task = now, asyncio.ensure_future(query())
            task.add_done_callback(_retrieve_error)
            self._answers[key] = (at, task)
        try:
            async with timeout(ANSWER_SECONDS):
                return at, await asyncio.shield(task)
        except Unreachable as error:
            raise _unreachable(executor.name, str(error)) from error
        except (asyncio.TimeoutError, TimeoutError):
            raise _unreachable(executor.name, f"no answer within {ANSWER_SECONDS:g} s") from None


def _unreachable(name: str, error: str) -> Refused:
    return Refused("SCHEDULER_UNREACHABLE", f"{name} does not answer: {error}")


def _retrieve_error(task: asyncio.Task[Any]) -> None:
    """Retrieve a failure: there may be no request left that receives it."""
    if not task.cancelled():
        task.exception()


def _status(reach: Reachability) -> cluster_pb2.SchedulerStatus:
    return cluster_pb2.SchedulerStatus(
        name=reach.executor,
        responding=reach.responding,
        since_time=codec.timestamp(reach.since_time),
        version=reach.version,
        error=reach.error,
    )


def partition_message(scheduler: str, item: Partition) -> cluster_pb2.Partition:
    """Return the message of a partition."""
    values = {name: getattr(item, name) for name in item.__dataclass_fields__ if name != "time_limit"}
    limit = Duration(seconds=item.time_limit) if item.time_limit is not None else None
    return cluster_pb2.Partition(scheduler=scheduler, time_limit=limit, **values)


def _job_message(scheduler: str, item: ClusterJob, uid: str) -> cluster_pb2.ClusterJob:
    return cluster_pb2.ClusterJob(
        scheduler=scheduler,
        scheduler_job_id=item.id,
        name=item.name,
        user=item.user,
        partition=item.partition,
        state=item.state,
        reason=item.reason,
        nodes=item.nodes,
        node_count=item.node_count,
        core_count=item.core_count,
        start_time=codec.timestamp(item.start_time) if item.start_time is not None else None,
        job_uid=uid,
    )


def _partition_key(item: cluster_pb2.Partition) -> str:
    return f"{item.scheduler} {item.name}"


def _job_key(item: cluster_pb2.ClusterJob) -> str:
    return f"{item.scheduler} {item.scheduler_job_id}"
