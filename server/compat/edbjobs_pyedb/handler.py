"""The documented `JobManagerHandler`: synchronous, for any thread, with the HTTP endpoint of the documented service."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

from edbjobs.v1 import job_state_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.config.addresses import split_address
from edbjobs_server.gateway.documented import config as frozen
from edbjobs_server.gateway.documented.config import SchedulerType
from edbjobs_server.manager.job_manager import JobManager as Core

from edbjobs_pyedb.configuration import HFSSSimulationConfig, MachineNode, create_hfss_config
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.jobs import JobId, JobStatus
from edbjobs_pyedb.limits import ResourceLimits
from edbjobs_pyedb.service import WAIT_SECONDS, JobManager, all_done, detected

__all__ = ["JobManagerHandler"]


class JobManagerHandler:
    """Runs the job manager in a daemon thread of this program.

    Parameters
    ----------
    edb : Edb, optional
        A PyEDB object: jobs are solved by the AEDT release it has.
    version : str, optional
        AEDT release, as ``"2025.2"`` or ``"252"``; by default the newest that is installed.
    host : str
        Address of the HTTP endpoint: ``localhost``, or an IP address. All but loopback addresses need the token,
        which is in the printed URL.
    port : int
        Its port; 0 takes any free one.
    **settings
        Any setting of the service, and `state_dir`, as of `JobManager`; that is by default one for each host and port.

    Attributes
    ----------
    manager : JobManager
        The job manager, with ``jobs`` and ``resource_limits``.
    """

    def __init__(
        self,
        edb: Any = None,
        version: str | None = None,
        host: str = "localhost",
        port: int = 8080,
        **settings: Any,
    ) -> None:
        self.host = host
        self.port = port
        self._version = version or _version_of(edb)
        self.manager: JobManager = _HostedManager(host, port, settings)

    @property
    def started(self) -> bool:
        """Whether the service is started."""
        return self.manager.running

    @property
    def url(self) -> str:
        """Base URL of the HTTP endpoint."""
        return self.manager.url or f"http://{self.host}:{self.port}"

    @property
    def ansys_path(self) -> str | None:
        """Program that solves where a job names none; None: no AEDT is installed."""
        return self.manager.ansys_path

    @property
    def scheduler_type(self) -> SchedulerType:
        """Cluster of jobs that name no scheduler; ``none``: they run on this host, or the service is not started."""
        return self.manager.call(detected) if self.started else SchedulerType.NONE

    @property
    def resource_limits(self) -> ResourceLimits:
        """The limits in force; assigning one of them acts at once."""
        return self.manager.resource_limits

    # Start and end ---------------------------------------------------------------------------------------

    def start_service(self) -> None:
        """Start the service, if it is not started yet; print the jobs that an earlier session left.

        Raises
        ------
        JobManagerError
            The port or the state folder is in use, or a setting is not valid.
        """
        self.manager.start()

    def resume(self) -> int:
        """Start the jobs that an earlier session left; return their number."""
        return self.manager.resume()

    def close(self) -> None:
        """Stop the service: running solves go on, queued jobs stay queued and held; print both numbers."""
        if self.started:
            self.manager.close()

    async def stop_service(self) -> None:
        """Stop the service as `close` does, for asynchronous programs."""
        await asyncio.to_thread(self.close)

    # Jobs ------------------------------------------------------------------------------------------------

    def create_simulation_config(
        self,
        project_path: str | os.PathLike[str],
        ansys_edt_path: str | None = None,
        jobid: str | None = None,
        scheduler_type: SchedulerType | str | None = None,
        cpu_cores: int = 1,
        user: str = "unknown",
    ) -> HFSSSimulationConfig:
        """Return a configuration, which may be changed until it is submitted.

        Parameters
        ----------
        project_path : str or path
            Project; a relative path is taken from the current folder.
        ansys_edt_path : str, optional
            A solver that the service has; None: the one of the handler's `version`, else the service's choice.
        jobid : str, optional
            Made here if absent.
        scheduler_type : SchedulerType or str, optional
            Where it runs; None leaves it to the service.
        cpu_cores : int
            Cores in all, on this host; default 1.
        user : str
            On whose behalf; ``"unknown"``: the service's account.

        Raises
        ------
        ValueError
            Names each field that is not valid.
        """
        release: dict[str, Any] = {"aedt_version": self._version} if self._version and not ansys_edt_path else {}
        return create_hfss_config(
            project_path,
            jobid=jobid,
            ansys_edt_path=ansys_edt_path,
            machine_nodes=[MachineNode(cores=cpu_cores)],
            scheduler_type=scheduler_type or SchedulerType.NONE,
            user=user,
            **release,
        )

    def submit_job(
        self, config: HFSSSimulationConfig | frozen.HFSSSimulationConfig, priority: int = 0, timeout: float = 30.0
    ) -> JobId:
        """Queue a job; it is on disk when this returns.

        Parameters
        ----------
        config : HFSSSimulationConfig
            What to solve; copied.
        priority : int
            Higher first; default 0.
        timeout : float
            Longest wait for the answer, in seconds.

        Returns
        -------
        JobId
            Id of the job, a text that can also be awaited.

        Raises
        ------
        ValueError
            The configuration is not valid.
        JobManagerError
            The job is refused, or the service is not started.
        TimeoutError
            The service did not answer in time.
        """
        work = self.manager.submission(config, priority)
        return JobId(self.manager.warn(self.manager.call(work, timeout)))

    def wait_until_done(self, job_id: str, poll_every: float = 2.0) -> str:
        """Wait until a job has ended, and return its status.

        Parameters
        ----------
        job_id : str
            Its id.
        poll_every : float
            Without effect: the service reports the end at once.

        Raises
        ------
        JobManagerError
            JOB_NOT_FOUND, or the service was closed during the wait.
        """

        async def wait(manager: Core) -> str:
            job = await manager.wait(await manager.ref_of(job_id), WAIT_SECONDS)
            while not job.HasField("end_time"):
                job = await manager.wait(JobRef(uid=job.uid), WAIT_SECONDS)
            return JobStatus[job_state_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")].value

        return self.manager.call(wait)

    def wait_until_all_done(self, poll_every: float = 2.0) -> None:
        """Wait until every job has ended, except held ones; `poll_every` is without effect."""
        self.manager.call(all_done)


class _HostedManager(JobManager):
    """The manager of a handler: with an endpoint, a state folder that outlives the program, and an explicit start.

    Parameters
    ----------
    host, port : str, int
        Address of the endpoint.
    settings : dict
        Further settings.
    """

    def __init__(self, host: str, port: int, settings: dict[str, Any]) -> None:
        super().__init__(**{**settings, "http": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"})
        self._temporary = False
        self._opens = False

    def _open(self) -> None:
        _refuse_busy(self._given["http"])
        super()._open()

    def _new_folder(self, root: Path) -> Path:
        host, port = split_address(self._given["http"])
        return root / f"{host.replace(':', '_')}-{port}"


def _refuse_busy(http: str) -> None:
    """Raise an error for a port in use before anything is opened; the settings check the rest of an address."""
    try:
        address = split_address(http)
    except ValueError:
        return
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise JobManagerError(
                f"{http} is not available ({error.strerror}): another job manager or program uses it; close it, "
                "or give another port, 0 for any free one",
                "PORT_IN_USE",
            ) from error


def _version_of(edb: Any) -> str:
    version = getattr(edb, "version", None) or getattr(edb, "edbversion", None)
    return str(version) if version else ""
