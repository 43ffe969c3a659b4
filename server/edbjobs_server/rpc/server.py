"""The gRPC server: options, services and addresses."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from edbjobs.v1 import (
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    jobs_service_pb2,
    jobs_service_pb2_grpc,
    resources_service_pb2,
    resources_service_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.config.settings import Settings, SettingsError
from edbjobs_server.contract.request_check import MAX_REQUEST_BYTES
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.rpc.cluster import ClusterServicer
from edbjobs_server.rpc.interceptors import CallInterceptor
from edbjobs_server.rpc.jobs import JobsServicer
from edbjobs_server.rpc.resources import ResourcesServicer

# Reflection lists only loaded files, and no other import here loads the file of JobsService.
_FILES = (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
SERVICES = tuple(service.full_name for file in _FILES for service in file.DESCRIPTOR.services_by_name.values())
_OPTIONS = (
    # Without this, two servers on one port would share its calls without an error.
    ("grpc.so_reuseport", 0),
    # By default, part of a burst of more than 1,000 new calls is CANCELLED.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    # Clients ping idle streams every 30 s; by default that ends them with "too many pings".
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Up to twice the limit a request is refused with its reason; above it gRPC answers RESOURCE_EXHAUSTED itself.
    ("grpc.max_receive_message_length", 2 * MAX_REQUEST_BYTES),
)


class RpcServer:
    """The gRPC endpoint of a job manager.

    Parameters
    ----------
    manager : JobManager
        Serves every call.
    access : Authenticator
        Authenticates callers.

    Attributes
    ----------
    methods : dict of str to grpc.RpcMethodHandler
        Method handlers by path: the endpoint for gRPC-Web serves the same.
    """

    def __init__(self, manager: JobManager, access: Authenticator) -> None:
        self._access = access
        self._server = grpc.aio.server(interceptors=[CallInterceptor(access)], options=_OPTIONS)
        self._health = health.aio.HealthServicer()
        self.methods: dict[str, Any] = {}
        registry: Any = _Registry(self._server, self.methods)
        # Calls that are not served yet have no method: the interceptor refuses them.
        jobs = JobsServicer(manager)  # type: ignore[abstract]
        resources = ResourcesServicer(manager)  # type: ignore[abstract]
        jobs_service_pb2_grpc.add_JobsServiceServicer_to_server(jobs, registry)
        resources_service_pb2_grpc.add_ResourcesServiceServicer_to_server(resources, registry)
        cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterServicer(manager), registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registry)
        names = [*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
        self.tcp: tuple[str, int] | None = None
        self.uds: Path | None = None

    def bind(self, settings: Settings) -> None:
        """Bind the addresses; before `start`.

        Raises
        ------
        SettingsError
            An address is in use or cannot be bound.
        """
        if settings.uds is not None:
            self._bind_uds(settings.uds)
        if settings.tcp is not None:
            self._bind_tcp(*settings.tcp, settings)

    async def start(self) -> None:
        """Start to serve calls."""
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def drain(self) -> None:
        """Report NOT_SERVING to health checks."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Accept no new calls, and give open ones `grace` seconds."""
        await self._server.stop(grace)
        if self.uds is not None:
            self.uds.unlink(missing_ok=True)

    def _bind_tcp(self, host: str, port: int, settings: Settings) -> None:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        advice = "choose another with --grpc, or port 0"
        try:
            _try_address(host, port)  # gRPC writes the reason to its own log only
        except OSError as error:
            raise SettingsError(f"{address} is in use or not an address of this host ({error}); {advice}") from error
        try:
            if settings.transport_mode == "mtls":
                bound = self._server.add_secure_port(address, _credentials(settings))
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise SettingsError(f"{address} cannot be served ({error}); {advice}") from error
        self.tcp = (host, bound)
        self._access.listen(_addresses(host, bound))

    def _bind_uds(self, path: Path) -> None:
        """Bind a socket that only this account can open; its folder denies access to others until the mode is set."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_stale(path)
            self._server.add_insecure_port(f"unix:{path}")
            os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        except (RuntimeError, OSError) as error:
            raise SettingsError(f"the Unix socket {path} cannot be made: {error}; choose another with --uds") from error
        self.uds = path


class _Registry:
    """Registers services with the server, and keeps their method handlers."""

    def __init__(self, server: grpc.aio.Server, methods: dict[str, Any]) -> None:
        self._methods = methods
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers
        self._register = server.add_registered_method_handlers

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self._register(service, handlers)
        self._methods.update({f"/{service}/{name}": handler for name, handler in handlers.items()})


def _try_address(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if sys.platform != "win32":  # on Windows it would let two services share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _addresses(host: str, port: int) -> Sequence[tuple[str, int]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(entry[4][0]), port) for entry in found]


def _remove_stale(path: Path) -> None:
    """Remove a socket without a listener.

    Raises
    ------
    SettingsError
        It has a listener, or is no socket.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise SettingsError(f"{path} exists and is no socket; choose another with --uds")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise SettingsError(f"the Unix socket {path} is in use ({error}); choose another with --uds") from error
    raise SettingsError(f"another service answers at the Unix socket {path}; choose another with --uds")


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    folder = settings.certificates
    assert folder is not None, "checked with the settings"
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.crt")
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
    except OSError as error:
        text = f"ca.crt, server.crt and server.key in {folder} are not two certificates and the key of the second"
        raise SettingsError(f"certificates: {text} ({error})") from error
    return grpc.ssl_server_credentials(
        [((folder / "server.key").read_bytes(), (folder / "server.crt").read_bytes())],
        root_certificates=(folder / "ca.crt").read_bytes(),
        require_client_auth=True,
    )
