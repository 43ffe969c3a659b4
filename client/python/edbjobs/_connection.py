"""Shared by both transports: channel options, credentials, errors, and the check of the service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from edbjobs._endpoint import Target, resolve_target
from edbjobs._exceptions import (
    EdbJobsError,
    NotEdbJobsError,
    NotServedError,
    TargetError,
    VersionError,
)
from edbjobs._models import SystemStatus
from edbjobs._status import from_call
from edbjobs._version import __version__
from edbjobs.v1 import (
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    jobs_service_pb2,
    jobs_service_pb2_grpc,
    resources_service_pb2,
    resources_service_pb2_grpc,
)

__all__ = ["API_LEVEL", "Settings", "check_service", "make_stubs", "metadata", "to_error"]

# The oldest API level of a service that has everything this client uses.
API_LEVEL = 1

# Not retried by gRPC though they are safe to repeat. DeleteJob: if the first try was executed, the second would answer
# NOT_FOUND. The streams: the client resumes them itself.
_NOT_RETRIED = frozenset({"DeleteJob", "DeleteJobs", "WatchJobs", "ReadLog", "ReadFile"})


def _is_repeatable(method: MethodDescriptor) -> bool:
    """Return whether a call may be repeated; every request with a request_id gets one from this client."""
    if method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN:
        return method.name not in _NOT_RETRIED
    items = (field.message_type for field in method.input_type.fields if field.message_type is not None)
    return any("request_id" in message.fields_by_name for message in (method.input_type, *items))


_REPEATABLE = [
    {"service": service.full_name, "method": method.name}
    for file in (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if _is_repeatable(method)
]
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": _REPEATABLE,
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # gRPC answers CANCELLED, not caused by this client, to a call that arrives while the service stops.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # grpc's own back-off grows to two minutes; a restarted service must be reached again at once. Channels to one
    # address share connections, and with them the back-off after a failure (plus 20 %): it must be shorter than the
    # four attempts of a call, 0.7 s less 20 %, or a call fails although the service listens again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),
    ("grpc.primary_user_agent", f"edbjobs-python/{__version__}"),
]
_LOOPBACK = ("unix:", "127.", "localhost:", "[::1]:")


@dataclass(frozen=True)
class Settings:
    """Connection settings of a client.

    Attributes
    ----------
    target, token : str, optional
        As in `resolve_target`.
    timeout : float
        Deadline of one unary call, seconds.
    certificates : path, optional
        Folder with ca.crt, client.crt and client.key for mutual TLS; absent: no TLS.
    """

    target: str | None = None
    token: str | None = None
    timeout: float = 30.0
    certificates: str | Path | None = None

    def resolve(self) -> Target:
        """Return the current address and token."""
        return resolve_target(self.target, self.token)

    def options(self, target: Target) -> Sequence[tuple[str, Any]]:
        """Return the options of a channel."""
        if target.address.startswith(_LOOPBACK):
            # An HTTP proxy from the environment cannot reach this machine's loopback interface.
            return [*_OPTIONS, ("grpc.enable_http_proxy", 0)]
        return _OPTIONS

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Read the certificates and return the channel credentials; None: no TLS."""
        if self.certificates is None:
            return None
        folder = Path(self.certificates)
        try:
            ca, key, certificate = ((folder / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt"))
        except OSError as error:
            raise TargetError(
                f"certificates cannot be read: {error}; expected ca.crt, client.crt and client.key in {folder}",
                reason="BAD_CERTIFICATES",
            ) from error
        return grpc.ssl_channel_credentials(ca, key, certificate)


def metadata(target: Target) -> tuple[tuple[str, str], ...]:
    """Return the metadata that is sent with every call."""
    return (("authorization", f"Bearer {target.token}"),) if target.token else ()


def make_stubs(channel: Any) -> dict[str, Any]:
    """Create the stubs of all services on a synchronous or asyncio channel."""
    return {
        "JobsService": jobs_service_pb2_grpc.JobsServiceStub(channel),
        "ResourcesService": resources_service_pb2_grpc.ResourcesServiceStub(channel),
        "ClusterService": cluster_service_pb2_grpc.ClusterServiceStub(channel),
    }


def to_error(error: Any, target: Target) -> EdbJobsError:
    """Convert a gRPC error to an exception of the client."""
    return from_call(error.code().value[0], error.details() or "", error.trailing_metadata(), str(target))


def check_service(answer: SystemStatus | EdbJobsError, target: Target) -> None:
    """Raise unless the answer to the first GetSystemStatus is from an edbjobs service this client can use."""
    if isinstance(answer, EdbJobsError):
        if isinstance(answer, NotServedError) and not answer.reason:
            raise NotEdbJobsError(
                f"the server at {target} is a gRPC server, but not edbjobs", reason="NOT_EDBJOBS"
            ) from answer
        raise answer
    if answer.api_level < API_LEVEL:
        raise VersionError(
            f"the service at {target} is edbjobs {answer.version} with API level {answer.api_level}; "
            f"this client, {__version__}, needs level {API_LEVEL}: upgrade the service",
            reason="API_LEVEL",
        )
