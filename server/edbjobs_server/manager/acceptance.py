"""Putting drafted jobs on disk, or finding the job that an equal request made before."""

from __future__ import annotations

from dataclasses import dataclass

from edbjobs.v1 import jobs_messages_pb2

from edbjobs_server.contract.codec import without_config
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.principal import Principal
from edbjobs_server.core.states import EventType
from edbjobs_server.manager.fingerprints import fingerprint, is_equal_job
from edbjobs_server.store import Duplicate, Transaction


@dataclass(frozen=True, slots=True)
class Saved:
    """A submitted job as it is on disk.

    Attributes
    ----------
    job : Job
        The job.
    message : bytes
        The same as serialized ``edbjobs.v1.Job``, of the bytes that were written: as ``JOB_VIEW_FULL``.
    short : bytes
        The same as ``JOB_VIEW_BASIC`` without its configuration.
    existed : bool
        An earlier request had made it.
    """

    job: Job
    message: bytes
    short: bytes
    existed: bool


def save(
    tx: Transaction, request: jobs_messages_pb2.SubmitJobRequest, drafted: Job | Refused, principal: Principal
) -> Saved | Refused:
    """Do as `accept`, and give the bytes as well; a refusal is given back and has changed nothing."""
    try:
        job, existed = accept(tx, request, drafted, principal)
    except Refused as refused:
        return refused
    return Saved(job, tx.message(job), without_config(tx.basic(job), job), existed)


def accept(
    tx: Transaction, request: jobs_messages_pb2.SubmitJobRequest, drafted: Job | Refused, principal: Principal
) -> tuple[Job, bool]:
    """Put a drafted job on disk, or find the one that an equal request made; True where it existed.

    Raises
    ------
    Refused
        JOB_EXISTS, REQUEST_ID_REUSED, or JOB_NOT_FOUND where the job of a repeated request was deleted; or the
        draft's own refusal, unless the job exists already: a repetition is answered though its project may be gone
        by now.
    """
    user = request.user or principal.user
    refused = drafted if isinstance(drafted, Refused) else _of_another_user(tx, request.job_id, user)
    if refused is not None or not isinstance(drafted, Job):
        return _repeated(tx, request, principal, refused), True
    try:
        return tx.insert(drafted, EventType.JOB_QUEUED, principal=principal), False
    except Duplicate:
        return _repeated(tx, request, principal, None), True


def refuse_reused(request_id: str, uid: str) -> Refused:
    """Return the error of a request_id that was used for another request."""
    return Refused(
        "REQUEST_ID_REUSED",
        f"request_id {request_id} was used before for another request; make a new one for each",
        fields={"request_id": "used before for another request"},
        metadata={"uid": uid},
    )


def _of_another_user(tx: Transaction, id: str, user: str) -> Refused | None:
    """Return the error if another user's job has this id, be it ended or not."""
    owner = tx.owner(id) if id else None
    if owner is None or owner == user:
        return None
    newest = tx.newest(id)
    assert newest is not None, "an id with an owner is on record"
    return Refused(
        "JOB_EXISTS",
        f"a job of user {owner} has the id {id}; choose another id",
        fields={"job_id": "in use by another user's job"},
        metadata={"uid": newest.uid},
    )


def _repeated(
    tx: Transaction, request: jobs_messages_pb2.SubmitJobRequest, principal: Principal, refused: Refused | None
) -> Job:
    digest = fingerprint(request)
    known = tx.request(principal.name, request.request_id) if request.request_id else None
    if known is not None:
        uid, before = known
        if before != digest:
            raise refuse_reused(request.request_id, uid)
        return tx.job(uid)
    if refused is not None and refused.reason == "PERMISSION_DENIED":
        raise refused
    live = tx.live_id(request.job_id) if request.job_id else None
    own = live is not None and live.user == (request.user or principal.user)
    if live is not None and own and is_equal_job(live.digest, digest):
        return live
    if refused is not None:
        raise refused
    assert live is not None, "only a live id or a known request_id is a duplicate"
    raise exists(live)


def exists(live: Job) -> Refused:
    """Return the error of an id that a job has which has not ended."""
    return Refused(
        "JOB_EXISTS",
        f"job {live.id} is {live.state.name} and was submitted with another configuration; "
        "choose another id, or wait for its end",
        fields={"job_id": "in use by a live job"},
        metadata={"uid": live.uid},
    )
