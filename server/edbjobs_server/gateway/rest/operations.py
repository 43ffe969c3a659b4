"""The operations of the HTTP door: the one table that routes, OpenAPI document and page are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One route.

    Attributes
    ----------
    method, path : str
        As aiohttp has them.
    handler : str
        Method of `Rest`, and id of the operation.
    summary : str
        What it does.
    answer : str
        Schema of the answer with status 200.
    body : str
        Schema of the body; empty: none is read.
    query : sequence of str
        Parameters of the query string.
    errors : sequence of int
        Further statuses, each with the schema Error.
    open : bool
        Answers without asking who it is.
    """

    method: str
    path: str
    handler: str
    summary: str
    answer: str
    body: str = ""
    query: Sequence[str] = ()
    errors: Sequence[int] = ()
    open: bool = False


_LIST_QUERY = ("limit", "page_token", "status", "user", "batch")
_SUBMIT_ERRORS = (409,)
_CLUSTER = ("scheduler",)

OPERATIONS: Sequence[Operation] = (
    Operation("POST", "/jobs/submit", "submit", "Queue a job", "Submitted", "Submit", errors=_SUBMIT_ERRORS),
    Operation("GET", "/jobs", "jobs", "List jobs", "Jobs", query=_LIST_QUERY),
    Operation("GET", "/jobs/{job_id}", "job", "Tell how a job is", "Job", errors=(404,)),
    Operation(
        "GET",
        "/jobs/{job_id}/events",
        "job_events",
        "List what happened to a job",
        "JobEvents",
        query=("after_revision", "limit"),
        errors=(404,),
    ),
    Operation(
        "GET",
        "/jobs/{job_id}/logs/{stream}",
        "job_log",
        "Read an output of a job; a range of it with Range",
        "text",
        query=("attempt",),
        errors=(404, 416),
    ),
    Operation("POST", "/jobs/{job_id}/cancel", "cancel", "End a job", "Changed", "Empty", errors=(404, 409)),
    Operation(
        "POST",
        "/jobs/{job_id}/priority",
        "priority",
        "Change the priority of a waiting job",
        "Changed",
        "Priority",
        errors=(404, 409),
    ),
    Operation("GET", "/resources", "resources", "Tell how the host is", "Resources"),
    Operation("GET", "/queue", "queue", "Tell how the queue is", "Queue"),
    Operation("GET", "/pool/limits", "limits", "Tell the limits", "Limits"),
    Operation("PUT", "/pool/limits", "update_limits", "Change limits: all named or none", "NewLimits", "LimitChanges"),
    Operation(
        "GET", "/scheduler/partitions", "partitions", "List the cluster's partitions", "Partitions", query=_CLUSTER
    ),
    Operation("GET", "/system/status", "system_status", "Tell scheduler, host, queue and limits", "Status"),
    Operation("POST", "/system/start_monitoring", "start_monitoring", "Say that the host is watched", "Done", "Empty"),
    Operation("POST", "/api/submit", "api_submit", "Queue a job", "Submitted", "ApiSubmit", errors=_SUBMIT_ERRORS),
    Operation("GET", "/api/jobs", "jobs", "List jobs", "Jobs", query=_LIST_QUERY),
    Operation("GET", "/api/jobs/{job_id}/log", "api_log", "Tell what a solver log says", "ParsedLog", errors=(404,)),
    Operation("POST", "/api/cancel/{job_id}", "api_cancel", "End a job", "Changed", "Empty", errors=(404, 409)),
    Operation("GET", "/api/resources", "resources", "Tell how the host is", "Resources"),
    Operation("GET", "/api/queue", "queue", "Tell how the queue is", "Queue"),
    Operation(
        "GET",
        "/api/cluster_partitions",
        "api_partitions",
        "List a cluster's partitions; none where there is no cluster",
        "Partitions",
        query=_CLUSTER,
        errors=(409,),
    ),
    Operation("GET", "/api/scheduler_type", "scheduler_type", "Tell the detected scheduler", "SchedulerType"),
    Operation("GET", "/api/me", "me", "Tell who the caller is", "Me"),
    Operation("GET", "/healthz", "health", "Say that the process answers", "Health", open=True),
    Operation("GET", "/readyz", "ready", "Say whether jobs are taken", "Ready", open=True),
)
