"""Queries about jobs: lists, waits, watches, previews and output; none changes a job."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edbjobs.v1 import event_pb2, job_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.contract.views import BASIC, FULL
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal
from edbjobs_server.events.log import Message
from edbjobs_server.manager.log_reader import read_log
from edbjobs_server.manager.manager_base import TERMINAL, ManagerBase, draining
from edbjobs_server.manager.progress_tracker import JobProgressed
from edbjobs_server.manager.references import has_uid_form, require_filter, require_ref
from edbjobs_server.manager.submission import draft
from edbjobs_server.solver.command_line import shell_line
from edbjobs_server.store import job_not_found

MAX_WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class LiveJobs:
    """The jobs that have not ended, as they are at one revision of one store."""

    jobs: list[Job]
    revision: int
    store_id: str


@dataclass(frozen=True)
class JobEvents:
    """A page of the changes of one job.

    Attributes
    ----------
    job : edbjobs.v1.Job
        The job as it is now.
    changes : edbjobs.v1.WatchJobsResponse
        Its changes, oldest first.
    next_after_revision : int or None
        Revision that the next page starts after; None: there is no more.
    """

    job: job_pb2.Job
    changes: jobs_messages_pb2.WatchJobsResponse
    next_after_revision: int | None


class JobQueries(ManagerBase):
    """The methods of `JobManager` that read jobs."""

    async def get(self, ref: JobRef, view: job_pb2.JobView.ValueType = FULL) -> job_pb2.Job:
        """Return a job."""
        require_ref(ref)
        data = await self._store.read(lambda reader: reader.job_bytes(ref, view))
        if data is None:
            raise job_not_found(ref)
        return self._reasons.explained(job_pb2.Job.FromString(data))

    async def ref_of(self, name: str) -> JobRef:
        """Return what a name of the documented API means: a uid if there is such a job, else an id."""
        if not has_uid_form(name):
            return JobRef(id=name)
        ref = JobRef(uid=name)
        if name in self._core.jobs:  # told without the store, which may be unavailable
            return ref
        return ref if await self._store.read(lambda reader: reader.uid(ref)) is not None else JobRef(id=name)

    async def list_jobs(self, request: jobs_messages_pb2.ListJobsRequest) -> jobs_messages_pb2.ListJobsResponse:
        """Return a page of jobs."""
        job_filter = require_filter(request.filter)
        newest_first = request.order == jobs_messages_pb2.JOB_ORDER_CREATE_TIME_DESCENDING
        view = request.view or BASIC
        if request.page_size < 0:
            what = "expected a number from 0 to 1000"
            raise Refused("INVALID_REQUEST", f"page_size: {what}", fields={"page_size": what})
        page = await self._store.read(
            lambda reader: reader.page(job_filter, request.page_token, request.page_size, newest_first, view)
        )
        answer = jobs_messages_pb2.ListJobsResponse(
            next_page_token=page.next_token,
            total_size=page.total,
            position=event_pb2.Position(revision=page.revision, store_id=self._store.store_id),
        )
        answer.jobs.extend(self._reasons.explained(job) for job in page.jobs)
        return answer

    def explained(self, message: job_pb2.Job) -> job_pb2.Job:
        """Add to the message of a live job why it waits now, and its progress."""
        return self._reasons.explained(message)

    def live_jobs(self) -> LiveJobs:
        """Return the jobs that have not ended."""
        return LiveJobs([*self._core.jobs.values()], self._events.revision, self._store.store_id)

    @property
    def store_id(self) -> str:
        """Id of the store whose revisions these are."""
        return self._store.store_id

    def running_jobs(self) -> list[Job]:
        """Return the jobs that have an open attempt."""
        return [job for job in self._core.running() if job.open_attempt is not None]

    def queue_position(self, uid: str) -> int:
        """Return a job's place in the queue, from 1; 0: it does not wait."""
        why = self._core.explain(uid, time.time())
        return 0 if why.before is None else why.before + 1

    async def nodes_of(self, attempts: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Sequence[str]]:
        """Return the nodes that attempts run, or ran, on; each is given by uid and number."""
        uids = {uid for uid, _ in attempts}
        jobs = {uid: self._core.jobs[uid] for uid in uids & self._core.jobs.keys()}
        if ended := uids - jobs.keys():
            found = await self._store.read(lambda reader: [reader.job(uid) for uid in ended])
            jobs |= {job.uid: job for job in found if job is not None}
        return {(uid, item.number): item.nodes for uid, job in jobs.items() for item in job.attempts}

    async def job_events(self, ref: JobRef, after_revision: int, limit: int) -> JobEvents:
        """Return changes of a job after a revision; a page may come out short, as the search is bounded."""
        job = await self.get(ref)
        events, searched = await self._store.read(lambda reader: reader.events_of(job.uid, after_revision, limit))
        changes = jobs_messages_pb2.WatchJobsResponse(
            events=[event_pb2.WatchEvent.FromString(data) for data in events],
            position=event_pb2.Position(revision=searched, store_id=self._store.store_id),
        )
        return JobEvents(job, changes, searched if searched < job.revision else None)

    async def wait(self, ref: JobRef, timeout: float) -> job_pb2.Job:
        """Wait until a job has ended, or for `timeout` seconds; return it as it is then."""
        if timeout < 0:
            what = "expected a time that is not negative"
            raise Refused("INVALID_REQUEST", f"timeout: {what}, got {timeout:g} s", fields={"timeout": what})
        job = await self.get(ref)
        if job.state in TERMINAL:
            return job
        if timeout and job.uid in self._core.jobs and not self._core.draining:
            await self._waiters.wait(job.uid, min(timeout, MAX_WAIT_SECONDS))
        job = await self.get(JobRef(uid=job.uid))
        if self._core.draining and job.state not in TERMINAL:
            raise draining()
        return job

    def watch(self, request: jobs_messages_pb2.WatchJobsRequest) -> AsyncIterator[Message]:
        """Yield changes from a position on, and updates if they are requested."""
        require_filter(request.filter)
        return self._events.messages(request, self._updates.feed)

    def watch_progress(self, is_needed: Callable[[], bool]) -> AsyncIterator[Sequence[JobProgressed]]:
        """Yield the running jobs whose progress has changed, once a second, while `is_needed` returns true."""
        return self._runs.progress.watch(is_needed)

    async def preview(
        self, request: jobs_messages_pb2.SubmitJobRequest, principal: Principal
    ) -> jobs_messages_pb2.PreviewJobResponse:
        """Return what a job would run; nothing is run or recorded."""
        work = partial(draft, request, principal, self._rules, self._core.limits)
        job = await self._paths.run(work, request.config.project_path, key=f"draft {request.config.project_path}")
        spec, environment = self._runs.preview(job)
        answer = jobs_messages_pb2.PreviewJobResponse(
            working_directory=spec.cwd,
            environment=environment,
            warnings=job.warnings,
            scheduler=job.spec.scheduler,
            reservation=job_pb2.Reservation(
                cores=job.spec.cores, memory_bytes=job.spec.memory_bytes, licenses=dict(job.spec.licenses)
            ),
        )
        if spec.allocation is not None:
            answer.script, answer.submit_command = await self._clusters.preview(job.spec.scheduler, spec)
        else:
            answer.argv.extend(spec.argv)
            answer.command_line = shell_line(list(spec.argv))
        return answer

    async def read_log(
        self, request: jobs_messages_pb2.ReadLogRequest
    ) -> AsyncIterator[jobs_messages_pb2.ReadLogResponse]:
        """Yield the output of an attempt by offset."""
        uid = (await self.get(request.job)).uid
        job = await self._store.read(lambda reader: reader.job(uid))
        where = job.spec.project_path if job is not None else ""
        async for message in read_log(request, partial(self.get, JobRef(uid=uid)), self._paths, where):
            yield message
            if self._core.draining:
                raise draining()
