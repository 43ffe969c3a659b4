"""Typed client of the edbjobs service.

>>> from edbjobs import Client
>>> with Client() as client:
...     job = client.submit("board.aedb", cores=8)
...     print(client.wait(job.uid, progress=True).state)

Names are imported on first use: ``import edbjobs`` itself loads neither grpc nor pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edbjobs._version import __version__

if TYPE_CHECKING:
    from edbjobs._async_client import AsyncClient
    from edbjobs._calls import JobFilter, LimitValues
    from edbjobs._client import Client
    from edbjobs._endpoint import Endpoint, read_endpoint, runtime_dir, write_endpoint
    from edbjobs._enums import (
        Authentication,
        Convergence,
        DesignMode,
        EndReason,
        Evidence,
        ExistingResults,
        JobChangeType,
        JobOrder,
        JobState,
        JobView,
        LogStream,
        QueueChangeType,
        Role,
        SchedulerPriority,
        SolvePhase,
        SolverSource,
        WaitingReason,
    )
    from edbjobs._exceptions import (
        AuthenticationError,
        BusyError,
        ConflictError,
        ConnectError,
        DeadlineError,
        EdbJobsError,
        ForbiddenError,
        InvalidRequestError,
        NotEdbJobsError,
        NotFoundError,
        NotServedError,
        OutOfRangeError,
        ServiceError,
        StateError,
        TargetError,
        VersionError,
    )
    from edbjobs._models import (
        AdaptivePass,
        Attempt,
        ClusterJob,
        HostResources,
        Job,
        JobChange,
        JobProgress,
        JobResult,
        JobUpdate,
        Limits,
        LimitsChange,
        LogPiece,
        Outcome,
        Partition,
        Position,
        Preview,
        Principal,
        QueueChange,
        QueueStatus,
        Reservation,
        RunUsage,
        SchedulerStatus,
        ServiceDetails,
        Snapshot,
        Solver,
        StartEstimate,
        SubmitResult,
        SystemStatus,
        UserLimits,
        Volume,
        Waiting,
        WatchEvent,
    )
    from edbjobs._wait_timeout import WaitTimeoutError
    from edbjobs.config import (
        JobConfig,
        LayoutOptions,
        Machine,
        RetryOptions,
        SchedulerOptions,
        field_errors,
        make_job_id,
        total_cores,
    )

__all__ = [
    "AdaptivePass",
    "AsyncClient",
    "Attempt",
    "Authentication",
    "AuthenticationError",
    "BusyError",
    "Client",
    "ClusterJob",
    "ConflictError",
    "ConnectError",
    "Convergence",
    "DeadlineError",
    "DesignMode",
    "EdbJobsError",
    "EndReason",
    "Endpoint",
    "Evidence",
    "ExistingResults",
    "ForbiddenError",
    "HostResources",
    "InvalidRequestError",
    "Job",
    "JobChange",
    "JobChangeType",
    "JobConfig",
    "JobFilter",
    "JobOrder",
    "JobProgress",
    "JobResult",
    "JobState",
    "JobUpdate",
    "JobView",
    "LayoutOptions",
    "LimitValues",
    "Limits",
    "LimitsChange",
    "LogPiece",
    "LogStream",
    "Machine",
    "NotEdbJobsError",
    "NotFoundError",
    "NotServedError",
    "OutOfRangeError",
    "Outcome",
    "Partition",
    "Position",
    "Preview",
    "Principal",
    "QueueChange",
    "QueueChangeType",
    "QueueStatus",
    "Reservation",
    "RetryOptions",
    "Role",
    "RunUsage",
    "SchedulerOptions",
    "SchedulerPriority",
    "SchedulerStatus",
    "ServiceDetails",
    "ServiceError",
    "Snapshot",
    "SolvePhase",
    "Solver",
    "SolverSource",
    "StartEstimate",
    "StateError",
    "SubmitResult",
    "SystemStatus",
    "TargetError",
    "UserLimits",
    "VersionError",
    "Volume",
    "WaitTimeoutError",
    "Waiting",
    "WaitingReason",
    "WatchEvent",
    "__version__",
    "field_errors",
    "make_job_id",
    "read_endpoint",
    "runtime_dir",
    "total_cores",
    "write_endpoint",
]

# The clients load grpc but not pydantic, the configuration pydantic but not grpc; the rest neither.
_CLIENTS = {"AsyncClient": "_async_client", "Client": "_client", "JobFilter": "_calls", "LimitValues": "_calls"}
_OTHERS = ("_enums", "_exceptions", "_endpoint", "_models", "_wait_timeout", "config")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module_name in (_CLIENTS[name],) if name in _CLIENTS else _OTHERS:
            module = importlib.import_module(f"edbjobs.{module_name}")
            if name in module.__all__:
                globals()[name] = value = getattr(module, name)
                return value
    raise AttributeError(f"module 'edbjobs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
