"""The calls, in their order; each client makes all of them against a service of its own."""

from __future__ import annotations

from interop.case import BAD, NONE, STATE, Case, config, named, refused, uid
from interop.later import ELSEWHERE, NOT_SERVED
from interop.maximal import BEYOND_DOUBLE, UNICODE, maximal_submit
from interop.solves import SOLVES, WATCHES

__all__ = ["CASES", "ELSEWHERE"]

STATUS = (
    Case(
        "what the service is",
        "ClusterService.GetSystemStatus",
        expect={"apiLevel": 1, "caller": {"role": "ROLE_ADMIN"}, "details": {"account": "*"}, "position": "*"},
        save={"store": "position.storeId"},
    ),
    Case(
        "solvers",
        "ClusterService.ListSolvers",
        {"pageSize": 1},
        expect={"solvers": [{"demo": True}]},
        save={"solver": "solvers.0.path"},
    ),
    Case("partitions of no scheduler", "ClusterService.ListPartitions"),
    Case(
        "partitions of a scheduler that is not there",
        "ClusterService.ListPartitions",
        {"scheduler": "slurm"},
        STATE,
        "NO_SCHEDULER",
        ("scheduler",),
    ),
    Case(
        "solvers of another list's page",
        "ClusterService.ListSolvers",
        {"pageToken": "x"},
        BAD,
        "INVALID_PAGE_TOKEN",
        ("page_token",),
    ),
    Case("cluster jobs of no scheduler", "ClusterService.ListClusterJobs", {"user": UNICODE}),
    Case("a wrong token", "ClusterService.GetSystemStatus", {}, "UNAUTHENTICATED", "UNAUTHENTICATED", token="wrong"),
    Case("the host", "ResourcesService.GetResources", expect={"resources": {}}),
    Case(
        "the host, live", "ResourcesService.WatchResources", {"interval": "1s"}, until='"queue"', expect={"queue": {}}
    ),
    Case(
        "limits",
        "ResourcesService.GetLimits",
        expect={"limits": {"maxLocalJobs": 2, "maxCores": 4}},
        save={"etag": "limits.etag"},
    ),
    Case("pause", "ResourcesService.PauseQueue", expect={"queue": {"paused": True}}),
    Case("queue", "ResourcesService.GetQueue", expect={"queue": {"paused": True, "blockedMessage": "*"}}),
)

LIMITS = (
    Case(
        "what is set replaces; int64, maps, presence of zero",
        "ResourcesService.UpdateLimits",
        {
            "limits": {
                "maxClusterJobs": 0,
                "maxMemoryBytes": BEYOND_DOUBLE,
                "maxCpuPercent": 99.9,
                "licenses": {"hfss_solve": 3, "none": 0},
                "users": {"Jürgen 李": {"maxPriority": 0, "maxCores": 4}, "$x": {}},
                "etag": "$etag",
            }
        },
        expect={
            "limits": {
                "maxCores": 4,
                "maxClusterJobs": 0,
                "maxMemoryBytes": BEYOND_DOUBLE,
                "licenses": {"none": 0},
                "users": {"Jürgen 李": {"maxPriority": 0}},
            },
            "oldLimits": {"maxCores": 4, "etag": "$etag"},
        },
    ),
    Case(
        "an etag of before",
        "ResourcesService.UpdateLimits",
        {"limits": {"maxCores": 3, "etag": "$etag"}},
        "ABORTED",
        "ETAG_MISMATCH",
    ),
    Case(
        "what is named is removed, entries of maps by their own names",
        "ResourcesService.UpdateLimits",
        {
            "limits": {"users": {"other": {"maxCores": 1}}},
            "removeMask": "maxClusterJobs,maxCpuPercent",
            "removeLicenses": ["none"],
            "removeUsers": ["Jürgen 李"],
        },
        expect={
            "limits": {"maxMemoryBytes": BEYOND_DOUBLE, "licenses": {"hfss_solve": 3}, "users": {"other": {}}},
            "oldLimits": {"maxClusterJobs": 0},
        },
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
        "a limit that is set and removed, and one of no such name",
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
        expect={
            "job": {
                "state": "JOB_STATE_QUEUED",
                "waiting": {"reason": "WAITING_REASON_QUEUE_PAUSED"},
                "view": "JOB_VIEW_FULL",
            }
        },
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
        uid("$most"),
        expect={"job": {"user": "Jürgen 李", "config": maximal_submit("$project")["config"]}},
    ),
    Case(
        "less of it, read back",
        "JobsService.GetJob",
        {**named("m" * 63), "view": "JOB_VIEW_BASIC"},
        expect={"job": {"view": "JOB_VIEW_BASIC", "config": {"batch": "batch-1"}}},
    ),
    Case("the same request again", "JobsService.SubmitJob", maximal_submit("$project"), expect={"existed": True}),
    Case(
        "the id of a live job",
        "JobsService.SubmitJob",
        {"jobId": "m" * 63, "config": config()},
        "ALREADY_EXISTS",
        "JOB_EXISTS",
        ("job_id",),
        {"uid": "$most"},
    ),
    Case(
        "a request_id of another request",
        "JobsService.SubmitJob",
        {"requestId": "r" * 64, "config": config()},
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
        ("request_id",),
        {"uid": "$most"},
    ),
    Case(
        "an id of the form of a uid",
        "JobsService.SubmitJob",
        {"jobId": "0" * 32, "config": config()},
        BAD,
        "INVALID_REQUEST",
        ("job_id",),
    ),
    Case(
        "many at once, some of them bad",
        "JobsService.SubmitJobs",
        {
            "requests": [
                {"jobId": "many-1", "config": config(batch="many", labels={"part": "天线"})},
                {"jobId": "many 2", "config": config(cores=-1)},
                {"jobId": "many-3", "config": config("$other", batch="many")},
            ]
        },
        expect={
            "results": [
                {"response": {"job": {"id": "many-1"}}},
                {"error": {"code": 3}, "errorReason": "ERROR_REASON_INVALID_JOB"},
                {"response": {"job": {"id": "many-3"}}},
            ]
        },
    ),
    Case("none at once", "JobsService.SubmitJobs"),
    Case("too many at once", "JobsService.SubmitJobs", {"requests": [{}] * 1001}, BAD, "TOO_MANY_ITEMS"),
    Case(
        "a preview",
        "JobsService.PreviewJob",
        {"request": {"config": config(cores=2)}},
        expect={"scheduler": "local", "reservation": {"cores": 2}},
    ),
    refused("no project", "PROJECT_NOT_FOUND", "config.project_path", project="$folder/基板 🛰.aedt"),
    refused("a project elsewhere", "PROJECT_NOT_ALLOWED", "config.project_path", project="$elsewhere"),
    refused("a program of its own", "SOLVER_NOT_ALLOWED", "config.aedt_path", aedtPath="/bin/sh"),
    refused("another's library", "ENVIRONMENT_NOT_ALLOWED", environment={"LD_PRELOAD": "/tmp/x.so"}),
    refused("too many cores", "INFEASIBLE", "config.cores", cores=5),
    refused("fields that cannot be", "INVALID_JOB", "config.cores", cores=-1),
    refused("zero, where it cannot be", "INVALID_JOB", "config.cores", cores=0),
    refused("no scheduler", "NO_SCHEDULER", "config.scheduler", code=STATE, scheduler="windows_hpc"),
    refused("an empty request", "INVALID_JOB", "config.project_path", project=""),
    Case(
        "a priority out of range",
        "JobsService.SubmitJob",
        {"config": config(), "priority": 2147483647},
        BAD,
        "INVALID_PRIORITY",
        ("priority",),
    ),
)

QUEUED = (
    Case("all jobs", "JobsService.ListJobs", expect={"totalSize": "4", "position": {"storeId": "$store"}}),
    Case(
        "a page",
        "JobsService.ListJobs",
        {"pageSize": 1, "order": "JOB_ORDER_CREATE_TIME_DESCENDING"},
        expect={"jobs": [{"id": "many-3"}]},
        save={"page": "nextPageToken"},
    ),
    Case(
        "the next page, of another size",
        "JobsService.ListJobs",
        {"pageSize": 2, "order": "JOB_ORDER_CREATE_TIME_DESCENDING", "pageToken": "$page"},
        expect={"jobs": [{"id": "many-1"}, {"id": "m" * 63}]},
    ),
    Case("a page of nobody's", "JobsService.ListJobs", {"pageToken": "🛰"}, BAD, "INVALID_PAGE_TOKEN"),
    Case(
        "a filter with all it has",
        "JobsService.ListJobs",
        {
            "filter": {
                "jobs": [{"uid": "$most"}, {"id": "nobody"}],
                "states": ["JOB_STATE_QUEUED", "JOB_STATE_RUNNING"],
                "ended": False,
                "held": True,
                "users": ["Jürgen 李", "nobody"],
                "batches": ["batch-1"],
                "labels": {"unicode": UNICODE, "empty": ""},
                "projectPath": "$project",
                "schedulers": ["local", "slurm"],
                "createTimeFrom": "2000-01-01T00:00:00.000000001Z",
                "createTimeBefore": "9999-12-31T23:59:59.999999999Z",
                "includeSuperseded": True,
            },
            "view": "JOB_VIEW_FULL",
        },
        expect={"jobs": [{"id": "m" * 63, "view": "JOB_VIEW_FULL"}]},
    ),
    Case(
        "a filter of what has ended",
        "JobsService.ListJobs",
        {
            "filter": {
                "endReasons": ["END_REASON_NORMAL"],
                "endTimeFrom": "2000-01-01T00:00:00Z",
                "endTimeBefore": "9999-12-31T23:59:59Z",
            }
        },
    ),
    Case("a filter that finds nothing", "JobsService.ListJobs", {"filter": {"users": ["nobody"]}}),
    Case("no such job", "JobsService.GetJob", named(UNICODE), NONE, "JOB_NOT_FOUND"),
    Case("no job at all", "JobsService.GetJob", {}, BAD, "INVALID_REQUEST", ("job",)),
    Case(
        "a job by both of its names",
        "JobsService.GetJob",
        {"job": {"uid": "$most", "id": "m" * 63}},
        BAD,
        "INVALID_REQUEST",
        ("job",),
    ),
    Case("hold", "JobsService.HoldJob", named("many-3"), expect={"job": {"held": True}}),
    Case("release", "JobsService.ReleaseJob", named("many-3"), expect={"job": {"id": "many-3"}}),
    Case("priority", "JobsService.SetJobPriority", {**uid("$least"), "priority": 5}, expect={"job": {"priority": 5}}),
    Case("waiting with a limit", "JobsService.WaitJob", {**uid("$least"), "timeout": "0s"}, expect={"job": {}}),
    Case("a deadline", "JobsService.WaitJob", {**uid("$least"), "timeout": "300s"}, "DEADLINE_EXCEEDED", deadline=0.3),
    Case("an output not there yet", "JobsService.ReadLog", uid("$least"), NONE, "ATTEMPT_NOT_FOUND"),
    Case("not ended: retry", "JobsService.RetryJob", uid("$least"), STATE, "JOB_NOT_ENDED"),
    Case("not ended: delete", "JobsService.DeleteJob", uid("$least"), STATE, "JOB_NOT_ENDED"),
    Case(
        "nothing to abandon", "JobsService.CancelJob", {**uid("$least"), "abandon": True}, STATE, "JOB_NOT_UNKILLABLE"
    ),
    Case(
        "cancel", "JobsService.CancelJob", {**uid("$most"), "gracePeriod": "0.500s"}, expect={"job": {"id": "m" * 63}}
    ),
    Case(
        "cancelled before it started",
        "JobsService.WaitJob",
        uid("$most"),
        expect={"job": {"state": "JOB_STATE_CANCELLED", "endTime": "*", "outcome": {"evidence": "EVIDENCE_SERVICE"}}},
    ),
    Case("cancel all without saying so", "JobsService.CancelJobs", {}, BAD, "FILTER_REQUIRED"),
    Case(
        "cancel many",
        "JobsService.CancelJobs",
        {"filter": {"jobs": [{"id": "many-3"}]}},
        expect={"results": [{"changed": {"id": "many-3"}}]},
    ),
    Case(
        "cancel what is not there",
        "JobsService.CancelJobs",
        {"filter": {"jobs": [{"id": "nobody"}]}},
        expect={"results": [{"job": {"id": "nobody"}, "error": {}, "errorReason": "ERROR_REASON_JOB_NOT_FOUND"}]},
    ),
)

CASES = (*STATUS, *LIMITS, *SUBMITS, *QUEUED, *SOLVES, *WATCHES, *NOT_SERVED)
