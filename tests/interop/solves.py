"""The calls of the table once jobs run, and the watches."""

from __future__ import annotations

from interop.case import BAD, NONE, RANGE, STATE, Case, config, named, uid
from interop.maximal import LARGEST

SOLVES = (
    Case("resume", "ResourcesService.ResumeQueue", expect={"queue": {}}),
    Case(
        "wait to the end",
        "JobsService.WaitJob",
        {**named("many-1"), "timeout": "30s"},
        deadline=40,
        expect={
            "job": {
                "state": "JOB_STATE_COMPLETED",
                "endTime": "*",
                "outcome": {"reason": "END_REASON_NORMAL", "evidence": "EVIDENCE_SOLVER_LOG", "exitCode": 0},
                "attempts": [{"number": 1, "outcome": {"exitCode": 0}}],
            }
        },
        save={"first": "job.uid"},
    ),
    Case("end: cancel", "JobsService.CancelJob", named("many-1"), STATE, "JOB_ENDED", (), {"uid": "$first"}),
    Case("the log to its end", "JobsService.ReadLog", {**named("many-1"), "follow": True}),
    Case(
        "a piece",
        "JobsService.ReadLog",
        {**named("many-1"), "attempt": 1, "stream": "LOG_STREAM_SOLVER", "offset": 3, "maxBytes": 5},
    ),
    Case("the last bytes", "JobsService.ReadLog", {**named("many-1"), "offset": -4}),
    Case("no bytes", "JobsService.ReadLog", {**named("many-1"), "maxBytes": 0}),
    Case(
        "beyond the end",
        "JobsService.ReadLog",
        {**named("many-1"), "stream": "LOG_STREAM_STDOUT", "offset": LARGEST},
        RANGE,
        "OFFSET_BEYOND_END",
    ),
    Case(
        "no such attempt",
        "JobsService.ReadLog",
        {**named("many-1"), "attempt": 2147483647},
        NONE,
        "ATTEMPT_NOT_FOUND",
        (),
        {"attempt_count": "1"},
    ),
    Case(
        "no such output",
        "JobsService.ReadLog",
        {**named("many-1"), "stream": "LOG_STREAM_SCRIPT"},
        NONE,
        "LOG_NOT_FOUND",
    ),
    Case(
        "a job that stays",
        "JobsService.SubmitJob",
        {"jobId": "stays", "config": config("$other", environment={"ANS_EDBJOBS_DEMO": "seconds=600"})},
        save={"stays": "job.uid"},
    ),
    Case(
        "watched until it runs",
        "JobsService.WatchJobs",
        {"fromOldest": True, "filter": {"jobs": [{"uid": "$stays"}]}},
        until="JOB_CHANGE_TYPE_STARTED",
        expect={"events": "*", "position": "*"},
    ),
    Case(
        "watched until its progress comes",
        "JobsService.WatchJobs",
        {"filter": {"jobs": [{"uid": "$stays"}]}, "includeUpdates": True},
        until='"progress"',
        expect={"position": "*"},
        same=False,
    ),
    Case("started: hold", "JobsService.HoldJob", named("stays"), STATE, "JOB_STARTED"),
    Case("started: priority", "JobsService.SetJobPriority", {**named("stays"), "priority": 1}, STATE, "JOB_STARTED"),
    Case(
        "a stream that is left",
        "JobsService.ReadLog",
        {**named("stays"), "follow": True},
        until='"attempt"',
        same=False,
    ),
    Case("end it", "JobsService.CancelJob", {**named("stays"), "gracePeriod": "5s"}, expect={"job": {"id": "stays"}}),
    Case(
        "ended by cancel",
        "JobsService.WaitJob",
        {**named("stays"), "timeout": "30s"},
        deadline=40,
        expect={"job": {"state": "JOB_STATE_CANCELLED", "outcome": {"reason": "END_REASON_CANCELLED"}}},
    ),
    Case("cancel again", "JobsService.CancelJob", uid("$stays"), expect={"job": {"state": "JOB_STATE_CANCELLED"}}),
    Case(
        "retry",
        "JobsService.RetryJob",
        {**named("many-1"), "requestId": "again"},
        expect={"job": {"id": "many-1", "retryOf": "$first"}},
        save={"again": "job.uid"},
    ),
    Case(
        "the same retry again",
        "JobsService.RetryJob",
        {**uid("$first"), "requestId": "again"},
        expect={"job": {"uid": "$again"}, "existed": True},
        same=False,
    ),
    Case(
        "another retry",
        "JobsService.RetryJob",
        uid("$first"),
        STATE,
        "JOB_SUPERSEDED",
        (),
        {"uid": "$first", "superseded_by": "$again"},
    ),
    Case(
        "wait for the retry",
        "JobsService.WaitJob",
        {**uid("$again"), "timeout": "30s"},
        expect={"job": {"endTime": "*"}},
        deadline=40,
    ),
    Case("delete by id", "JobsService.DeleteJob", named("many-1"), BAD, "INVALID_REQUEST", ("job.id",)),
    Case("delete", "JobsService.DeleteJob", uid("$again")),
    Case("deleted", "JobsService.GetJob", uid("$again"), NONE, "JOB_NOT_FOUND"),
    Case("deleted with what it superseded", "JobsService.GetJob", uid("$first"), NONE, "JOB_NOT_FOUND"),
)

WATCHES = (
    Case(
        "from the beginning",
        "JobsService.WatchJobs",
        {"fromOldest": True, "includeServiceChanges": True, "heartbeatInterval": "1s"},
        until="caughtUp",
        expect={"events": "*"},
    ),
    Case(
        "from a position",
        "JobsService.WatchJobs",
        {"after": {"revision": "1", "storeId": "$store"}},
        until="caughtUp",
        expect={"position": {"storeId": "$store"}},
    ),
    Case("only what is new", "JobsService.WatchJobs", {"filter": {"users": ["nobody"]}}, until="caughtUp", same=False),
    Case(
        "another store",
        "JobsService.WatchJobs",
        {"after": {"revision": "1", "storeId": "another"}},
        RANGE,
        "OTHER_STORE",
        (),
        {"store_id": "$store"},
    ),
    Case("the future", "JobsService.WatchJobs", {"after": {"revision": LARGEST}}, RANGE, "REVISION_IN_FUTURE"),
    Case(
        "from two places",
        "JobsService.WatchJobs",
        {"fromOldest": True, "after": {"revision": "1"}},
        BAD,
        "INVALID_REQUEST",
    ),
)
