"""Typed client of the edbjobs service.

>>> from edbjobs import Client
>>> with Client() as client:
...     job = client.submit("board.aedb", cores=8)
...     print(client.wait(job.uid, progress=True).status)

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
        EndReason,
        EventType,
        Evidence,
        ExistingResults,
        JobOrder,
        JobStatus,
        JobView,
        LogStream,
        Role,
        SchedulerType,
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
        Attempt,
        ClusterJob,
        Event,
        HostResources,
        Job,
        JobProgress,
        JobResult,
        Limits,
        LogPiece,
        Partition,
        Position,
        Preview,
        Principal,
        QueueStatus,
        Reservation,
        SchedulerStatus,
        ServiceDetails,
        Snapshot,
        Solver,
        SubmitResult,
        SystemStatus,
        UserLimits,
        Volume,
    )
    from edbjobs._wait_timeout import WaitTimeoutError
    from edbjobs.config import (
        HFSS3DLayoutBatchOptions,
        HFSSSimulationConfig,
        MachineNode,
        RetryPolicy,
        SchedulerOptions,
        create_hfss_config,
        field_errors,
        make_job_id,
        total_cores,
    )

__all__ = [
    "AsyncClient",
    "Attempt",
    "Authentication",
    "AuthenticationError",
    "BusyError",
    "Client",
    "ClusterJob",
    "ConflictError",
    "ConnectError",
    "DeadlineError",
    "EdbJobsError",
    "EndReason",
    "Endpoint",
    "Event",
    "EventType",
    "Evidence",
    "ExistingResults",
    "ForbiddenError",
    "HFSS3DLayoutBatchOptions",
    "HFSSSimulationConfig",
    "HostResources",
    "InvalidRequestError",
    "Job",
    "JobFilter",
    "JobOrder",
    "JobProgress",
    "JobResult",
    "JobStatus",
    "JobView",
    "LimitValues",
    "Limits",
    "LogPiece",
    "LogStream",
    "MachineNode",
    "NotEdbJobsError",
    "NotFoundError",
    "NotServedError",
    "OutOfRangeError",
    "Partition",
    "Position",
    "Preview",
    "Principal",
    "QueueStatus",
    "Reservation",
    "RetryPolicy",
    "Role",
    "SchedulerOptions",
    "SchedulerStatus",
    "SchedulerType",
    "ServiceDetails",
    "ServiceError",
    "Snapshot",
    "Solver",
    "SolverSource",
    "StateError",
    "SubmitResult",
    "SystemStatus",
    "TargetError",
    "UserLimits",
    "VersionError",
    "Volume",
    "WaitTimeoutError",
    "WaitingReason",
    "__version__",
    "create_hfss_config",
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
