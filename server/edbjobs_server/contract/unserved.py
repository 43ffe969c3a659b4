"""What the contract has and this release does not serve yet: it is refused with NOT_SERVED, never ignored.

An issue that fills one of these removes it here and raises ``api_level``.
"""

from __future__ import annotations

# RPCs, by service and name.
RPCS = frozenset(
    {
        *("JobsService.InspectProject", "JobsService.ListProjects"),
        *("JobsService.GetConvergence", "JobsService.ListFiles", "JobsService.ReadFile"),
        *("JobsService.GetBatch", "JobsService.ListBatches"),
        *("JobsService.HoldJobs", "JobsService.ReleaseJobs", "JobsService.SetJobsPriority"),
        *("JobsService.RetryJobs", "JobsService.DeleteJobs"),
        "ResourcesService.ListLicenses",
    }
)
# Fields of requests, and of messages in them, by message and name.
FIELDS = frozenset(
    {
        *("JobConfig.require_converged", "JobConfig.required_outputs", "JobConfig.exports", "JobConfig.dependencies"),
        *("JobFilter.text", "JobFilter.convergences"),
        *("RetryJobRequest.changes", "RetryJobRequest.clear_mask", "RetryJobRequest.priority"),
    }
)
# Values of enums in requests.
VALUES = frozenset(
    {
        *("JOB_ORDER_END_TIME_DESCENDING", "JOB_ORDER_PRIORITY"),
        "LOG_STREAM_EXPORT",
        *("END_REASON_UP_TO_DATE", "END_REASON_NOT_CONVERGED", "END_REASON_OUTPUT_MISSING"),
        *("END_REASON_EXPORT_FAILED", "END_REASON_DISK_FULL"),
        "END_REASON_DEPENDENCY_FAILED",
    }
)
