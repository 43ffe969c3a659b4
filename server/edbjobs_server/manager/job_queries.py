"""Queries about jobs: lists, waits, watches, previews and output; none changes a job."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edbjobs.v1 import event_pb2, job_pb2, jobs_messages_pb2

from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import Waiting
from edbjobs_server.events.log import Message
from edbjobs_server.manager.log_tail import tail
from edbjobs_server.manager.manager_base import TERMINAL, ManagerBase, draining, job_not_found
from edbjobs_server.manager.progress_tracker import JobProgressed
from edbjobs_server.manager.submission import draft
from edbjobs_server.solver.command_line import shell_line

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

    async def get(self, name: str) -> job_pb2.Job:
        """Return a job."""
        data = await self._store.read(lambda reader: reader.job_bytes(name))
        if data is None:
            raise job_not_found(name)
        return self._reasons.explained(job_pb2.Job.FromString(data))

    async def list_jobs(self, request: jobs_messages_pb2.ListJobsRequest) -> jobs_messages_pb2.ListJobsResponse:
        """Return a page of jobs."""
        size = min(max(request.page_size, 0) or 50, 1000)
        page = await self._store.read(
            lambda reader: reader.page(
                request.filter, request.page_token, size, request.newest_first, request.omit_config
            )
        )
        answer = jobs_messages_pb2.ListJobsResponse(
            next_page_token=page.next_token,
            total=page.total,
            revision=page.revision,
            store_id=self._store.store_id,
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
        return 0 if why.reason in (Waiting.NONE, Waiting.STARTING) else why.before + 1

    async def job_events(self, name: str, after_revision: int, limit: int) -> JobEvents:
        """Return changes of a job after a revision; a page may come out short, as the search is bounded."""
        job = await self.get(name)
        events, searched = await self._store.read(lambda reader: reader.events_of(job.uid, after_revision, limit))
        changes = jobs_messages_pb2.WatchJobsResponse(
            events=[event_pb2.Event.FromString(data) for data in events], store_id=self._store.store_id
        )
        return JobEvents(job, changes, searched if searched < job.revision else None)

    async def wait(self, name: str, timeout: float) -> tuple[job_pb2.Job, bool]:
        """Wait until a job has ended, or for `timeout` seconds."""
        job = await self.get(name)
        if job.state in TERMINAL:
            return job, True
        if job.uid in self._core.jobs and not self._core.draining:
            await self._waiters.wait(job.uid, min(timeout, MAX_WAIT_SECONDS))
        job = await self.get(job.uid)
        if self._core.draining and job.state not in TERMINAL:
            raise draining()
        return job, job.state in TERMINAL

    def watch(self, request: jobs_messages_pb2.WatchJobsRequest) -> AsyncIterator[Message]:
        """Yield changes from a revision on."""
        return self._events.messages(request)

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
            executor=job.spec.executor,
        )
        if spec.allocation is not None:
            answer.script, answer.submit_command = await self._clusters.preview(job.spec.executor, spec)
        else:
            answer.argv.extend(spec.argv)
            answer.command_line = shell_line(list(spec.argv))
        return answer

    async def tail(self, request: jobs_messages_pb2.TailLogRequest) -> AsyncIterator[jobs_messages_pb2.TailLogResponse]:
        """Yield a run's output by offset."""
        uid = (await self.get(request.name)).uid
        job = await self._store.read(lambda reader: reader.job(uid))
        where = job.spec.project_path if job is not None else ""
        async for message in tail(request, partial(self.get, uid), self._paths, where):
            yield message
            if self._core.draining:
                raise draining()
