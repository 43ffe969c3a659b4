"""Changes of jobs: submit, cancel, hold, release, priority, retry and delete; each is on disk when it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from edbjobs.v1 import job_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.auth import roles
from edbjobs_server.contract.views import FULL
from edbjobs_server.core import transitions
from edbjobs_server.core.admission import refuse_priority
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.core.states import State
from edbjobs_server.core.transitions import Change
from edbjobs_server.manager.cancellation import Cancellation
from edbjobs_server.manager.fingerprints import retry_fingerprint
from edbjobs_server.manager.job_changes import require_own
from edbjobs_server.manager.manager_base import draining
from edbjobs_server.manager.references import require_ref
from edbjobs_server.manager.retrying import refuse_other_retry, require_retry, retry
from edbjobs_server.manager.submission import draft
from edbjobs_server.manager.validation import Submission
from edbjobs_server.store import Transaction, job_not_found
from edbjobs_server.util import failpoints

_FULL = job_pb2.Job(view=FULL).SerializeToString()
MAX_ITEMS = 1000
SLICE = 100


@dataclass(frozen=True)
class Accepted:
    """A submitted job as it is on disk.

    Attributes
    ----------
    message : bytes
        Serialized ``edbjobs.v1.Job``, as ``JOB_VIEW_FULL``.
    short : bytes
        The same as ``JOB_VIEW_BASIC`` without its configuration.
    existed : bool
        Whether an earlier request made it.
    """

    message: bytes
    short: bytes = b""
    existed: bool = False

    @cached_property
    def job(self) -> job_pb2.Job:
        """The same, parsed."""
        return job_pb2.Job.FromString(self.message)


class JobCommands(Cancellation):
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
                why = self._reasons.addition(item.job.uid, item.job.state)
                answers.append(Accepted(item.message + why, item.short + why, item.existed))
            if len(answers) % SLICE == 0:
                await asyncio.sleep(0)  # a long answer must not block the loop
        return answers

    async def hold(self, ref: JobRef, principal: Principal) -> job_pb2.Job:
        """Hold a waiting job."""
        return self._message(await self._change(ref, principal, lambda job, now: transitions.hold(job)))

    async def release(self, ref: JobRef, principal: Principal) -> job_pb2.Job:
        """Release a held job."""
        return self._message(await self._change(ref, principal, lambda job, now: transitions.release(job)))

    async def set_priority(self, ref: JobRef, priority: int, principal: Principal) -> job_pb2.Job:
        """Change the priority of a waiting job."""

        def change(job: Job, now: float) -> Change | None:
            refuse_priority(priority, job.user, self._core.limits)
            return transitions.set_priority(job, priority)

        return self._message(await self._change(ref, principal, change))

    async def retry(self, request: jobs_messages_pb2.RetryJobRequest, principal: Principal) -> Accepted:
        """Submit an ended job again, under the same id: the new job supersedes it.

        A repeated request is answered with the job that it made.
        """
        require_retry(request)
        if request.request_id:  # looked up first, as an id is that of the new job by now
            known = await self._store.read(lambda reader: reader.request(principal.name, request.request_id))
            if known is not None:
                return await self._retried(request, *known)
        old = await self.get(request.job)
        job = await self._draft_retry(request, old, principal)
        ids = [request.request_id] if request.request_id else []
        command = partial(retry, request=request, old=old.uid, drafted=job, principal=principal)
        new, existed = await self._store.write(command, request_ids=ids)
        return self._accepted(new, existed)

    async def _retried(self, request: jobs_messages_pb2.RetryJobRequest, uid: str, digest: bytes) -> Accepted:
        """Return the job that an equal request made before."""
        job = await self._store.read(lambda reader: reader.job(uid))
        refuse_other_retry(request, uid, digest, job)
        if job is None:
            raise job_not_found(JobRef(uid=uid))
        return self._accepted(job, existed=True)

    async def _draft_retry(
        self, request: jobs_messages_pb2.RetryJobRequest, old: job_pb2.Job, principal: Principal
    ) -> Job:
        require_own(principal, old)
        before = await self._store.read(lambda reader: reader.job(old.uid))
        if before is not None:
            transitions.supersede(before, "")
        submission = jobs_messages_pb2.SubmitJobRequest(
            request_id=request.request_id, job_id=old.id, config=old.config, priority=old.priority, user=old.user
        )
        work = partial(draft, submission, principal, self._rules, self._core.limits)
        job = await self._paths.run(work, old.config.project_path, key=f"draft {old.uid}")
        return replace(job, retry_of=old.uid, digest=retry_fingerprint(request, old))

    def _accepted(self, job: Job, existed: bool) -> Accepted:
        return Accepted(self._message(job).SerializeToString(), existed=existed)

    async def delete(self, ref: JobRef, principal: Principal) -> None:
        """Remove the record of an ended job and its run folders, and those of the jobs that it superseded."""
        require_ref(ref)
        if ref.id:
            what = "expected a uid: after the deletion, the id would be an older job"
            raise Refused("INVALID_REQUEST", f"job.id: {what}", fields={"job.id": what})

        def command(tx: Transaction) -> list[Job]:
            job = tx.named(ref)
            require_own(principal, job)
            transitions.require_ended(job, "deleted")
            doomed = [*superseded(tx, job), job]
            for item in doomed:
                tx.delete(item, principal=principal)
            return doomed

        await self._runs.remove_folders(await self._store.write(command))

    async def hold_waiting(self, principal: Principal) -> None:
        """Hold every job that waits."""
        uids = [job.uid for job in self._core.jobs.values() if is_waiting(job) and not job.held]
        await self._change_all(uids, principal, transitions.hold)

    async def release_held(self, principal: Principal) -> int:
        """Release every held job; return how many were released."""
        uids = [job.uid for job in self._core.jobs.values() if job.held]
        return await self._change_all(uids, principal, transitions.release)

    # Helpers ---------------------------------------------------------------------------------------------

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


def superseded(tx: Transaction, job: Job) -> list[Job]:
    """Return the jobs that a job superseded, oldest first."""
    found: list[Job] = []
    newer = job
    while newer.retry_of:
        older = tx.find(newer.retry_of)
        if older is None or older.superseded_by != newer.uid:
            break
        found.insert(0, older)
        newer = older
    return found


def is_waiting(job: Job) -> bool:
    """Return whether a job is queued and no start of it is planned."""
    return job.state is State.QUEUED and job.open_attempt is None
