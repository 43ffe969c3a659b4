"""The operations of the HTTP endpoint: the one table of its routes and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from edbjobs_server.gateway.models import Limits, Queue, Resources, Status
from edbjobs_server.gateway.rest.bodies import (
    ApiSubmit,
    Changed,
    DetectedScheduler,
    Done,
    Empty,
    Health,
    Job,
    JobEvents,
    Jobs,
    LimitChanges,
    Me,
    NewLimits,
    Partitions,
    Priority,
    Ready,
    Submit,
    Submitted,
)
from edbjobs_server.gateway.rest.parsed_log import ParsedLog


@dataclass(frozen=True)
class Operation:
    """One route.

    Attributes
    ----------
    method, path : str
        As in aiohttp.
    handler : str
        Method of `Rest`, and id of the operation.
    summary : str
        What it does.
    answer : type
        Model of the answer with status 200; `str`: it is plain text.
    body : type, optional
        Model of the body; None: no body is read.
    query : sequence of str
        Parameters of the query string.
    errors : sequence of int
        Further statuses, each with the schema Error.
    open : bool
        Needs no authentication.
    """

    method: str
    path: str
    handler: str
    summary: str
    answer: type[BaseModel | str]
    body: type[BaseModel] | None = None
    query: Sequence[str] = ()
    errors: Sequence[int] = ()
    open: bool = False


_LIST_QUERY = ("limit", "page_token", "status", "user", "batch")
_CLUSTER = ("scheduler",)

OPERATIONS: Sequence[Operation] = (
    Operation("POST", "/jobs/submit", "submit", "Queue a job", Submitted, Submit, errors=(409,)),
    Operation("GET", "/jobs", "jobs", "List jobs", Jobs, query=_LIST_QUERY),
    Operation("GET", "/jobs/{job_id}", "job", "Get a job", Job, errors=(404,)),
    Operation(
        "GET",
        "/jobs/{job_id}/events",
        "job_events",
        "List the events of a job",
        JobEvents,
        query=("after_revision", "limit"),
        errors=(404,),
    ),
    Operation(
        "GET",
        "/jobs/{job_id}/logs/{stream}",
        "job_log",
        "Read an output of a job, or a range of it by the header Range",
        str,
        query=("attempt",),
        errors=(404, 416),
    ),
    Operation("POST", "/jobs/{job_id}/cancel", "cancel", "Cancel a job", Changed, Empty, errors=(404, 409)),
    Operation(
        "POST",
        "/jobs/{job_id}/priority",
        "priority",
        "Change the priority of a waiting job",
        Changed,
        Priority,
        errors=(404, 409),
    ),
    Operation("GET", "/resources", "resources", "Get the use of the host", Resources),
    Operation("GET", "/queue", "queue", "Get the queue", Queue),
    Operation("GET", "/pool/limits", "limits", "Get the limits", Limits),
    Operation("PUT", "/pool/limits", "update_limits", "Change limits, all or none", NewLimits, LimitChanges),
    Operation(
        "GET", "/scheduler/partitions", "partitions", "List the cluster's partitions", Partitions, query=_CLUSTER
    ),
    Operation("GET", "/system/status", "system_status", "Get scheduler, host, queue and limits", Status),
    Operation("POST", "/system/start_monitoring", "start_monitoring", "Start the monitoring of the host", Done, Empty),
    Operation("POST", "/api/submit", "api_submit", "Queue a job", Submitted, ApiSubmit, errors=(409,)),
    Operation("GET", "/api/jobs", "jobs", "List jobs", Jobs, query=_LIST_QUERY),
    Operation("GET", "/api/jobs/{job_id}/log", "api_log", "Get the parsed solver log", ParsedLog, errors=(404,)),
    Operation("POST", "/api/cancel/{job_id}", "api_cancel", "Cancel a job", Changed, Empty, errors=(404, 409)),
    Operation("GET", "/api/resources", "resources", "Get the use of the host", Resources),
    Operation("GET", "/api/queue", "queue", "Get the queue", Queue),
    Operation(
        "GET",
        "/api/cluster_partitions",
        "api_partitions",
        "List a cluster's partitions; none if there is no cluster",
        Partitions,
        query=_CLUSTER,
        errors=(409,),
    ),
    Operation("GET", "/api/scheduler_type", "scheduler_type", "Get the detected scheduler", DetectedScheduler),
    Operation("GET", "/api/me", "me", "Get the caller's identity", Me),
    Operation("GET", "/healthz", "health", "Report that the process is alive", Health, open=True),
    Operation("GET", "/readyz", "ready", "Report whether the service accepts jobs", Ready, open=True),
)
