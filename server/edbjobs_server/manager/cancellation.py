"""Cancelling jobs: one, or those that a filter selects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edbjobs.v1 import job_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

from edbjobs_server.contract.errors import item_status, reason_number
from edbjobs_server.contract.views import BASIC
from edbjobs_server.core import transitions
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import State
from edbjobs_server.core.transitions import Change
from edbjobs_server.manager.job_changes import JobChanges, require_own
from edbjobs_server.manager.references import require_ref, require_selection
from edbjobs_server.manager.selection import MAX_SELECTED, Selection, select, still_selected
from edbjobs_server.manager.validation import MAX_GRACE_SECONDS
from edbjobs_server.store import Reader, Transaction, job_not_found

MAX_BYTES = 3 * 1024 * 1024
_ROOM_FOR_ONE = 1024  # of a result, beside the texts of its job
_SLICE = 100


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one job."""

    ref: JobRef
    outcome: Job | Refused


@dataclass(frozen=True, slots=True)
class _Results:
    """What became of many; `more`: not all fitted in one answer."""

    results: Sequence[_Result]
    more: bool


class Cancellation(JobChanges):
    """The methods of `JobManager` that cancel jobs."""

    async def cancel(
        self,
        ref: JobRef,
        principal: Principal,
        grace: float | None,
        abandon: bool = False,
        *,
        refuse_cancelled: bool = False,
    ) -> job_pb2.Job:
        """End a job; works also while the store cannot be written.

        Parameters
        ----------
        ref : JobRef
            The job. One that is CANCELLED is returned as it is.
        principal : Principal
            The caller.
        grace : float or None
            Seconds between TERM and KILL; None: the job's.
        abandon : bool, default: False
            End the record of a job that cannot be ended.
        refuse_cancelled : bool, default: False
            Refuse a CANCELLED job with JOB_ENDED, as any other that has ended.
        """
        require_ref(ref)
        _require_grace(grace)
        state_unknown = False

        def change(job: Job, now: float) -> Change | None:
            if job.state is State.CANCELLED and not refuse_cancelled:
                return None
            if not abandon:
                return transitions.cancel(job, now, grace)
            return transitions.abandon(job, now, state_unknown)

        live = self._live(ref)
        if abandon and live is not None:
            if self._runs.has_ended(live.uid):
                return await self._conclude(live.uid, principal)
            state_unknown = self._runs.is_state_unknown(live.uid)
        try:
            job = await self._change(ref, principal, change)
        except Refused as refused:
            if refused.reason != "STORE_UNAVAILABLE" or live is None or live.open_attempt is None:
                raise
            return self._end_unrecorded(live, principal, grace, refused)
        if job.open_attempt is not None:
            self._runs.end(job, job.cancel_grace_period)
        return self._message(job)

    async def cancel_many(
        self,
        job_filter: jobs_messages_pb2.JobFilter,
        everything: bool,
        principal: Principal,
        grace: float | None,
    ) -> jobs_messages_pb2.CancelJobsResponse:
        """End the jobs that a filter selects, at most `MAX_SELECTED` and the oldest first, in one transaction."""
        require_selection(job_filter, everything)
        _require_grace(grace)
        selection = await self._store.read(
            lambda reader: select(reader, job_filter, lambda job: _has_effect(reader, job, grace))
        )
        command = partial(_cancel_all, selection=selection, principal=principal, grace=grace)
        done = await self._store.write(command)
        answer = jobs_messages_pb2.CancelJobsResponse(more=done.more)
        for number, item in enumerate(done.results):
            result = answer.results.add(job=item.ref)
            if isinstance(item.outcome, Refused):
                result.error.CopyFrom(item_status(item.outcome, MAX_BYTES // MAX_SELECTED))
                result.error_reason = reason_number(item.outcome)
            else:
                if item.outcome.open_attempt is not None:
                    self._runs.end(item.outcome, item.outcome.cancel_grace_period)
                result.changed.CopyFrom(self._message(item.outcome, BASIC))
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)  # a long answer must not block the loop
        return answer

    async def _conclude(self, uid: str, principal: Principal) -> job_pb2.Job:
        """Record the end of a job whose processes are gone, with the result as far as it can be read now."""
        await self._change(JobRef(uid=uid), principal, lambda job, now: transitions.cancel(job, now, 0.0))
        recorded = await self._runs.conclude(uid)
        answer = await self.get(JobRef(uid=uid))
        if not recorded:
            answer.warnings.append("its end is not on record yet")
        return answer

    def _end_unrecorded(self, live: Job, principal: Principal, grace: float | None, refused: Refused) -> job_pb2.Job:
        """End the run of a job while the store cannot be written."""
        require_own(principal, live)
        if live.cancel_request_time is not None:  # a longer grace period than before has no effect
            before = transitions.grace_of(live)
            grace = before if grace is None else min(grace, before)
        self._runs.end(live, grace)
        answer = self._message(live)
        answer.warnings.append(f"it is being ended, but that is not on record yet: {refused.message}")
        return answer

    def _live(self, ref: JobRef) -> Job | None:
        if ref.uid:
            return self._core.jobs.get(ref.uid)
        return next((job for job in self._core.jobs.values() if job.id == ref.id), None)


def _cancel_all(tx: Transaction, selection: Selection, principal: Principal, grace: float | None) -> _Results:
    results: list[_Result] = []
    room = MAX_BYTES
    for uid in selection.uids:
        named = selection.named.get(uid)
        job = tx.find(uid)
        if job is None or not still_selected(selection.job_filter, job):
            if job is None and named is not None:
                results.append(_Result(named, job_not_found(named)))
            continue
        room -= _ROOM_FOR_ONE + len(job.config) + 3 * len(job.spec.project_path) + 3 * len(job.waiting_message)
        if results and room < 0:
            return _Results(results, more=True)
        outcome = tx.attempt(partial(_cancel_one, job=job, principal=principal, grace=grace))
        if named is not None or (isinstance(outcome, Job) and outcome is not job):
            results.append(_Result(named or JobRef(uid=uid), outcome))
    results += [_Result(ref, job_not_found(ref)) for ref in selection.missing]
    return _Results(results, selection.more)


def _has_effect(reader: Reader, message: job_pb2.Job, grace: float | None) -> bool:
    """Return whether cancelling a job changes it: else a call would select the same jobs again and again."""
    if not message.HasField("cancel_request_time"):
        return True
    job = reader.job(message.uid) if grace is not None else None
    return job is not None and grace is not None and grace < transitions.grace_of(job)


def _cancel_one(tx: Transaction, job: Job, principal: Principal, grace: float | None) -> Job:
    require_own(principal, job)
    if job.state is State.CANCELLED:
        return job
    made = transitions.cancel(job, tx.now, grace)
    return job if made is None else tx.put(made.job, made.type, principal=principal, detail=made.detail)


def _require_grace(grace: float | None) -> None:
    if grace is not None and not 0 <= grace <= MAX_GRACE_SECONDS:
        what = f"expected 0 to {MAX_GRACE_SECONDS:g} seconds"
        raise Refused("INVALID_REQUEST", f"grace_period: {what}, got {grace:g}", fields={"grace_period": what})
