"""What the contract has and no call of the table can meet: not served yet, or not on a healthy service."""

from __future__ import annotations

from typing import Any

from edbjobs_server.contract import unserved

from interop.case import LATER, Case, config


def _unknown(name: str, rpc: str, field: str, request: dict[str, Any]) -> Case:
    return Case(name, rpc, request, LATER, "NOT_SERVED", (), {"field": field})


NOT_SERVED = (
    *(Case(f"not served: {rpc}", rpc, {}, LATER, "NOT_SERVED", (), {"rpc": rpc}) for rpc in sorted(unserved.RPCS)),
    _unknown(
        "an enum value of tomorrow",
        "JobsService.SubmitJob",
        "config.existing_results",
        {"config": config(existingResults=99)},
    ),
    _unknown(
        "a field that is not served, deep inside",
        "JobsService.SubmitJobs",
        "requests[1].config.exports",
        {"requests": [{"config": config()}, {"config": config(exports=[{"kind": "EXPORT_KIND_PROFILE"}])}]},
    ),
    _unknown(
        "false, where a field is not served, is not absent",
        "JobsService.PreviewJob",
        "request.config.require_converged",
        {"request": {"config": config(requireConverged=False)}},
    ),
    _unknown(
        "a filter that is not served selects nothing",
        "JobsService.CancelJobs",
        "filter.text",
        {"filter": {"text": "many"}},
    ),
)

# Reasons that no call of the table can meet on a healthy service with the demo solver, and why.
ELSEWHERE = {
    "SOLVER_NOT_FOUND": "the demo solver serves every release",
    "REVISION_TOO_OLD": "needs a log that was cut",
    "PERMISSION_DENIED": "needs a second account",
    "DRAINING": "needs a service that stops",
    "HOST_NOT_ALLOWED": "the HTTP endpoint's own",
    "ORIGIN_NOT_ALLOWED": "the HTTP endpoint's own",
    "TOO_LARGE": "needs a request of more than 16 MiB",
    "NO_SHARED_DIR": "needs a cluster",
    "PROJECT_NOT_SHARED": "needs a cluster",
    "LOCAL_NOT_ALLOWED": "needs a site's policy",
    "INVALID_TEMPLATE": "needs a template of a site",
    "OVERLOADED": "needs a full queue of the store",
    "PATH_UNREACHABLE": "needs a file system that hangs",
    "STORE_UNAVAILABLE": "needs a full disk",
    "SCHEDULER_UNREACHABLE": "needs a cluster",
    "NO_SAMPLE": "only in the first moment of a service",
    "DEADLINE": "comes just before the deadline, which the client may notice first",
    "INTERNAL": "needs a fault of the service",
    "DESIGN_NOT_FOUND": "not served yet",
    "SETUP_NOT_FOUND": "not served yet",
    "DEPENDENCY_NOT_FOUND": "not served yet",
    "BATCH_NOT_FOUND": "not served yet",
    "FILE_NOT_FOUND": "not served yet",
    "FILE_CHANGED": "not served yet",
}
