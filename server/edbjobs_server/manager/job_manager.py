"""The job manager: the asyncio shell around the core, and the only way in for every door."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

from edbjobs.v1 import job_pb2, job_state_pb2, jobs_messages_pb2

from edbjobs_server.contract import codec
from edbjobs_server.core import transitions
from edbjobs_server.core.admission import refuse_priority
from edbjobs_server.core.errors import Refused, path_unreachable
from edbjobs_server.core.gates import HostLoad
from edbjobs_server.core.job import Job
from edbjobs_server.core.planner import Planner
from edbjobs_server.core.states import EventType
from edbjobs_server.core.transitions import Change
from edbjobs_server.events.log import EventLog, Message
from edbjobs_server.executors.base import Executor
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.manager.clusters import Clusters
from edbjobs_server.manager.draft_batcher import DraftBatcher
from edbjobs_server.manager.end_waiters import EndWaiters
from edbjobs_server.manager.log_tail import tail
from edbjobs_server.manager.runs import Runs
from edbjobs_server.manager.status import ServiceInfo, ServiceStatus
from edbjobs_server.manager.submission import Rules, accept, draft
from edbjobs_server.manager.waiting_reasons import WaitingReasons
from edbjobs_server.solver.command_line import shell_line
from edbjobs_server.store import Committed, Snapshot, Store, Transaction
from edbjobs_server.telemetry.host import HostSampler
from edbjobs_server.util import failpoints
from edbjobs_server.util.path_workers import PathWorkers

T = TypeVar("T")

MAX_ITEMS = 1000
SLICE = 100
MAX_WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class Accepted:
    """A submitted job as it stands on disk.

    Attributes
    ----------
    message : bytes
        Serialised ``edbjobs.v1.Job``.
    existed : bool
        An earlier request had made it.
    """

    message: bytes
    existed: bool = False

    @cached_property
    def job(self) -> job_pb2.Job:
        """The same, parsed."""
        return job_pb2.Job.FromString(self.message)


class JobManager:
    """Queues, runs and watches jobs.

    Every method may be called by any door, on the event loop; each change is on disk when it returns.

    Parameters
    ----------
    store : Store
        Opened store.
    executors : mapping of str to Executor
        Where runs run, by name.
    rules : Rules
        What requests are checked against.
    environment : mapping of str to str
        What a run's environment is made from.
    boot_id : str
        Of this host.
    sampler : HostSampler
        Tells how the host is.
    about : ServiceInfo
        What the service tells of itself.
    lock_wait : float, default: 600
        Longest wait, in seconds, for a project that somebody else has open.
    gate_event_seconds : float, default: 600
        A gate that has been shut for so long is told by an event.
    clusters : mapping of str to ClusterExecutor, optional
        Those of `executors` that are clusters.
    cluster_chosen : bool, default: False
        The administrator has named the cluster's scheduler.
    """

    def __init__(
        self,
        store: Store,
        executors: Mapping[str, Executor],
        rules: Rules,
        environment: Mapping[str, str],
        boot_id: str,
        sampler: HostSampler,
        about: ServiceInfo,
        lock_wait: float = 600.0,
        gate_event_seconds: float = 600.0,
        clusters: Mapping[str, ClusterExecutor] | None = None,
        cluster_chosen: bool = False,
    ) -> None:
        snapshot = store.snapshot()
        self.store = store
        self.rules = rules
        self.core = Planner(rules.host, snapshot.limits)
        self.core.now = time.time()
        self.core.reset(snapshot.jobs, snapshot.limits, snapshot.paused)
        self.events = EventLog(store, snapshot.revision)
        self.paths = PathWorkers(path_unreachable)
        self.drafting = DraftBatcher(self.paths, rules, lambda: self.core.limits, store)
        self.runs = Runs(
            store, self.core, executors, rules, self.paths, environment, boot_id, lock_wait, gate_event_seconds
        )
        self.clusters = Clusters(clusters or {}, self.core, cluster_chosen)
        self.explaining = WaitingReasons(self.core, self.clusters, self.runs.following)
        self.control = ServiceStatus(store, self.events, self.core, sampler, about, self.clusters)
        self.observers: list[Callable[[Sequence[Committed]], None]] = []  # told of every commit, after the core
        self._waiters = EndWaiters()

    async def open(self, limits: Mapping[str, Any], before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin: put the given limits in force, adopt what runs, then start what may.

        `before` is awaited when changes can be made and nothing has been started yet.
        """
        self.store.start(asyncio.get_running_loop(), self._on_commit, self._on_reset)
        if limits:
            await self.control.set_limits(limits)
        if before is not None:
            await before()
        await self.runs.open()

    def take_load(self, load: HostLoad) -> None:
        """Take over a new sample of the host."""
        self.runs.take_load(load)

    def drain(self) -> None:
        """Start nothing more and end all watches and waits; what runs goes on."""
        self.core.draining = True
        self.events.close()
        self._waiters.tell_all()

    async def close(self) -> None:
        """Let go of everything; what runs goes on."""
        self.drain()
        await self.clusters.close()
        await self.runs.close()
        await self.store.close()
        self.paths.close()

    # Jobs ------------------------------------------------------------------------------------------------

    async def submit(self, request: jobs_messages_pb2.SubmitJobRequest, principal: str, user: str) -> Accepted:
        """Accept a job, or answer with the one that an equal request made before."""
        (result,) = await self.submit_many([request], principal, user)
        if isinstance(result, Refused):
            raise result
        return result

    async def submit_many(
        self, requests: Sequence[jobs_messages_pb2.SubmitJobRequest], principal: str, user: str
    ) -> list[Accepted | Refused]:
        """Accept jobs in one transaction; a bad one stops no other."""
        if self.core.draining:
            raise draining()
        if len(requests) > MAX_ITEMS:
            raise Refused("TOO_MANY_ITEMS", f"{len(requests)} jobs in one request; at most {MAX_ITEMS} are taken")
        results = await self.drafting.submit(requests, user, principal)
        failpoints.point("submit.before_reply")
        answers: list[Accepted | Refused] = []
        for item in results:
            if isinstance(item, Refused):
                answers.append(item)
            else:
                message = item.message + self.explaining.addition(item.job.uid, item.job.state)
                answers.append(Accepted(message, item.existed))
            if len(answers) % SLICE == 0:
                await asyncio.sleep(0)  # so that the loop never stalls on a long answer
        return answers

    async def get(self, name: str) -> job_pb2.Job:
        """Tell how a job is."""
        data = await self.store.read(lambda reader: reader.job_bytes(name))
        if data is None:
            raise job_not_found(name)
        return self.explaining.explained(job_pb2.Job.FromString(data))

    async def list_jobs(self, request: jobs_messages_pb2.ListJobsRequest) -> jobs_messages_pb2.ListJobsResponse:
        """Give a page of jobs."""
        size = min(max(request.page_size, 0) or 50, 1000)
        page = await self.store.read(
            lambda reader: reader.page(
                request.filter, request.page_token, size, request.newest_first, request.omit_config
            )
        )
        answer = jobs_messages_pb2.ListJobsResponse(
            next_page_token=page.next_token,
            total=page.total,
            revision=page.revision,
            store_id=self.store.store_id,
        )
        answer.jobs.extend(self.explaining.explained(job) for job in page.jobs)
        return answer

    async def cancel(self, name: str, principal: str, grace: float | None, abandon: bool = False) -> job_pb2.Job:
        """End a job, also while the store cannot be written."""
        if grace is not None and not 0 <= grace <= 3600:
            raise Refused("INVALID_JOB", "grace must be 0 to 3600 seconds", fields={"grace": "0 to 3600 seconds"})

        unseen = False

        def change(job: Job, now: float) -> Change | None:
            if not abandon:
                return transitions.cancel(job, now, grace)
            return transitions.abandon(job, now, unseen)

        live = self._live(name)
        if abandon and live is not None:
            if self.runs.is_gone(live.uid):
                return await self._conclude(live.uid, principal)
            unseen = self.runs.unseen(live.uid)
        try:
            job = await self._change(name, principal, change)
        except Refused as refused:
            if refused.reason != "STORE_UNAVAILABLE" or live is None or live.open_attempt is None:
                raise
            self.runs.end(live, grace)
            answer = self._message(live)
            answer.warnings.append(f"it is being ended, but that is not on record yet: {refused.message}")
            return answer
        if job.open_attempt is not None:
            self.runs.end(job, grace)
        return self._message(job)

    async def _conclude(self, uid: str, principal: str) -> job_pb2.Job:
        """End the record of a job whose processes are gone, by what can be read of its result now."""
        await self._change(uid, principal, lambda job, now: transitions.cancel(job, now, 0.0))
        recorded = await self.runs.conclude(uid)
        answer = await self.get(uid)
        if not recorded:
            answer.warnings.append("its end is not on record yet")
        return answer

    async def cancel_many(
        self, job_filter: jobs_messages_pb2.JobFilter, everything: bool, principal: str, grace: float | None
    ) -> list[str]:
        """End all live jobs that a filter finds; gives their uids."""
        if not everything and not job_filter.ByteSize():
            raise Refused("FILTER_REQUIRED", "an empty filter means every job: say so with `all`")
        uids = await self._live_uids(job_filter)
        ended: list[str] = []
        for uid in uids:
            try:
                await self.cancel(uid, principal, grace)
            except Refused as refused:
                if refused.reason not in {"JOB_ENDED", "JOB_NOT_FOUND"}:
                    raise
            else:
                ended.append(uid)
        return ended

    async def hold(self, name: str, principal: str) -> job_pb2.Job:
        """Keep a waiting job from starting."""
        return self._message(await self._change(name, principal, lambda job, now: transitions.hold(job)))

    async def release(self, name: str, principal: str) -> job_pb2.Job:
        """Let a held job start."""
        return self._message(await self._change(name, principal, lambda job, now: transitions.release(job)))

    async def set_priority(self, name: str, priority: int, principal: str) -> job_pb2.Job:
        """Change the priority of a waiting job."""

        def change(job: Job, now: float) -> Change | None:
            refuse_priority(priority, job.user, self.core.limits)
            return transitions.set_priority(job, priority)

        return self._message(await self._change(name, principal, change))

    async def retry(self, name: str, request_id: str, principal: str, user: str) -> job_pb2.Job:
        """Make a new job of the same id from an ended one."""
        old = await self.get(name)
        if old.state not in _TERMINAL:
            raise Refused("JOB_NOT_ENDED", f"job {old.id} has not ended; only an ended job can be retried")
        request = jobs_messages_pb2.SubmitJobRequest(
            request_id=request_id, job_id=old.id, config=old.config, priority=old.priority, user=old.user
        )
        work = partial(draft, request, user, self.rules, self.core.limits)
        job = replace(await self.paths.run(work, old.config.project_path, key=f"draft {name}"), retry_of=old.uid)
        ids = [request_id] if request_id else []
        command = partial(accept, request=request, drafted=job, principal=principal)
        accepted, _ = await self.store.write(command, request_ids=ids)
        return self._message(accepted)

    async def delete(self, name: str, principal: str) -> None:
        """Remove the record of an ended job and its run folders."""

        def command(tx: Transaction) -> Job:
            job = tx.job(name)
            transitions.require_ended(job, "deleted")
            tx.delete(job, principal=principal)
            return job

        job = await self.store.write(command)
        await self.runs.remove_folders([job])

    async def wait(self, name: str, timeout: float) -> tuple[job_pb2.Job, bool]:
        """Wait until a job has ended, or for `timeout` seconds."""
        job = await self.get(name)
        if job.state in _TERMINAL:
            return job, True
        if job.uid in self.core.jobs and not self.core.draining:
            await self._waiters.wait(job.uid, min(timeout, MAX_WAIT_SECONDS))
        job = await self.get(job.uid)
        if self.core.draining and job.state not in _TERMINAL:
            raise draining()
        return job, job.state in _TERMINAL

    def watch(self, request: jobs_messages_pb2.WatchJobsRequest) -> AsyncIterator[Message]:
        """Send changes from a revision on."""
        return self.events.messages(request)

    async def preview(
        self, request: jobs_messages_pb2.SubmitJobRequest, user: str
    ) -> jobs_messages_pb2.PreviewJobResponse:
        """Tell what a job would run; nothing is run or recorded."""
        work = partial(draft, request, user, self.rules, self.core.limits)
        job = await self.paths.run(work, request.config.project_path, key=f"draft {request.config.project_path}")
        spec, environment = self.runs.preview(job)
        answer = jobs_messages_pb2.PreviewJobResponse(
            working_directory=spec.cwd,
            environment=environment,
            warnings=job.warnings,
            executor=job.spec.executor,
        )
        if spec.allocation is not None:
            answer.script, answer.submit_command = await self.clusters.preview(job.spec.executor, spec)
        else:
            answer.argv.extend(spec.argv)
            answer.command_line = shell_line(list(spec.argv))
        return answer

    async def tail(self, request: jobs_messages_pb2.TailLogRequest) -> AsyncIterator[jobs_messages_pb2.TailLogResponse]:
        """Send a run's output by offset."""
        uid = (await self.get(request.name)).uid
        job = await self.store.read(lambda reader: reader.job(uid))
        where = job.spec.project_path if job is not None else ""
        async for message in tail(request, partial(self.get, uid), self.paths, where):
            yield message
            if self.core.draining:
                raise draining()

    # What was committed ----------------------------------------------------------------------------------

    def _on_commit(self, batch: Sequence[Committed]) -> None:
        """Take over a commit: core first, then whoever watches or waits."""
        for item in batch:
            if item.limits is not None:
                self.core.limits = item.limits
            elif item.type in (EventType.QUEUE_PAUSED, EventType.QUEUE_RESUMED):
                self.core.paused = item.type is EventType.QUEUE_PAUSED
            elif item.type is EventType.JOB_DELETED and item.job is not None:
                self.core.remove(item.job.uid)
                self.runs.forget(item.job.uid)
            elif item.job is not None:
                self.core.apply(item.job)
                if item.type is EventType.JOB_STARTING:
                    self.runs.own(item.job.uid)
                elif item.job.state.terminal:
                    self.runs.forget(item.job.uid)
                    self._waiters.tell(item.job.uid)
        self.events.publish(batch)
        for observe in self.observers:
            observe(batch)
        if any(item.type not in _NOTHING_TO_PLAN for item in batch):
            self.runs.wake()

    def _on_reset(self, snapshot: Snapshot) -> None:
        """Begin anew from what is on disk: a commit failed."""
        self.core.reset(snapshot.jobs, snapshot.limits, snapshot.paused, snapshot.generation)
        self.events.reset(snapshot.revision)
        self._waiters.tell_all()
        self.runs.on_reset()

    # Helpers ---------------------------------------------------------------------------------------------

    async def _change(self, name: str, principal: str, change: Callable[[Job, float], Change | None]) -> Job:
        """Change a job in one transaction; gives the job after it."""

        def command(tx: Transaction) -> Job:
            job = tx.job(name)
            made = change(job, tx.now)
            if made is None:
                return job
            return tx.put(made.job, made.type, principal=principal, detail=made.detail)

        return await self.store.write(command)

    def _live(self, name: str) -> Job | None:
        job = self.core.jobs.get(name)
        if job is not None:
            return job
        return next((job for job in self.core.jobs.values() if job.id == name), None)

    async def _live_uids(self, job_filter: jobs_messages_pb2.JobFilter) -> list[str]:
        wanted = jobs_messages_pb2.JobFilter()
        wanted.CopyFrom(job_filter)
        if not wanted.states:
            wanted.states.extend([job_state_pb2.JOB_STATE_QUEUED, job_state_pb2.JOB_STATE_SCHEDULED])
            wanted.states.append(job_state_pb2.JOB_STATE_RUNNING)
        uids: list[str] = []
        token = ""
        while True:
            request = jobs_messages_pb2.ListJobsRequest(
                filter=wanted, page_size=1000, page_token=token, newest_first=True, omit_config=True
            )
            page = await self.list_jobs(request)
            uids += [job.uid for job in page.jobs]
            token = page.next_page_token
            if not token:
                return uids

    def _message(self, job: Job) -> job_pb2.Job:
        return self.explaining.explained(codec.job_to_message(job))


_NOTHING_TO_PLAN = frozenset(
    {
        EventType.JOB_STARTING,
        EventType.JOB_SCHEDULED,
        EventType.JOB_STARTED,
        EventType.JOB_CANCEL_REQUESTED,
        EventType.JOB_NOTE,
        EventType.JOB_DELETED,
        EventType.GATE,
    }
)
_TERMINAL = frozenset(
    {job_state_pb2.JOB_STATE_COMPLETED, job_state_pb2.JOB_STATE_FAILED, job_state_pb2.JOB_STATE_CANCELLED}
)


def job_not_found(name: str) -> Refused:
    """Make the answer to a name that no job bears."""
    return Refused("JOB_NOT_FOUND", f"there is no job {name!r}; `edbjobs list` shows those there are")


def draining() -> Refused:
    """Make the answer to what a stopping service does not do any more."""
    return Refused("DRAINING", "the service is stopping; try again when it is back")
