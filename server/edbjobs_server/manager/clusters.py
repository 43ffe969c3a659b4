"""The clusters of the service: which there are, whether they answer, and what is on them."""

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
_FIRST_ANSWER_SECONDS = 15.0  # a scheduler that hangs is given up after 10
ANSWER_SECONDS = 10.0  # clients wait not much longer
FRESH_SECONDS = 5.0  # an answer serves all who ask within that time


class Clusters:
    """Answers about clusters.

    Parameters
    ----------
    executors : mapping of str to ClusterExecutor
        Those the service has, the preferred one first.
    core : Planner
        Knows which jobs are ours.
    chosen : bool
        The administrator has named the scheduler, so it is the detected one even before it answers.
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

        A scheduler counts once it has answered, and goes on to count when it falls silent: a job that was meant for
        a cluster must not be run on its login node meanwhile.
        """
        for name, executor in self._executors.items():
            if self._chosen or executor.reach.version or executor.reach.answering:
                return name
        return NO_CLUSTER

    async def detect(self) -> str:
        """Tell the same once every scheduler has been asked: a service that has just begun has no answers yet."""
        end = time.monotonic() + _FIRST_ANSWER_SECONDS
        while True:
            if time.monotonic() > end or self._chosen:
                self._first.clear()
            self._first = {name: first for name, first in self._first.items() if self._executors[name].reach is first}
            if not self._first:
                return self.detected
            await asyncio.sleep(0.02)

    def statuses(self) -> list[cluster_pb2.SchedulerStatus]:
        """Tell whether each cluster's scheduler answers, and since when."""
        return [_status(executor.reach) for executor in self._executors.values()]

    def explain(self, job: Job) -> Explanation | None:
        """Tell why a job that is with a cluster does not run; None: nothing of it is the cluster's."""
        executor = self._executors.get(job.spec.executor)
        if executor is None or job.open_attempt is None or job.cancel_time is not None or job.state is State.RUNNING:
            return None
        if not executor.reach.answering:
            silent = self._core.silent.get(job.spec.executor, executor.reach.error)
            return Explanation(Waiting.SCHEDULER_UNREACHABLE, silent)
        sighting = executor.sighting(run_key(job))
        if job.state is not State.SCHEDULED:
            return None
        if sighting is None or sighting.phase is not Phase.PENDING:
            return Explanation(
                Waiting.SCHEDULER_PENDING, f"{executor.name} has it as {job.attempts[-1].scheduler_job_id}"
            )
        reason = Waiting.NEVER_RUNNABLE if sighting.never else Waiting.SCHEDULER_PENDING
        return Explanation(reason, f"{executor.name} job {sighting.id}: {waiting_text(sighting)}")

    async def preview(self, name: str, spec: RunSpec) -> tuple[str, str]:
        """Give the batch script of a run and the command that would hand it over.

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
        at, found = await self._ask(executor, "partitions", executor.scheduler.partitions)
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
        at, found = await self._ask(executor, "jobs", executor.scheduler.jobs)
        ours = {  # by id and name: a controller that crashed uses ids again
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
        """Let go of questions that nobody waits for."""
        tasks = [task for _, task in self._answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _executor(self, scheduler: str) -> ClusterExecutor:
        """Choose the cluster to ask; one that does not answer is not asked again for everybody who wants to know."""
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

    async def _ask(
        self, executor: ClusterExecutor, what: str, ask: Callable[[], Awaitable[Sequence[T]]]
    ) -> tuple[float, Sequence[T]]:
        """Ask once for all who want to know within a few seconds."""
        now = time.time()
        key = (executor.name, what)
        at, task = self._answers.get(key, (0.0, None))
        fresh = 0 <= now - at < FRESH_SECONDS
        if task is None or not (fresh or not task.done()):
            at, task = now, asyncio.ensure_future(ask())
            task.add_done_callback(_heard)
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


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of a failure: those who asked may have gone."""
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
