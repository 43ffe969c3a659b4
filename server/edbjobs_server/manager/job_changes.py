"""What the changes of jobs have in common: one transaction, on a job that the caller may change."""

from __future__ import annotations

from collections.abc import Callable

from edbjobs.v1 import job_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.auth import roles
from edbjobs_server.contract import codec
from edbjobs_server.contract.views import BASIC, FULL
from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.transitions import Change
from edbjobs_server.manager.job_queries import JobQueries
from edbjobs_server.manager.references import require_ref
from edbjobs_server.store import Transaction


class JobChanges(JobQueries):
    """Helpers of the methods of `JobManager` that change jobs."""

    async def _change(self, ref: JobRef, principal: Principal, change: Callable[[Job, float], Change | None]) -> Job:
        """Change a job in one transaction; return the changed job."""
        require_ref(ref)

        def command(tx: Transaction) -> Job:
            job = tx.named(ref)
            require_own(principal, job)
            made = change(job, tx.now)
            if made is None:
                return job
            return tx.put(made.job, made.type, principal=principal, detail=made.detail)

        return await self._store.write(command)

    def _message(self, job: Job, view: job_pb2.JobView.ValueType = FULL) -> job_pb2.Job:
        if view == BASIC:
            return self.explained(job_pb2.Job.FromString(codec.basic_bytes(job)))
        return self.explained(codec.job_to_message(job))


def require_own(principal: Principal, job: Job | job_pb2.Job) -> None:
    """Refuse a change of another user's job, except by an administrator."""
    roles.require_user(principal, job.user, f"change job {job.id} of user {job.user}")
