"""Changes of jobs: submit, cancel, hold, release, priority, retry and delete; each is on disk when it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from edbjobs.v1 import job_pb2, job_state_pb2, jobs_messages_pb2

from edbjobs_server.auth import roles
from edbjobs_server.contract import codec
from edbjobs_server.core import transitions
from edbjobs_server.core.admission import refuse_priority
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.core.states import State
from edbjobs_server.core.transitions import Change
from edbjobs_server.manager.job_queries import JobQueries
from edbjobs_server.manager.manager_base import TERMINAL, draining
from edbjobs_server.manager.submission import accept, draft
from edbjobs_server.manager.validation import Submission
from edbjobs_server.store import Transaction
from edbjobs_server.util import failpoints

MAX_ITEMS = 1000
SLICE = 100


@dataclass(frozen=True)
class Accepted:
    """A submitted job as it is on disk.

    Attributes
    ----------
    message : bytes
        Serialized ``edbjobs.v1.Job``.
    existed : bool
        Whether an earlier request made it.
    """

    message: bytes
    existed: bool = False

    @cached_property
    def job(self) -> job_pb2.Job:
        """The same, parsed."""
        return job_pb2.Job.FromString(self.message)


class JobCommands(JobQueries):
    """The methods of `JobManager` that change jobs."""

    async def submit(self, request: jobs_messages_pb2.SubmitJobRequest | Submission, principal: Principal) -> Accepted:
        """Accept a job, or return the one that an equal request made before."""
        (result,) = await self.submit_many([request], principal)
        if isinstance(result, Refused):
            raise result
        return result

    async def submit_many(
        self, requests: Sequence[jobs_messages_pb2.SubmitJobRequest | Submission], principal: Principal
    ) -> list[Accepted | Refused]:
        """Accept jobs in one transaction; an invalid one does not affect the others."""
        roles.require(principal, Role.USER, "submit jobs")
        if self._core.draining:
            raise draining()
        if len(requests) > MAX_ITEMS:
            text = f"{len(requests)} jobs in one request; at most {MAX_ITEMS} are taken"
            raise Refused("TOO_MANY_ITEMS", text, metadata={"limit": str(MAX_ITEMS)})
        results = await self._drafts.submit(requests, principal)
        failpoints.point("submit.before_reply")
        answers: list[Accepted | Refused] = []
        for item in results:
            if isinstance(item, Refused):
                answers.append(item)
            else:
                message = item.message + self._reasons.addition(item.job.uid, item.job.state)
                answers.append(Accepted(message, item.existed))
            if len(answers) % SLICE == 0:
                await asyncio.sleep(0)  # a long answer must not block the loop
        return answers

    async def cancel(self, name: str, principal: Principal, grace: float | None, abandon: bool = False) -> job_pb2.Job:
        """End a job; works also while the store cannot be written."""
        if grace is not None and not 0 <= grace <= 3600:
            raise Refused("INVALID_JOB", "grace must be 0 to 3600 seconds", fields={"grace": "0 to 3600 seconds"})

        state_unknown = False

        def change(job: Job, now: float) -> Change | None:
            if not abandon:
                return transitions.cancel(job, now, grace)
            return transitions.abandon(job, now, state_unknown)

        live = self._live(name)
        if abandon and live is not None:
            if self._runs.has_ended(live.uid):
                return await self._conclude(live.uid, principal)
            state_unknown = self._runs.is_state_unknown(live.uid)
        try:
            job = await self._change(name, principal, change)
        except Refused as refused:
            if refused.reason != "STORE_UNAVAILABLE" or live is None or live.open_attempt is None:
                raise
            self._runs.end(live, grace)
            answer = self._message(live)
            answer.warnings.append(f"it is being ended, but that is not on record yet: {refused.message}")
            return answer
        if job.open_attempt is not None:
            self._runs.end(job, grace)
        return self._message(job)

    async def _conclude(self, uid: str, principal: Principal) -> job_pb2.Job:
        """Record the end of a job whose processes are gone, with the result as far as it can be read now."""
        await self._change(uid, principal, lambda job, now: transitions.cancel(job, now, 0.0))
        recorded = await self._runs.conclude(uid)
        answer = await self.get(uid)
        if not recorded:
            answer.warnings.append("its end is not on record yet")
        return answer

    async def cancel_many(
        self, job_filter: jobs_messages_pb2.JobFilter, everything: bool, principal: Principal, grace: float | None
    ) -> list[str]:
        """End all live jobs that match a filter; return their uids."""
        if not everything and not job_filter.ByteSize():
            raise Refused(
                "FILTER_REQUIRED",
                "expected a filter, got an empty one, which means every job; set `all` to end every job",
            )
        uids = await self._live_uids(job_filter)
        ended: list[str] = []
        for uid in uids:
            try:
                await self.cancel(uid, principal, grace)
            except Refused as refused:
                if refused.reason not in {"JOB_ENDED", "JOB_NOT_FOUND", "PERMISSION_DENIED"}:
                    raise
            else:
                ended.append(uid)
        return ended

    async def hold(self, name: str, principal: Principal) -> job_pb2.Job:
        """Hold a waiting job."""
        return self._message(await self._change(name, principal, lambda job, now: transitions.hold(job)))

    async def release(self, name: str, principal: Principal) -> job_pb2.Job:
        """Release a held job."""
        return self._message(await self._change(name, principal, lambda job, now: transitions.release(job)))

    async def set_priority(self, name: str, priority: int, principal: Principal) -> job_pb2.Job:
        """Change the priority of a waiting job."""

        def change(job: Job, now: float) -> Change | None:
            refuse_priority(priority, job.user, self._core.limits)
            return transitions.set_priority(job, priority)

        return self._message(await self._change(name, principal, change))

    async def retry(self, name: str, request_id: str, principal: Principal) -> job_pb2.Job:
        """Submit an ended job again, under the same id."""
        old = await self.get(name)
        require_own(principal, old)
        if old.state not in TERMINAL:
            raise Refused(
                "JOB_NOT_ENDED",
                f"job {old.id} has not ended; only an ended job can be retried",
                metadata={"uid": old.uid, "state": State(old.state).name},
            )
        request = jobs_messages_pb2.SubmitJobRequest(
            request_id=request_id, job_id=old.id, config=old.config, priority=old.priority, user=old.user
        )
        work = partial(draft, request, principal, self._rules, self._core.limits)
        job = replace(await self._paths.run(work, old.config.project_path, key=f"draft {name}"), retry_of=old.uid)
        ids = [request_id] if request_id else []
        command = partial(accept, request=request, drafted=job, principal=principal)
        accepted, _ = await self._store.write(command, request_ids=ids)
        return self._message(accepted)

    async def delete(self, name: str, principal: Principal) -> None:
        """Remove the record of an ended job and its run folders."""

        def command(tx: Transaction) -> Job:
            job = tx.job(name)
            require_own(principal, job)
            transitions.require_ended(job, "deleted")
            tx.delete(job, principal=principal)
            return job

        job = await self._store.write(command)
        await self._runs.remove_folders([job])

    async def hold_waiting(self, principal: Principal) -> None:
        """Hold every job that waits."""
        uids = [job.uid for job in self._core.jobs.values() if is_waiting(job) and not job.held]
        await self._change_all(uids, principal, transitions.hold)

    async def release_held(self, principal: Principal) -> int:
        """Release every held job; return how many were released."""
        uids = [job.uid for job in self._core.jobs.values() if job.held]
        return await self._change_all(uids, principal, transitions.release)

    # Helpers ---------------------------------------------------------------------------------------------

    async def _change(self, name: str, principal: Principal, change: Callable[[Job, float], Change | None]) -> Job:
        """Change a job in one transaction; return the changed job."""

        def command(tx: Transaction) -> Job:
            job = tx.job(name)
            require_own(principal, job)
            made = change(job, tx.now)
            if made is None:
                return job
            return tx.put(made.job, made.type, principal=principal, detail=made.detail)

        return await self._store.write(command)

    async def _change_all(
        self, uids: Sequence[str], principal: Principal, change: Callable[[Job], Change | None]
    ) -> int:
        """Change jobs, in one transaction if the store can; return how many were changed."""

        def command(tx: Transaction, uid: str) -> bool:
            made = change(tx.job(uid))
            if made is not None:
                tx.put(made.job, made.type, principal=principal, detail=made.detail)
            return made is not None

        results = await self._store.write_all([partial(command, uid=uid) for uid in uids])
        return sum(1 for result in results if result is True)

    def _live(self, name: str) -> Job | None:
        job = self._core.jobs.get(name)
        if job is not None:
            return job
        return next((job for job in self._core.jobs.values() if job.id == name), None)

    async def _live_uids(self, job_filter: jobs_messages_pb2.JobFilter) -> list[str]:
        live_filter = jobs_messages_pb2.JobFilter()
        live_filter.CopyFrom(job_filter)
        if not live_filter.states:
            live_filter.states.extend([job_state_pb2.JOB_STATE_QUEUED, job_state_pb2.JOB_STATE_SCHEDULED])
            live_filter.states.append(job_state_pb2.JOB_STATE_RUNNING)
        uids: list[str] = []
        token = ""
        while True:
            request = jobs_messages_pb2.ListJobsRequest(
                filter=live_filter, page_size=1000, page_token=token, newest_first=True, omit_config=True
            )
            page = await self.list_jobs(request)
            uids += [job.uid for job in page.jobs]
            token = page.next_page_token
            if not token:
                return uids

    def _message(self, job: Job) -> job_pb2.Job:
        return self.explained(codec.job_to_message(job))


def require_own(principal: Principal, job: Job | job_pb2.Job) -> None:
    """Refuse a change of another user's job, except by an administrator."""
    roles.require_user(principal, job.user, f"change job {job.id} of user {job.user}")


def is_waiting(job: Job) -> bool:
    """Return whether a job is queued and no start of it is planned."""
    return job.state is State.QUEUED and job.open_attempt is None
