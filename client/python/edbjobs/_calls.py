"""Every unary RPC as a value: the request, and the conversion of the response. Used by both clients.

Requests are built and validated here, so that the two transports only send them.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypedDict, TypeVar

from edbjobs import _models as m
from edbjobs._convert import read
from edbjobs._enums import EndReason, JobOrder, JobState, JobView, to_number
from edbjobs._status import from_status
from edbjobs._times import duration, timestamp
from edbjobs.v1 import cluster_service_pb2 as cluster_pb
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1 import resource_pb2, resources_service_pb2
from edbjobs.v1.job_ref_pb2 import JobRef

if TYPE_CHECKING:
    from os import PathLike

    from google.protobuf.message import Message

    from edbjobs.config import JobConfig


__all__ = ["Call", "JobFilter", "LimitValues", "Submittable"]

R = TypeVar("R")
Named: TypeAlias = "str | JobRef"
_UID = re.compile(r"[0-9A-Fa-f]{32}")
Submittable: TypeAlias = "str | PathLike[str] | JobConfig | Mapping[str, Any]"

MAX_ITEMS = 1000
MAX_BYTES = 3 * 1024 * 1024
MAX_WAIT = 300.0
PAGE_SIZE = 200


@dataclass(frozen=True)
class Call(Generic[R]):
    """One unary RPC; `extra_time` is added to the client's deadline."""

    service: str
    rpc: str
    request: Message
    convert: Callable[[Any], R]
    extra_time: float = 0.0


class JobFilter(TypedDict, total=False):
    """Filter of jobs: a job matches if it matches every given value; an empty filter matches all.

    Attributes
    ----------
    jobs : sequence of str
        Any of these uids or ids, superseded or not; in `watch` an id is every job that has it, elsewhere the newest.
    states : sequence of JobState or str
        Any of these.
    ended, held : bool
        Ended or held, or not.
    end_reasons : sequence of EndReason or str
        Any of these reasons of the end.
    users, batches, schedulers : sequence of str
        Any of these.
    labels : mapping of str to str
        All of these.
    project_path : str
        Exactly this path, as `Job.project_path` has it.
    create_time_from, create_time_before : datetime
        Submitted at or after, and before; with a time zone.
    end_time_from, end_time_before : datetime
        Ended at or after, and before; with a time zone.
    include_superseded : bool
        Also jobs that a retry superseded.
    """

    jobs: Sequence[str]
    states: Sequence[JobState | str]
    ended: bool
    held: bool
    end_reasons: Sequence[EndReason | str]
    users: Sequence[str]
    batches: Sequence[str]
    labels: Mapping[str, str]
    project_path: str
    schedulers: Sequence[str]
    create_time_from: datetime
    create_time_before: datetime
    end_time_from: datetime
    end_time_before: datetime
    include_superseded: bool


class LimitValues(TypedDict, total=False):
    """Limits to change, as the fields of `Limits`; None removes one.

    Entries of `licenses` and `users` replace those of the same key, a user's limits whole; None removes an entry.
    With `etag` nothing is changed unless these are the limits in force.
    """

    max_local_jobs: int | None
    max_cores: int | None
    max_memory_bytes: int | None
    max_cluster_jobs: int | None
    licenses: Mapping[str, int | None]
    max_cpu_percent: float | None
    min_free_memory_bytes: int | None
    min_free_disk_bytes: int | None
    default_user: m.UserLimits | None
    users: Mapping[str, m.UserLimits | None]
    etag: str


def _job(answer: Any) -> m.Job:
    return read(m.Job, answer.job)


def job_ref(name: Named) -> JobRef:
    """Return a reference to a job: a name of the form of a uid is one, as no id has that form."""
    if isinstance(name, JobRef):
        return name
    return JobRef(uid=name) if _UID.fullmatch(name) else JobRef(id=name)


_TIMES = ("create_time_from", "create_time_before", "end_time_from", "end_time_before")


def job_filter(given: JobFilter) -> pb.JobFilter:
    """Build the message of a filter."""
    values: dict[str, Any] = dict(given)
    if "jobs" in values:
        values["jobs"] = [job_ref(name) for name in values["jobs"]]
    if "states" in values:
        values["states"] = [to_number(JobState(state)) for state in values["states"]]
    if "end_reasons" in values:
        values["end_reasons"] = [to_number(EndReason(reason)) for reason in values["end_reasons"]]
    for name in _TIMES:
        if name in values:
            values[name] = timestamp(values[name])
    return pb.JobFilter(**values)


def make_config(project: Submittable, config_fields: Mapping[str, Any]) -> JobConfig:
    """Build the configuration of a submit from a project's path, a dictionary or a configuration.

    Raises
    ------
    pydantic.ValidationError
        For an invalid value.
    """
    # Imported here: reading jobs needs no pydantic, whose import takes half of a command's start time.
    from edbjobs.config import JobConfig, absolute_project_path

    if isinstance(project, JobConfig):
        return JobConfig(**{**project.model_dump(exclude_unset=True), **config_fields}) if config_fields else project
    if isinstance(project, Mapping):
        return JobConfig.from_dict({**project, **config_fields})
    return JobConfig(project_path=absolute_project_path(os.fspath(project)), **config_fields)


def submit_request(
    project: Submittable,
    config_fields: Mapping[str, Any],
    *,
    job_id: str | None = None,
    priority: int = 0,
    user: str | None = None,
    hold: bool = False,
    request_id: str | None = None,
) -> pb.SubmitJobRequest:
    """Build a submit request. It always has a request_id, so that it can safely be sent again."""
    config = make_config(project, config_fields)
    return pb.SubmitJobRequest(
        request_id=request_id or str(uuid.uuid4()),
        job_id=job_id or "",
        config=config.to_message(),
        priority=priority,
        user=user or "",
        hold=hold,
    )


def submit(request: pb.SubmitJobRequest) -> Call[m.Job]:
    return Call("JobsService", "SubmitJob", request, _job)


def submit_many(requests: Sequence[pb.SubmitJobRequest]) -> list[Call[list[m.SubmitResult]]]:
    """Pack requests into as few calls as number and size allow."""
    calls: list[Call[list[m.SubmitResult]]] = []
    chunk: list[pb.SubmitJobRequest] = []
    size = 0
    for request in requests:
        length = request.ByteSize() + 8
        if chunk and (len(chunk) == MAX_ITEMS or size + length > MAX_BYTES):
            calls.append(_submit_chunk(chunk))
            chunk, size = [], 0
        chunk.append(request)
        size += length
    if chunk:
        calls.append(_submit_chunk(chunk))
    return calls


def _submit_chunk(requests: list[pb.SubmitJobRequest]) -> Call[list[m.SubmitResult]]:
    return Call("JobsService", "SubmitJobs", pb.SubmitJobsRequest(requests=requests), _submit_results)


def _submit_results(answer: pb.SubmitJobsResponse) -> list[m.SubmitResult]:
    return [
        m.SubmitResult(job=read(m.Job, item.response.job), existed=item.response.existed)
        if item.WhichOneof("result") == "response"
        else m.SubmitResult(error=from_status(item.error))
        for item in answer.results
    ]


def preview(request: pb.SubmitJobRequest) -> Call[m.Preview]:
    return Call("JobsService", "PreviewJob", pb.PreviewJobRequest(request=request), lambda a: read(m.Preview, a))


def get(name: Named) -> Call[m.Job]:
    return Call("JobsService", "GetJob", pb.GetJobRequest(job=job_ref(name)), _job)


@dataclass(frozen=True)
class Page:
    """One page of a list."""

    jobs: tuple[m.Job, ...]
    next_token: str
    position: m.Position


def list_page(
    given: JobFilter,
    *,
    token: str = "",
    order: JobOrder | str = JobOrder.CREATE_TIME,
    view: JobView | str = JobView.BASIC,
) -> Call[Page]:
    request = pb.ListJobsRequest(
        page_size=PAGE_SIZE,
        page_token=token,
        filter=job_filter(given),
        order=to_number(JobOrder(order)),  # type: ignore[arg-type]
        view=to_number(JobView(view)),  # type: ignore[arg-type]
    )
    return Call("JobsService", "ListJobs", request, _page)


def _page(answer: pb.ListJobsResponse) -> Page:
    jobs = tuple(read(m.Job, job) for job in answer.jobs)
    return Page(jobs, answer.next_page_token, m.Position(answer.position.revision, answer.position.store_id))


def cancel(name: Named, grace_period: float | None, abandon: bool) -> Call[m.Job]:
    request = pb.CancelJobRequest(job=job_ref(name), grace_period=_seconds(grace_period), abandon=abandon)
    return Call("JobsService", "CancelJob", request, _job)


@dataclass(frozen=True)
class JobResults:
    """Results of a call on many jobs; `more`: there are more of them."""

    results: list[m.JobResult]
    more: bool


def cancel_many(given: JobFilter, all_jobs: bool, grace_period: float | None) -> Call[JobResults]:
    request = pb.CancelJobsRequest(filter=job_filter(given), all=all_jobs, grace_period=_seconds(grace_period))
    return Call("JobsService", "CancelJobs", request, _job_results)


def _job_results(answer: pb.CancelJobsResponse) -> JobResults:
    results = [
        m.JobResult(item.job.uid or item.job.id, job=read(m.Job, item.changed))
        if item.WhichOneof("result") == "changed"
        else m.JobResult(item.job.uid or item.job.id, error=from_status(item.error))
        for item in answer.results
    ]
    return JobResults(results, answer.more)


def _seconds(seconds: float | None) -> Any:
    return None if seconds is None else duration(timedelta(seconds=seconds))


def hold(name: Named) -> Call[m.Job]:
    return Call("JobsService", "HoldJob", pb.HoldJobRequest(job=job_ref(name)), _job)


def release(name: Named) -> Call[m.Job]:
    return Call("JobsService", "ReleaseJob", pb.ReleaseJobRequest(job=job_ref(name)), _job)


def set_priority(name: Named, priority: int) -> Call[m.Job]:
    request = pb.SetJobPriorityRequest(job=job_ref(name), priority=priority)
    return Call("JobsService", "SetJobPriority", request, _job)


def retry(name: Named, request_id: str | None) -> Call[m.Job]:
    request = pb.RetryJobRequest(job=job_ref(name), request_id=request_id or str(uuid.uuid4()))
    return Call("JobsService", "RetryJob", request, _job)


def delete(name: Named) -> Call[None]:
    return Call("JobsService", "DeleteJob", pb.DeleteJobRequest(job=job_ref(name)), lambda answer: None)


def wait(name: Named, seconds: float) -> Call[m.Job]:
    seconds = min(max(seconds, 0.0), MAX_WAIT)
    request = pb.WaitJobRequest(job=job_ref(name), timeout=duration(timedelta(seconds=seconds)))
    return Call("JobsService", "WaitJob", request, _job, extra_time=seconds)


def resources() -> Call[m.HostResources]:
    request = resources_service_pb2.GetResourcesRequest()
    return Call("ResourcesService", "GetResources", request, lambda answer: read(m.HostResources, answer.resources))


def _queue(answer: Any) -> m.QueueStatus:
    return read(m.QueueStatus, answer.queue)


def queue() -> Call[m.QueueStatus]:
    return Call("ResourcesService", "GetQueue", resources_service_pb2.GetQueueRequest(), _queue)


def pause_queue() -> Call[m.QueueStatus]:
    return Call("ResourcesService", "PauseQueue", resources_service_pb2.PauseQueueRequest(), _queue)


def resume_queue() -> Call[m.QueueStatus]:
    return Call("ResourcesService", "ResumeQueue", resources_service_pb2.ResumeQueueRequest(), _queue)


def _limits(answer: Any) -> m.Limits:
    return read(m.Limits, answer.limits)


def limits() -> Call[m.Limits]:
    return Call("ResourcesService", "GetLimits", resources_service_pb2.GetLimitsRequest(), _limits)


def update_limits(values: LimitValues) -> Call[m.Limits]:
    given: dict[str, Any] = dict(values)
    request = resources_service_pb2.UpdateLimitsRequest()
    for name, removed in (("licenses", request.remove_licenses), ("users", request.remove_users)):
        entries = given.pop(name, {})
        removed.extend(sorted(key for key, value in entries.items() if value is None))
        given[name] = {key: value for key, value in entries.items() if value is not None}
    given["users"] = {name: _user_limits(value) for name, value in given["users"].items()}
    request.remove_mask.paths.extend(sorted(name for name, value in given.items() if value is None))
    if given.get("default_user") is not None:
        given["default_user"] = _user_limits(given["default_user"])
    request.limits.MergeFrom(resource_pb2.Limits(**{name: value for name, value in given.items() if value is not None}))
    return Call("ResourcesService", "UpdateLimits", request, _limits)


def _user_limits(value: m.UserLimits) -> resource_pb2.UserLimits:
    return resource_pb2.UserLimits(**{f.name: getattr(value, f.name) for f in fields(value)})


def status() -> Call[m.SystemStatus]:
    request = cluster_pb.GetSystemStatusRequest()
    return Call("ClusterService", "GetSystemStatus", request, lambda answer: read(m.SystemStatus, answer))


Listed: TypeAlias = tuple[list[R], str]  # items of a page, and the token of the next one


def partitions(scheduler: str, token: str) -> Call[Listed[m.Partition]]:
    request = cluster_pb.ListPartitionsRequest(scheduler=scheduler, page_size=PAGE_SIZE, page_token=token)
    return Call(
        "ClusterService",
        "ListPartitions",
        request,
        lambda a: ([read(m.Partition, p) for p in a.partitions], a.next_page_token),
    )


def cluster_jobs(scheduler: str, partition: str, user: str, token: str) -> Call[Listed[m.ClusterJob]]:
    request = cluster_pb.ListClusterJobsRequest(
        scheduler=scheduler, partition=partition, user=user, page_size=PAGE_SIZE, page_token=token
    )
    return Call(
        "ClusterService",
        "ListClusterJobs",
        request,
        lambda a: ([read(m.ClusterJob, job) for job in a.jobs], a.next_page_token),
    )


def solvers(token: str) -> Call[Listed[m.Solver]]:
    request = cluster_pb.ListSolversRequest(page_size=PAGE_SIZE, page_token=token)
    return Call(
        "ClusterService", "ListSolvers", request, lambda a: ([read(m.Solver, s) for s in a.solvers], a.next_page_token)
    )


def submit_requests(
    projects: Iterable[Submittable], config_fields: Mapping[str, Any], **request: Any
) -> list[pb.SubmitJobRequest]:
    """Build the requests of `submit_many`; an invalid one raises before anything is sent."""
    return [submit_request(project, config_fields, **request) for project in projects]
