"""The clusters of the service: which there are, whether their schedulers respond, their partitions and jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from edbjobs.v1 import cluster_pb2, cluster_service_pb2

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
from edbjobs_server.executors.schedulers.base import Phase, Unreachable
from edbjobs_server.manager.run_spec import run_key
from edbjobs_server.solver.command_line import shell_line
from edbjobs_server.util.timeouts import timeout

T = TypeVar("T")

NO_CLUSTER = "none"
_FIRST_ANSWER_SECONDS = 15.0  # a request to a scheduler times out after 10
ANSWER_SECONDS = 10.0  # clients do not wait much longer
FRESH_SECONDS = 5.0  # age up to which an answer is reused


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
            if self._chosen or executor.reach.version or executor.reach.answering:
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
        executor = self._executors.get(job.spec.executor)
        if executor is None or job.open_attempt is None or job.cancel_time is not None or job.state is State.RUNNING:
            return None
        if not executor.reach.answering:
            detail = self._core.unreachable.get(job.spec.executor, executor.reach.error)
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

    async def partitions(self, scheduler: str) -> cluster_service_pb2.ListPartitionsResponse:
        """List partitions or queues.

        Raises
        ------
        Refused
            NO_SCHEDULER or SCHEDULER_UNREACHABLE.
        """
        executor = await self._executor(scheduler)
        at, found = await self._query(executor, "partitions", executor.scheduler.partitions)
        answer = cluster_service_pb2.ListPartitionsResponse(time=codec.timestamp(at))
        for item in found:
            values = {name: getattr(item, name) for name in item.__dataclass_fields__}
            answer.partitions.add(scheduler=executor.name, **values)
        return answer

    async def jobs(
        self, request: cluster_service_pb2.ListClusterJobsRequest
    ) -> cluster_service_pb2.ListClusterJobsResponse:
        """List the jobs of a cluster that have not ended, ours and others'.

        Raises
        ------
        Refused
            NO_SCHEDULER or SCHEDULER_UNREACHABLE.
        """
        executor = await self._executor(request.scheduler)
        at, found = await self._query(executor, "jobs", executor.scheduler.jobs)
        ours = {  # by id and name: a controller that crashed reuses ids
            (job.attempts[-1].scheduler_job_id, job_name(job.uid, job.id, job.attempt)): job.uid
            for job in self._core.jobs.values()
            if job.spec.executor == executor.name and job.attempts
        }
        answer = cluster_service_pb2.ListClusterJobsResponse(time=codec.timestamp(at))
        for item in found:
            if request.partition not in ("", item.partition) or request.user not in ("", item.user):
                continue
            answer.jobs.add(
                scheduler_job_id=item.id,
                name=item.name,
                user=item.user,
                partition=item.partition,
                state=item.state,
                reason=item.reason,
                nodes=item.nodes,
                cores=item.cores,
                nodelist=item.nodelist,
                job_uid=ours.get((item.id, item.name), ""),
                start_time=codec.timestamp(item.start_time) if item.start_time is not None else None,
            )
        return answer

    async def close(self) -> None:
        """Cancel pending queries."""
        tasks = [task for _, task in self._answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _executor(self, scheduler: str) -> ClusterExecutor:
        """Choose the cluster to query; an unreachable one is not queried again for each request."""
        detected = await self.detect()
        name = scheduler or (detected if detected != NO_CLUSTER else next(iter(self._executors), NO_CLUSTER))
        executor = self._executors.get(name)
        if executor is None:
            have = ", ".join(self._executors) or "none"
            what = f"{name} is no cluster of this service" if scheduler else "this service has no cluster"
            raise Refused("NO_SCHEDULER", f"{what}; clusters it has: {have}", fields={"scheduler": f"one of {have}"})
        if not executor.reach.answering:
            raise _unreachable(executor.name, executor.reach.error)
        return executor

    async def _query(
        self, executor: ClusterExecutor, what: str, query: Callable[[], Awaitable[Sequence[T]]]
    ) -> tuple[float, Sequence[T]]:
        """Query a scheduler once for all requests of a few seconds."""
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
        answering=reach.answering,
        since=codec.timestamp(reach.since),
        version=reach.version,
        error=reach.error,
    )
