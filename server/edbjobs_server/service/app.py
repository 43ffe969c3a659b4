"""The service as a process: its parts, start and stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edbjobs._endpoint import Endpoint, process_start, remove_endpoint, write_endpoint
from edbjobs._exceptions import EdbJobsError
from edbjobs._version import __version__

from edbjobs_server.auth.authenticator import TOKEN_FILE, Authenticator, account_name, load_token, make_authenticator
from edbjobs_server.config.settings import Settings, SettingsError, load_settings
from edbjobs_server.config.site_policy import load_site_policy
from edbjobs_server.executors.base import Executor
from edbjobs_server.gateway.grpcweb.endpoint import Methods
from edbjobs_server.gateway.server import Gateway
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.manager.service_info import ServiceInfo
from edbjobs_server.manager.submission import Rules
from edbjobs_server.rpc.server import RpcServer
from edbjobs_server.service import event_loop
from edbjobs_server.service.cluster_factory import make_clusters, node_releases
from edbjobs_server.service.logging import Logging
from edbjobs_server.solver.environment import inherited
from edbjobs_server.solver.releases import discover
from edbjobs_server.store import Store, StoreError
from edbjobs_server.telemetry.host import HostSampler, capacity
from edbjobs_server.util.keep_running import keep_running

if sys.platform != "win32":
    from edbjobs_server.executors.local.linux import processes

log = logging.getLogger(__name__)

GRACE_SECONDS = 3.0  # for calls that go on when the service stops
SWITCH_SECONDS = 0.001
USAGE_ERROR = 2


def main(values: Mapping[str, Any], config_file: Path | None = None) -> int:
    """Run the service until a signal ends it.

    Parameters
    ----------
    values : mapping of str to object
        Settings given on the command line.
    config_file : Path, optional
        TOML file with further settings.

    Returns
    -------
    int
        Exit code: 0 after a clean stop, 2 when it could not start; one line on stderr has the reason.
    """
    try:
        event_loop.run(serve(load_settings(values, config_file)))
    except (SettingsError, StoreError, EdbJobsError) as error:
        print(f"edbjobs: {error}", file=sys.stderr)
        return USAGE_ERROR
    return 0


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT; a second signal ends it at once.

    Raises
    ------
    SettingsError, StoreError
        It could not start.
    """
    if sys.platform != "win32":
        processes.raise_descriptor_limit()  # connections and watchers are many; solvers get the old limit
    umask = os.umask(0o077)  # what the service writes is for its account alone; what solvers write is not
    # The loop shares the interpreter with the store's writer and the threads for paths: at the default of 5 ms
    # each hand-over under load would cost more than the work itself.
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.disable()  # while many objects are made that stay, each pass would look through all of them
    stop = Stop()
    stop.on_signals()
    store = await asyncio.to_thread(Store.open, settings.state_dir)
    with Logging(settings.state_dir, settings.log_level):
        service = Service(settings, store, umask)
        try:
            try:
                await service.start()
                service.advertise()
            except OSError as error:
                raise SettingsError(f"the service cannot start: {error.filename or ''}: {error.strerror}") from error
            # What is there now stays: a full collection that looked through it would stop the loop for 50 ms.
            gc.collect()
            gc.freeze()
            gc.enable()
            await stop.first.wait()
            log.info("draining: no new starts; running solves go on")
        finally:
            await service.stop(stop)


class Stop:
    """Requests to stop: after the first the service drains, after the second it stops at once."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def ask(self) -> None:
        """Request the stop; on the event loop."""
        (self.second if self.first.is_set() else self.first).set()

    def on_signals(self) -> None:
        """Let SIGTERM and SIGINT request the stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if sys.platform == "win32":
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.ask))
            else:
                loop.add_signal_handler(number, self.ask)


class Service:
    """The parts of one service.

    Parameters
    ----------
    settings : Settings
        Settings of the service.
    store : Store
        Opened; closed with the service.
    umask : int, optional
        File mode creation mask of solvers; None: that of this process.
    """

    def __init__(self, settings: Settings, store: Store, umask: int | None = None) -> None:
        self.settings = settings
        self._site = load_site_policy()
        local = _local_executor(settings)
        clusters = make_clusters(settings, self._site, inherited(os.environ), store.store_id)
        executors: dict[str, Executor] = {local.name: local, **clusters}
        about = ServiceInfo(settings.state_dir, account_name(), [*_warnings(settings), *self._site.warnings(settings)])
        self._sampler = HostSampler(
            settings.state_dir,
            settings.telemetry_seconds,
            run_pids=lambda: self.manager.run_pids(),
            project_paths=lambda: self.manager.project_folders(),
            on_sample=lambda sample: self.manager.take_load(sample.load()),
        )
        releases = discover(os.environ, settings.solvers, settings.demo_solver)
        schedulers = {name: executor.scheduler for name, executor in clusters.items()}
        rules = Rules(
            releases=releases,
            schedulers=frozenset(executors),
            host=replace(capacity(), max_cluster_jobs=self._site.max_cluster_jobs),
            project_roots=settings.project_roots,
            environment_allow=settings.environment_allow,
            clusters=schedulers,
            node_releases=node_releases(settings, releases, schedulers),
            policy=self._site.cluster_policy(settings),
            no_local=self._no_local,
            umask=umask,
        )
        self.manager = JobManager(
            store,
            executors,
            rules,
            dict(os.environ),
            _boot_id(),
            self._sampler,
            about,
            lock_wait=settings.lock_wait_seconds,
            gate_event_seconds=settings.gate_event_seconds,
            clusters=clusters,
            cluster_chosen=settings.scheduler != "auto",
        )
        self._access = make_authenticator(settings.state_dir, mtls=settings.transport_mode == "mtls")
        self._rpc = RpcServer(self.manager, self._access)
        # One for each TCP endpoint: a peer's socket is looked up for the address of that endpoint only.
        self._web_access = make_authenticator(settings.state_dir)
        self._gateway: Gateway | None = None
        self._retention = self.manager.retention(settings.retention_days, settings.retention_jobs)
        self._tasks: list[asyncio.Task[None]] = []
        self._endpoint: Endpoint | None = None

    async def start(self, before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Take the addresses, adopt what runs, and answer.

        `before` is awaited when changes can be made and nothing has been started yet.
        """
        self._rpc.bind(self.settings)
        if self.settings.web is not None:
            self._gateway = _make_gateway(self.manager, self._web_access, self.settings, self._rpc.methods)
        sampling = keep_running("sampling the host", self._sampler.run)
        self._tasks.append(asyncio.create_task(sampling, name="sampler"))
        await self.manager.open(self.settings.explicit_limits(), before)
        await self._rpc.start()
        if self._gateway is not None:
            await self._gateway.start()
        self._tasks.append(
            asyncio.create_task(keep_running("removing old records", self._retention.run), name="retention")
        )
        if self._gateway is not None and self._gateway.token_url:
            print(f"edbjobs: open {self._gateway.token_url}", flush=True)

    def advertise(self) -> None:
        """Publish the addresses: for clients, in the ready file, and in the log."""
        endpoint = self._make_endpoint()
        write_endpoint(endpoint)
        self._endpoint = endpoint
        if self.settings.ready_file is not None:
            write_endpoint(endpoint, self.settings.ready_file)
        answers = endpoint.grpc or endpoint.uds or endpoint.http
        log.info("edbjobs %s answers at %s", __version__, answers)

    def _withdraw(self) -> None:
        """Remove the files that `advertise` wrote; if that fails, the service stops all the same."""
        if self._endpoint is None:
            return
        for path in (None, self.settings.ready_file) if self.settings.ready_file is not None else (None,):
            try:
                remove_endpoint(self._endpoint, path)
            except (EdbJobsError, OSError) as error:
                log.warning("the file with the service's address could not be removed: %s", error)

    @property
    def url(self) -> str:
        """Base URL of the HTTP endpoint; empty: there is none."""
        return self._gateway.url if self._gateway is not None else ""

    async def stop(self, stop: Stop) -> None:
        """Drain and release everything; running solves go on."""
        await self._rpc.drain()
        self.manager.drain()
        self._withdraw()
        stopping = asyncio.create_task(self._stop_endpoints())
        at_once = asyncio.create_task(stop.second.wait())
        await asyncio.wait({stopping, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await self._rpc.stop(0)
        await stopping
        at_once.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, at_once, return_exceptions=True)
        await self.manager.close()
        self._access.close()
        self._web_access.close()

    async def _stop_endpoints(self) -> None:
        gateway = [self._gateway.stop()] if self._gateway is not None else []
        await asyncio.gather(self._rpc.stop(GRACE_SECONDS), *gateway)

    def _make_endpoint(self) -> Endpoint:
        host, port = self._rpc.tcp or ("", 0)
        return Endpoint(
            grpc=(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if host else "",
            uds=str(self._rpc.uds or ""),
            http=self.url,
            pid=os.getpid(),
            pid_start=process_start(os.getpid()),
            host=socket.gethostname(),
            version=__version__,
            token_file=str(self.settings.state_dir / TOKEN_FILE),
        )

    def _no_local(self) -> str:
        answers = any(status.responding for status in self.manager.schedulers())
        return self._site.local_allowed(socket.gethostname(), answers)


def _make_gateway(manager: JobManager, access: Authenticator, settings: Settings, methods: Methods) -> Gateway:
    return Gateway(manager, access, load_token(settings.state_dir / TOKEN_FILE), settings, methods)


def _local_executor(settings: Settings) -> Executor:
    runs = settings.state_dir / "runs"
    if sys.platform == "win32":
        from edbjobs_server.executors.local.windows.executor import WindowsExecutor

        return WindowsExecutor(runs)
    from edbjobs_server.executors.local.linux.executor import LocalExecutor

    return LocalExecutor(runs, linger=settings.kill_leftovers_seconds)


def _boot_id() -> str:
    if sys.platform == "win32":
        from edbjobs_server.executors.local.windows.executor import boot_id
    else:
        from edbjobs_server.executors.local.linux.processes import boot_id
    return boot_id()


def _warnings(settings: Settings) -> list[str]:
    warnings: list[str] = []
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        warnings.append("the service runs as root, and so does every solve: use an account of its own")
    if settings.demo_solver:
        warnings.append("the demo solver is on: its jobs solve nothing")
    if settings.tcp is not None and settings.transport_mode != "mtls" and not _is_loopback(settings.tcp[0]):
        warnings.append("tokens and projects' names go over the network unencrypted: use --transport-mode mtls")
    if settings.web is not None and not _is_loopback(settings.web[0]):
        warnings.append("HTTP goes over the network unencrypted: put a proxy with TLS before it (--public-url)")
    return warnings


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
