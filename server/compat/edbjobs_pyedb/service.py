"""The documented job manager: asynchronous, with the service in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import uuid
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edbjobs.v1 import jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.config.settings import EmbeddedSettings, Settings, SettingsError, load_settings
from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.documented import config as frozen
from edbjobs_server.gateway.documented.config import SchedulerType
from edbjobs_server.gateway.documented.translation import to_job_config
from edbjobs_server.gateway.rest.limits import limit_settings
from edbjobs_server.manager.job_manager import JobManager as Core

from edbjobs_pyedb.configuration import HFSSSimulationConfig
from edbjobs_pyedb.embedded import PRINCIPAL, Embedded, Left, Work
from edbjobs_pyedb.errors import JobManagerError, not_running
from edbjobs_pyedb.jobs import JobInfo, Jobs, JobStatus
from edbjobs_pyedb.limits import LiveLimits, ResourceLimits, update
from edbjobs_pyedb.telemetry import JobPoolManager, ResourceMonitor, SchedulerManager, ServiceMonitor

__all__ = [
    "HFSSSimulationConfig",
    "JobInfo",
    "JobManager",
    "JobPoolManager",
    "JobStatus",
    "ResourceLimits",
    "ResourceMonitor",
    "SchedulerManager",
    "SchedulerType",
]

T = TypeVar("T")
WAIT_SECONDS = 300.0
_NAMED = 20  # held jobs that are printed
_NO_ENDPOINTS = {"grpc": "", "uds": "none", "http": "", "transport_mode": "insecure"}


class JobManager:
    """Queues, runs and watches jobs in a service inside this program.

    The first call that needs it starts it. It keeps its jobs in a state folder and ends with the program; solves go on
    then, and queued jobs are held until the next start with that folder, where `resume` releases them.

    Parameters
    ----------
    resource_limits : ResourceLimits, optional
        Limits at the start.
    scheduler_type : SchedulerType
        Scheduler of jobs that name none; ``none``: the cluster that is detected here, as the setting `scheduler`
        allows, else this host.
    state_dir : path, optional
        State folder, on a local disk; by default one of this process only, which is removed at the end unless
        a job of it still runs or waits.
    **settings
        Any setting of the service, for example ``demo_solver=True`` or ``grpc="127.0.0.1:18080"``; the others
        come from ``EDBJOBS_*`` and the settings file. No endpoint is opened unless it is given here.

    Attributes
    ----------
    jobs : Mapping of str to JobInfo
        Jobs by id, read from the service.
    resource_monitor : ResourceMonitor
        Usage of the host.
    job_pool : JobPoolManager
        State of the queue.
    """

    def __init__(
        self,
        resource_limits: ResourceLimits | None = None,
        scheduler_type: SchedulerType | str = SchedulerType.NONE,
        *,
        state_dir: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self.scheduler_type = SchedulerType(scheduler_type)
        self.jobs = Jobs(self)
        self.resource_monitor: ResourceMonitor = ServiceMonitor(self)
        self.job_pool = JobPoolManager(self)
        self._limits = LiveLimits(self, resource_limits or ResourceLimits())
        self._given = settings
        self._state_dir = Path(state_dir).expanduser().absolute() if state_dir is not None else None
        self._temporary = state_dir is None
        self._opens = True  # whether a call starts the service
        self._embedded: Embedded | None = None
        self._changing = threading.Lock()  # held while the service is started or closed

    @property
    def resource_limits(self) -> ResourceLimits:
        """The limits in force; assigning one of them, or a `ResourceLimits`, changes them at once."""
        return self._limits

    @resource_limits.setter
    def resource_limits(self, limits: ResourceLimits) -> None:
        if not self.running:
            self._limits = LiveLimits(self, limits)
        elif given := limits.given():
            self.call(lambda manager: update(manager, given))

    @property
    def ansys_path(self) -> str | None:
        """Solver of jobs that name none; None: no AEDT is installed."""
        return self.call(_default_solver)

    @property
    def state_dir(self) -> Path | None:
        """State folder; None: it is created at the start."""
        return self._state_dir

    # Start and end ---------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the service is started."""
        return self._embedded is not None and self._embedded.running

    @property
    def url(self) -> str:
        """Base URL of the HTTP endpoint; empty: there is none."""
        return self._embedded.url if self._embedded is not None else ""

    def start(self) -> None:
        """Start the service, if it is not started yet; print the jobs that an earlier session left.

        Raises
        ------
        JobManagerError
            It cannot start: address or state folder in use, or a setting is not valid.
        """
        with self._changing:
            if not self.running:
                self._open()

    def _open(self) -> None:
        embedded = Embedded(self._settings(), self._close_at_exit)
        embedded.start()
        self._embedded = embedded
        self._opens = True
        if held := embedded.held:
            names = ", ".join(held[:_NAMED]) + (f" and {len(held) - _NAMED} more" if len(held) > _NAMED else "")
            print(f"edbjobs: held since an earlier session: {names}; resume() starts them", flush=True)

    def close(self) -> Left:
        """Stop the service: running solves go on, queued jobs stay queued and held; print both numbers."""
        where = self.url or self._state_dir
        left = self._close()
        print(f"edbjobs: closed {where}: {left}", flush=True)
        return left

    def _close(self) -> Left:
        with self._changing:
            self._opens = False
            left = self._embedded.close() if self._embedded is not None else Left()
            if self._temporary and not left and self._state_dir is not None:
                shutil.rmtree(self._state_dir, ignore_errors=True)
                self._state_dir = None
            return left

    def _close_at_exit(self) -> None:
        if left := self._close():
            print(f"edbjobs: the program ends: {left}; open {self._state_dir} again to see them", flush=True)

    @property
    def held(self) -> list[str]:
        """Ids of the jobs that an earlier session left, and that `resume` starts."""
        return list(self._embedded.held) if self._embedded is not None else []

    def resume(self) -> int:
        """Start the jobs that an earlier session left; return their number."""
        return self._ensure_started().resume()

    def _settings(self) -> Settings:
        values = {**_NO_ENDPOINTS, **limit_settings({**self._limits.given(), **self._given})}
        if self._state_dir is not None:
            values["state_dir"] = self._state_dir
        try:
            settings = load_settings(values, kind=EmbeddedSettings)
        except SettingsError as error:
            raise JobManagerError(str(error), "CANNOT_START") from error
        if self._state_dir is None:
            root = settings.state_dir / "embedded"
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._state_dir = self._new_folder(root)
            settings = settings.model_copy(update={"state_dir": self._state_dir})
        return settings

    def _new_folder(self, root: Path) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"process-{os.getpid()}-", dir=root))

    # Calls to the service --------------------------------------------------------------------------------

    def call(self, work: Work[T], timeout: float | None = None) -> T:
        """Run a coroutine on the service's loop and wait for its result, from any thread.

        Raises
        ------
        JobManagerError
            The service refuses the request, or is closed.
        """
        return self._ensure_started().call(work, timeout)

    async def _call(self, work: Work[T]) -> T:
        embedded = await asyncio.to_thread(self._ensure_started)  # starting it blocks
        return await embedded.call_async(work)

    def _ensure_started(self) -> Embedded:
        if not self.running:
            if not self._opens:
                raise not_running()
            self.start()
        assert self._embedded is not None
        return self._embedded

    # Jobs ------------------------------------------------------------------------------------------------

    async def submit_job(self, config: HFSSSimulationConfig | frozen.HFSSSimulationConfig, priority: int = 0) -> str:
        """Queue a job; it is on disk when this returns.

        Parameters
        ----------
        config : HFSSSimulationConfig
            What to solve; copied.
        priority : int
            Higher first; default 0.

        Returns
        -------
        str
            Id of the job. If a live job has this id, nothing is submitted, and a warning is given.

        Raises
        ------
        ValueError
            The configuration is not valid.
        JobManagerError
            The job is refused: SOLVER_NOT_FOUND, PROJECT_NOT_FOUND, NO_SCHEDULER and so on.
        """
        return self.warn(await self._call(self.submission(config, priority)))

    def submission(
        self, config: HFSSSimulationConfig | frozen.HFSSSimulationConfig, priority: int
    ) -> Work[tuple[str, list[str]]]:
        """Return a coroutine function that submits a copy of a configuration and returns its id and warnings."""
        copied = config.native() if isinstance(config, HFSSSimulationConfig) else config
        # A job that names no scheduler goes to this manager's `scheduler_type`, else to the detected one.
        scheduler = self.scheduler_type if copied.scheduler_type is SchedulerType.NONE else copied.scheduler_type
        request_id = uuid.uuid4().hex

        async def submit(manager: Core) -> tuple[str, list[str]]:
            place = await manager.detect_cluster() if scheduler is SchedulerType.NONE else scheduler
            request = jobs_messages_pb2.SubmitJobRequest(
                request_id=request_id,
                job_id=copied.jobid,
                config=to_job_config(copied, str(place)).to_message(),
                priority=priority,
                user=copied.user,
            )
            return await _submit(manager, request)

        return submit

    @staticmethod
    def warn(submitted: tuple[str, list[str]]) -> str:
        """Issue the warnings of a submission; return the id."""
        for text in submitted[1]:
            warnings.warn(f"job {submitted[0]}: {text}", stacklevel=3)
        return submitted[0]

    async def cancel_job(self, job_id: str) -> bool:
        """Cancel a job; return False if there is none of that id, or it has ended."""
        try:
            await self._call(partial(_cancel, job_id=job_id))
        except JobManagerError as error:
            if error.reason in ("JOB_NOT_FOUND", "JOB_ENDED"):
                return False
            raise
        return True

    async def wait_until_all_done(self) -> None:
        """Wait until every job has ended, except held ones."""
        await self._call(all_done)

    async def edit_concurrent_limits(self, update_data: Mapping[str, Any]) -> dict[str, Any] | None:
        """Change limits, all or none; return the documented ones after it, or None if none is named.

        Raises
        ------
        JobManagerError
            INVALID_LIMITS.
        """
        if not update_data:
            return None
        return await self._call(lambda manager: update(manager, dict(update_data)))


async def _submit(manager: Core, request: jobs_messages_pb2.SubmitJobRequest) -> tuple[str, list[str]]:
    try:
        accepted = await manager.submit(request, PRINCIPAL)
    except Refused as refused:
        if refused.reason != "JOB_EXISTS":
            raise
        job = await manager.get(JobRef(uid=refused.metadata["uid"]))
        if job.HasField("end_time") or job.user != (request.user or PRINCIPAL.user):
            raise
        text = f"{refused.message}; this configuration was not submitted"
        return request.job_id, [text]
    return accepted.job.id, list(accepted.job.warnings)


async def _cancel(manager: Core, job_id: str) -> None:
    await manager.cancel(await manager.ref_of(job_id), PRINCIPAL, None, refuse_cancelled=True)


async def all_done(manager: Core) -> None:
    """Wait until no live job is left except held ones."""
    while live := next((job.uid for job in manager.live_jobs().jobs if not job.held), None):
        await manager.wait(JobRef(uid=live), WAIT_SECONDS)


async def detected(manager: Core) -> SchedulerType:
    """Return the cluster of jobs that name no scheduler; ``none``: they run on this host."""
    return SchedulerType(await manager.detect_cluster())


async def _default_solver(manager: Core) -> str | None:
    return manager.default_solver()
