"""The calls, in their order; each client makes all of them against a service of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from interop.maximal import BEYOND_DOUBLE, LARGEST, UNICODE, maximal_submit

OK = "OK"
BAD = "INVALID_ARGUMENT"
UNIMPLEMENTED = "UNIMPLEMENTED"
STATE = "FAILED_PRECONDITION"
RANGE = "OUT_OF_RANGE"


@dataclass(frozen=True)
class Case:
    """One call and what must come of it.

    Attributes
    ----------
    name, rpc : str
        What it is for; ``Service.Method``.
    request : mapping
        In proto3's JSON. A text ``$name`` in it stands for a value saved before, or one of the service's own.
    code, reason : str
        Status and reason that must be answered.
    fields : tuple of str
        Fields the error must name.
    metadata : mapping
        What the error's metadata must have.
    expect : mapping
        What the first message must have, other fields apart.
    save : mapping
        Names for values of the first message: name to dotted path.
    until, deadline, token
        As in the package's text.
    same : bool
        False: how many messages come, and what they hold, is chance; they are not compared between clients.
    """

    name: str
    rpc: str
    request: Mapping[str, Any] = field(default_factory=dict)
    code: str = OK
    reason: str = ""
    fields: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    save: Mapping[str, str] = field(default_factory=dict)
    until: str = ""
    deadline: float = 20.0
    token: str = ""
    same: bool = True


def _config(project: str = "$project", **values: Any) -> dict[str, Any]:
    return {"projectPath": project, "environment": {"ANS_EDBJOBS_DEMO": "seconds=0.2"}, **values}


def _refused(name: str, reason: str, *fields: str, code: str = BAD, **config: Any) -> Case:
    return Case(f"submit refused: {name}", "JobsService.SubmitJob", {"config": _config(**config)}, code, reason, fields)


STATUS = (
    Case(
        "what the service is",
        "ClusterService.GetSystemStatus",
        expect={"apiLevel": 1, "caller": {"role": "ROLE_ADMIN"}, "details": {}, "position": {}},
        save={"store": "position.storeId"},
    ),
    Case(
        "solvers", "ClusterService.ListSolvers", expect={"solvers": [{"demo": True}]}, save={"solver": "solvers.0.path"}
    ),
    Case("partitions of no scheduler", "ClusterService.ListPartitions", expect={}),
    Case(
        "cluster jobs",
        "ClusterService.ListClusterJobs",
        {"scheduler": "slurm", "user": UNICODE},
        "FAILED_PRECONDITION",
        "NO_SCHEDULER",
        ("scheduler",),
    ),
    Case(
        "solvers of another request's page",
        "ClusterService.ListSolvers",
        {"pageToken": "x"},
        BAD,
        "INVALID_PAGE_TOKEN",
        ("page_token",),
    ),
    Case("a wrong token", "ClusterService.GetSystemStatus", {}, "UNAUTHENTICATED", "UNAUTHENTICATED", token="wrong"),
    Case("the host", "ResourcesService.GetResources", expect={"resources": {}}),
    Case(
        "the host, live", "ResourcesService.WatchResources", {"interval": "1s"}, until='"queue"', expect={"queue": {}}
    ),
    Case("limits", "ResourcesService.GetLimits", expect={"limits": {"maxLocalJobs": 2, "maxCores": 4}}),
    Case("pause", "ResourcesService.PauseQueue", expect={"queue": {"paused": True}}),
    Case(
        "queue",
        "ResourcesService.GetQueue",
        expect={"queue": {"paused": True, "blockedMessage": "*"}},
    ),
)

LIMITS = (
    Case(
        "what is set replaces, zero included; int64, maps, presence of zero",
        "ResourcesService.UpdateLimits",
        {
            "limits": {
                "maxClusterJobs": 0,
                "maxMemoryBytes": BEYOND_DOUBLE,
                "maxCpuPercent": 99.9,
                "licenses": {"hfss_solve": 3},
                "users": {"Jürgen 李": {"maxPriority": 0, "maxCores": 4}, "$x": {}},
            }
        },
        expect={
            "limits": {
                "maxClusterJobs": 0,
                "maxCores": 4,
                "maxMemoryBytes": BEYOND_DOUBLE,
                "users": {"Jürgen 李": {"maxPriority": 0}},
            },
            "oldLimits": {"maxCores": 4},
        },
        save={"limits": "limits.etag"},
    ),
    Case(
        "what is removed is no limit, with the etag of what was seen",
        "ResourcesService.UpdateLimits",
        {
            "limits": {"etag": "$limits"},
            "removeMask": "maxClusterJobs,maxCpuPercent",
            "removeLicenses": ["hfss_solve"],
            "removeUsers": ["$x"],
        },
        expect={"limits": {"maxMemoryBytes": BEYOND_DOUBLE}, "oldLimits": {"maxClusterJobs": 0}},
        save={"left": "limits.etag"},
    ),
    Case(
        "an etag of other limits",
        "ResourcesService.UpdateLimits",
        {"limits": {"etag": "$limits", "maxCores": 1}},
        "ABORTED",
        "ETAG_MISMATCH",
        metadata={"etag": "$left"},
    ),
    Case(
        "limits that cannot be, all named",
        "ResourcesService.UpdateLimits",
        {"limits": {"maxCores": -1, "maxCpuPercent": 101, "maxClusterJobs": 1}},
        BAD,
        "INVALID_LIMITS",
        ("max_cores", "max_cpu_percent"),
    ),
    Case(
        "a limit that is set and removed",
        "ResourcesService.UpdateLimits",
        {"limits": {"maxCores": 1}, "removeMask": "maxCores,noSuchLimit"},
        BAD,
        "INVALID_LIMITS",
        ("max_cores", "no_such_limit"),
    ),
)

SUBMITS = (
    Case(
        "the least a submit can be",
        "JobsService.SubmitJob",
        {"config": {"projectPath": "$project"}},
        expect={"job": {"state": "JOB_STATE_QUEUED", "waiting": {"reason": "WAITING_REASON_QUEUE_PAUSED"}}},
        save={"least": "job.uid"},
    ),
    Case(
        "every field, with values hard to carry",
        "JobsService.SubmitJob",
        maximal_submit("$project"),
        expect={"job": {"held": True, "id": "m" * 63, "config": maximal_submit("$project")["config"]}},
        save={"most": "job.uid"},
    ),
    Case(
        "every field, read back",
        "JobsService.GetJob",
        {"name": "$most"},
        expect={"job": {"user": "Jürgen 李", "config": maximal_submit("$project")["config"]}},
    ),
    Case("the same request again", "JobsService.SubmitJob", maximal_submit("$project"), expect={"existed": True}),
    Case(
        "the id of a live job",
        "JobsService.SubmitJob",
        {"jobId": "m" * 63, "config": _config()},
        "ALREADY_EXISTS",
        "JOB_EXISTS",
        ("job_id",),
        {"uid": "$most"},
    ),
    Case(
        "a request_id of another request",
        "JobsService.SubmitJob",
        {"requestId": "r" * 64, "config": _config()},
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
        ("request_id",),
        {"uid": "$most"},
    ),
    Case(
        "many at once, some of them bad",
        "JobsService.SubmitJobs",
        {
            "requests": [
                {"jobId": "many-1", "config": _config(batch="many", labels={"part": "天线"})},
                {"jobId": "many 2", "config": _config(cores=-1)},
                {"jobId": "many-3", "config": _config("$other", batch="many")},
            ]
        },
        expect={"results": [{"job": {"id": "many-1"}}, {"error": {"code": 3}}, {"job": {"id": "many-3"}}]},
    ),
    Case("none at once", "JobsService.SubmitJobs"),
    Case("too many at once", "JobsService.SubmitJobs", {"requests": [{}] * 1001}, BAD, "TOO_MANY_ITEMS"),
    Case(
        "a preview", "JobsService.PreviewJob", {"request": {"config": _config(cores=2)}}, expect={"executor": "local"}
    ),
    _refused("no project", "PROJECT_NOT_FOUND", "config.project_path", project="$folder/基板 🛰.aedt"),
    _refused("a project elsewhere", "PROJECT_NOT_ALLOWED", "config.project_path", project="$elsewhere"),
    _refused("a program of its own", "SOLVER_NOT_ALLOWED", "config.aedt_path", aedtPath="/bin/sh"),
    _refused("another's library", "ENVIRONMENT_NOT_ALLOWED", environment={"LD_PRELOAD": "/tmp/x.so"}),
    _refused("too many cores", "INFEASIBLE", "config.cores", cores=5),
    _refused("fields that cannot be", "INVALID_JOB", "config.cores", cores=-1),
    _refused(
        "an enum value of tomorrow", "NOT_SERVED", "config.existing_results", code=UNIMPLEMENTED, existingResults=99
    ),
    _refused("no scheduler", "NO_SCHEDULER", "config.scheduler", code=STATE, scheduler="windows_hpc"),
    _refused("an empty request", "INVALID_JOB", "config.project_path", project=""),
    Case(
        "a priority out of range",
        "JobsService.SubmitJob",
        {"config": _config(), "priority": 2147483647},
        BAD,
        "INVALID_PRIORITY",
        ("priority",),
    ),
)

QUEUED = (
    Case("all jobs", "JobsService.ListJobs", expect={"total": "4"}),
    Case(
        "a page",
        "JobsService.ListJobs",
        {"pageSize": 1, "newestFirst": True, "omitConfig": True},
        expect={"jobs": [{"id": "many-3"}]},
        save={"page": "nextPageToken"},
    ),
    Case(
        "the next page",
        "JobsService.ListJobs",
        {"pageSize": 2, "newestFirst": True, "omitConfig": True, "pageToken": "$page"},
        expect={"jobs": [{"id": "many-1"}, {"id": "m" * 63}]},
    ),
    Case("a page of nobody's", "JobsService.ListJobs", {"pageToken": "🛰"}, BAD, "INVALID_PAGE_TOKEN"),
    Case(
        "a filter with all it has",
        "JobsService.ListJobs",
        {
            "filter": {
                "states": ["JOB_STATE_QUEUED", "JOB_STATE_RUNNING"],
                "user": "Jürgen 李",
                "batch": "batch-1",
                "labels": {"unicode": UNICODE, "empty": ""},
                "projectPath": "$project",
                "createdAfter": "2000-01-01T00:00:00.000000001Z",
                "createdBefore": "9999-12-31T23:59:59.999999999Z",
                "names": ["$most", "nobody"],
            }
        },
        expect={"jobs": [{"id": "m" * 63}]},
    ),
    Case("a filter that finds nothing", "JobsService.ListJobs", {"filter": {"user": "nobody"}}),
    Case("no such job", "JobsService.GetJob", {"name": UNICODE}, "NOT_FOUND", "JOB_NOT_FOUND"),
    Case("an empty name", "JobsService.GetJob", {}, "NOT_FOUND", "JOB_NOT_FOUND"),
    Case("hold", "JobsService.HoldJob", {"name": "many-3"}, expect={"job": {"held": True}}),
    Case("release", "JobsService.ReleaseJob", {"name": "many-3"}, expect={"job": {"id": "many-3"}}),
    Case("priority", "JobsService.SetJobPriority", {"name": "$least", "priority": 5}, expect={"job": {"priority": 5}}),
    Case("waiting with a limit", "JobsService.WaitJob", {"name": "$least", "timeout": "0.001s"}, expect={"job": {}}),
    Case("a deadline", "JobsService.WaitJob", {"name": "$least", "timeout": "300s"}, "DEADLINE_EXCEEDED", deadline=0.3),
    Case("an output not there yet", "JobsService.ReadLog", {"name": "$least"}, "NOT_FOUND", "LOG_NOT_FOUND"),
    Case("not ended: retry", "JobsService.RetryJob", {"name": "$least"}, STATE, "JOB_NOT_ENDED"),
    Case("not ended: delete", "JobsService.DeleteJob", {"name": "$least"}, STATE, "JOB_NOT_ENDED"),
    Case(
        "nothing to abandon", "JobsService.CancelJob", {"name": "$least", "abandon": True}, STATE, "JOB_NOT_UNKILLABLE"
    ),
    Case("cancel", "JobsService.CancelJob", {"name": "$most", "grace": "0.500s"}, expect={"job": {"id": "m" * 63}}),
    Case(
        "cancelled before it started",
        "JobsService.WaitJob",
        {"name": "$most"},
        expect={"ended": True, "job": {"state": "JOB_STATE_CANCELLED"}},
    ),
    Case("cancel all without saying so", "JobsService.CancelJobs", {}, BAD, "FILTER_REQUIRED"),
    Case("cancel many", "JobsService.CancelJobs", {"filter": {"names": ["many-3"]}}, expect={"uids": ["*"]}),
)

SOLVES = (
    Case("resume", "ResourcesService.ResumeQueue", expect={"queue": {}}),
    Case(
        "wait to the end",
        "JobsService.WaitJob",
        {"name": "many-1", "timeout": "30s"},
        deadline=40,
        expect={"ended": True, "job": {"state": "JOB_STATE_COMPLETED", "outcome": {"evidence": "EVIDENCE_SOLVER_LOG"}}},
    ),
    Case("end: cancel", "JobsService.CancelJob", {"name": "many-1"}, STATE, "JOB_ENDED"),
    Case(
        "the log to its end", "JobsService.ReadLog", {"name": "many-1", "stream": "LOG_STREAM_SOLVER", "follow": True}
    ),
    Case("a piece", "JobsService.ReadLog", {"name": "many-1", "stream": "LOG_STREAM_SOLVER", "offset": 3, "limit": 5}),
    Case("the last bytes", "JobsService.ReadLog", {"name": "many-1", "stream": "LOG_STREAM_SOLVER", "offset": -4}),
    Case(
        "beyond the end",
        "JobsService.ReadLog",
        {"name": "many-1", "offset": LARGEST},
        RANGE,
        "OFFSET_BEYOND_END",
    ),
    Case(
        "no such attempt",
        "JobsService.ReadLog",
        {"name": "many-1", "attempt": 2147483647},
        "NOT_FOUND",
        "LOG_NOT_FOUND",
    ),
    Case(
        "no such output",
        "JobsService.ReadLog",
        {"name": "many-1", "stream": "LOG_STREAM_SCRIPT"},
        "NOT_FOUND",
        "LOG_NOT_FOUND",
    ),
    Case(
        "a job that stays",
        "JobsService.SubmitJob",
        {"jobId": "stays", "config": _config("$other", environment={"ANS_EDBJOBS_DEMO": "seconds=600"})},
        save={"stays": "job.uid"},
    ),
    Case(
        "watched until it runs",
        "JobsService.WatchJobs",
        {"afterRevision": "0", "filter": {"names": ["$stays"]}},
        until="EVENT_TYPE_JOB_STARTED",
        expect={"events": "*"},
    ),
    Case("started: hold", "JobsService.HoldJob", {"name": "stays"}, STATE, "JOB_STARTED"),
    Case("started: priority", "JobsService.SetJobPriority", {"name": "stays", "priority": 1}, STATE, "JOB_STARTED"),
    Case(
        "a stream that is left", "JobsService.ReadLog", {"name": "stays", "follow": True}, until='"attempt"', same=False
    ),
    Case("end it", "JobsService.CancelJob", {"name": "stays", "grace": "5s"}, expect={"job": {"id": "stays"}}),
    Case(
        "ended by cancel",
        "JobsService.WaitJob",
        {"name": "stays", "timeout": "30s"},
        deadline=40,
        expect={"ended": True, "job": {"state": "JOB_STATE_CANCELLED", "outcome": {"reason": "END_REASON_CANCELLED"}}},
    ),
    Case(
        "retry",
        "JobsService.RetryJob",
        {"name": "many-1", "requestId": "again"},
        expect={"job": {"id": "many-1", "retryOf": "*"}},
        save={"again": "job.uid"},
    ),
    Case(
        "wait for the retry",
        "JobsService.WaitJob",
        {"name": "$again", "timeout": "30s"},
        expect={"ended": True},
        deadline=40,
    ),
    Case("delete", "JobsService.DeleteJob", {"name": "$again"}),
    Case("deleted", "JobsService.GetJob", {"name": "$again"}, "NOT_FOUND", "JOB_NOT_FOUND"),
)

WATCHES = (
    Case(
        "from the beginning",
        "JobsService.WatchJobs",
        {"afterRevision": "0", "storeId": "$store", "includeServiceEvents": True, "progressInterval": "1s"},
        until="caughtUp",
        expect={"events": "*"},
    ),
    Case("only what is new", "JobsService.WatchJobs", {"filter": {"user": "nobody"}}, until="caughtUp", same=False),
    Case(
        "another store",
        "JobsService.WatchJobs",
        {"storeId": "another"},
        RANGE,
        "OTHER_STORE",
        (),
        {"store_id": "$store"},
    ),
    Case("the future", "JobsService.WatchJobs", {"afterRevision": LARGEST}, RANGE, "REVISION_IN_FUTURE"),
)

CASES = (*STATUS, *LIMITS, *SUBMITS, *QUEUED, *SOLVES, *WATCHES)

# Reasons that no call of the table can meet on a healthy service with the demo solver, and where they are tested.
ELSEWHERE = {
    "SOLVER_NOT_FOUND": "the demo solver serves every release",
    "REVISION_TOO_OLD": "needs a log that was cut",
    "PERMISSION_DENIED": "needs a second account",
    "DRAINING": "needs a service that stops",
    "INVALID_REQUEST": "the HTTP endpoint's own",
    "HOST_NOT_ALLOWED": "the HTTP endpoint's own",
    "ORIGIN_NOT_ALLOWED": "the HTTP endpoint's own",
    "TOO_LARGE": "the HTTP endpoint's own",
    "NOT_SERVED": "a request in JSON has no field that is not known",
    "NO_SHARED_DIR": "needs a cluster",
    "PROJECT_NOT_SHARED": "needs a cluster",
    "LOCAL_NOT_ALLOWED": "needs a site's policy",
    "INVALID_TEMPLATE": "needs a template of a site",
    "OVERLOADED": "needs a full queue of the store",
    "PATH_UNREACHABLE": "needs a file system that hangs",
    "STORE_UNAVAILABLE": "needs a full disk",
    "SCHEDULER_UNREACHABLE": "needs a cluster",
    "NO_SAMPLE": "only in the first moment of a service",
    "DEADLINE": "the client's own deadline may pass before the answer is there",
    "ATTEMPT_NOT_FOUND": "tested with the other reasons in test_error_reasons.py",
    "JOB_SUPERSEDED": "tested with the other reasons in test_error_reasons.py",
    "ETAG_MISMATCH": "tested with the other reasons in test_error_reasons.py",
    "DESIGN_NOT_FOUND": "not served yet",
    "SETUP_NOT_FOUND": "not served yet",
    "FILE_NOT_FOUND": "not served yet",
    "FILE_CHANGED": "not served yet",
    "BATCH_NOT_FOUND": "not served yet",
    "DEPENDENCY_NOT_FOUND": "not served yet",
    "INTERNAL": "needs a fault of the service",
}
