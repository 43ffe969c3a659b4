"""Putting a retry on disk: the new job, and the old one that it supersedes, in one commit."""

from __future__ import annotations

from edbjobs.v1 import jobs_messages_pb2

from edbjobs_server.core import transitions
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import EventType
from edbjobs_server.manager.acceptance import exists, refuse_reused
from edbjobs_server.manager.fingerprints import is_retry
from edbjobs_server.manager.references import require_ref
from edbjobs_server.manager.validation import MAX_REQUEST_ID
from edbjobs_server.store import Duplicate, Transaction


def require_retry(request: jobs_messages_pb2.RetryJobRequest) -> None:
    """Refuse a request to retry that is wrong.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    require_ref(request.job)
    if len(request.request_id) > MAX_REQUEST_ID:
        what = f"at most {MAX_REQUEST_ID} characters"
        raise Refused("INVALID_REQUEST", f"request_id: {what}", fields={"request_id": what})


def retry(
    tx: Transaction, request: jobs_messages_pb2.RetryJobRequest, old: str, drafted: Job, principal: Principal
) -> tuple[Job, bool]:
    """Put a retry on disk, or find the one that an equal request made; True where it existed.

    Raises
    ------
    Refused
        JOB_NOT_FOUND, JOB_NOT_ENDED, JOB_SUPERSEDED, JOB_EXISTS or REQUEST_ID_REUSED.
    """
    known = tx.request(principal.name, request.request_id) if request.request_id else None
    if known is not None:
        uid, digest = known
        refuse_other_retry(request, uid, digest, tx.find(uid))
        return tx.job(uid), True
    job = tx.job(old)
    superseded = transitions.supersede(job, drafted.uid)
    try:
        made = tx.insert(drafted, EventType.JOB_QUEUED, principal=principal)
    except Duplicate:  # of its id: the request_id is new
        live = tx.live_id(job.id)
        assert live is not None, "only a live id is a duplicate"
        raise exists(live) from None
    tx.put(superseded.job, superseded.type, principal=principal, detail=superseded.detail)
    return made, False


def refuse_other_retry(request: jobs_messages_pb2.RetryJobRequest, uid: str, digest: bytes, job: Job | None) -> None:
    """Refuse a request_id that was not used to retry the same job.

    Raises
    ------
    Refused
        REQUEST_ID_REUSED.
    """
    same = job is None or request.job.uid == job.retry_of or request.job.id == job.id
    if not (is_retry(digest, request) and same):
        raise refuse_reused(request.request_id, uid)
