"""Batch scripts of a cluster and their submission, for programs that do so without a service."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edbjobs.config import JobConfig
from edbjobs_server.auth.authenticator import account_name
from edbjobs_server.config.settings import Settings, SettingsError, load_settings
from edbjobs_server.config.site_policy import SitePolicy, load_site_policy
from edbjobs_server.core.runs import RunKey
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.cluster.allocation import allocation_of, refuse
from edbjobs_server.executors.cluster.run_folders import OUTPUT
from edbjobs_server.executors.cluster.script import POWERSHELL, ScriptError, Scripts, SiteLines
from edbjobs_server.executors.schedulers.base import (
    ClusterJob,
    Partition,
    Scheduler,
    Submission,
    SubmitRefused,
    Unreachable,
)
from edbjobs_server.gateway.documented.config import HFSSSimulationConfig, SchedulerType
from edbjobs_server.gateway.documented.translation import to_job_config
from edbjobs_server.service.cluster_factory import installed, make_scheduler, node_releases
from edbjobs_server.solver import project
from edbjobs_server.solver.command_line import command_line
from edbjobs_server.solver.environment import environment, inherited
from edbjobs_server.solver.releases import Release, choose, discover

from edbjobs_pyedb import local
from edbjobs_pyedb.errors import JobManagerError, no_cluster

T = TypeVar("T")

# Output of the scheduler's own submit command, from which existing programs read the id.
_SUBMITTED_TEXT = {"slurm": "Submitted batch job {}\n", "lsf": "Job <{}> is submitted.\n"}


@dataclass(frozen=True)
class Batch:
    """A run as it is submitted to a scheduler.

    Attributes
    ----------
    script : str
        Text of the batch script.
    spec : RunSpec
        What it runs.
    folder : Path
        Where the run keeps its record and its output: beside the project, on the same volume for the nodes.
    """

    script: str
    spec: RunSpec
    folder: Path

    def submission(self, path: Path) -> Submission:
        """Return the submission of the script, which was written to `path`."""
        assert self.spec.allocation is not None, "a run on a cluster has an allocation"
        return Submission(self.spec.allocation, path, self.folder / OUTPUT, self.folder, self.spec.env)


def script(config: HFSSSimulationConfig, kind: SchedulerType) -> str:
    """Return the batch script of a solve.

    Raises
    ------
    JobManagerError
        NO_SCHEDULER where `kind` names no cluster, INVALID_TEMPLATE.
    Refused
        The scheduler or the site's policy does not allow the request; SOLVER_NOT_FOUND.
    """
    settings, site = _site_settings()
    return _batch(config, _scheduler(kind, settings, site), settings, site).script


def submit(
    config: HFSSSimulationConfig, kind: SchedulerType, script_path: str | None
) -> subprocess.CompletedProcess[str]:
    """Write the batch script of a solve and submit it; no service follows it.

    Parameters
    ----------
    config : HFSSSimulationConfig
        Solve, with its job id.
    kind : SchedulerType
        ``none``: the first one installed here that answers.
    script_path : str, optional
        Where the script goes; a relative path is taken from the project's folder.

    Raises
    ------
    JobManagerError
        NO_SCHEDULER, SCHEDULER_UNREACHABLE, or FOLDER_EXISTS where this id was submitted before.
    Refused
        As `script`, and PROJECT_NOT_FOUND.
    """
    project.inspect_or_refuse(config.project_path)
    settings, site = _site_settings()
    if kind is SchedulerType.NONE:
        kind = _blocking(_first_answering(settings, site))

    async def submitted() -> subprocess.CompletedProcess[str]:
        return await _with_scheduler(kind, lambda scheduler: _submit_to(config, scheduler, settings, site, script_path))

    return _blocking(submitted())


async def partitions(kind: SchedulerType) -> list[Partition]:
    """List the partitions of a cluster.

    Raises
    ------
    JobManagerError
        NO_SCHEDULER or SCHEDULER_UNREACHABLE.
    """
    return list(await _with_scheduler(kind, lambda scheduler: scheduler.partitions()))


async def jobs(kind: SchedulerType) -> list[ClusterJob]:
    """List the jobs of a cluster, of all users; raises as `partitions`."""
    return list(await _with_scheduler(kind, lambda scheduler: scheduler.jobs()))


# The batch ---------------------------------------------------------------------------------------------------


def _batch(config: HFSSSimulationConfig, scheduler: Scheduler, settings: Settings, site: SitePolicy) -> Batch:
    real = Path(os.path.realpath(config.project_path))
    policy = site.cluster_policy(settings)
    job_config = to_job_config(config, scheduler.name)
    refuse(job_config, real, replace(policy, shared_dir=policy.shared_dir or real.parent))
    folder = real.parent / f"{config.jobid}_{scheduler.name}"
    uid = hashlib.sha256(f"{real}\n{config.jobid}".encode(errors="surrogateescape")).hexdigest()[:40]
    allocation = allocation_of(
        job_config, uid=uid, job_id=config.jobid, attempt=1, user=config.user or account_name(), site=policy
    )
    argv = command_line(
        job_config,
        _release(job_config, scheduler, settings),
        config.jobid,
        allocation.nodes * allocation.known_cores,
        project_path=str(real),
        cluster=True,
        scratch=policy.scratch,
        map_path=scheduler.node_path,
    )
    spec = RunSpec(
        key=RunKey(0, uid, 1),
        argv=argv,
        cwd=scheduler.node_path(str(real.parent)),
        env=environment(os.environ, job_config.environment),
        additions=job_config.environment,
        allocation=allocation,
    )
    scripts = Scripts(settings.templates_dir, SiteLines(site.setup, site.scratch))
    folders = (scheduler.node_path(str(folder)), scheduler.node_path(str(folder / "news")))
    try:
        text = scripts.render(scheduler.template, spec, scheduler.directives(allocation), *folders)
    except ScriptError as error:
        raise JobManagerError(str(error), "INVALID_TEMPLATE") from error
    return Batch(text, spec, folder)


def _release(config: JobConfig, scheduler: Scheduler, settings: Settings) -> Release:
    if config.aedt_path:
        return local.release_of(config)
    here = discover(os.environ, settings.solvers, settings.demo_solver)
    there = node_releases(settings, here, {scheduler.name: scheduler})
    return choose(there.get(scheduler.name, here), config.aedt_version, "")


async def _submit_to(
    config: HFSSSimulationConfig, scheduler: Scheduler, settings: Settings, site: SitePolicy, script_path: str | None
) -> subprocess.CompletedProcess[str]:
    batch = _batch(config, scheduler, settings, site)
    suffix = "ps1" if scheduler.template.endswith(POWERSHELL) else "sh"
    path = batch.folder.parent / (script_path or f"{batch.folder.name}.{suffix}")
    _make_folder(batch.folder)
    record.prepare(path.parent, batch.script, path.name)
    submission = batch.submission(path)
    argv = list(scheduler.submit_command(submission))
    try:
        run_id = await scheduler.submit(submission)
    except SubmitRefused as refused:
        shutil.rmtree(batch.folder)
        return subprocess.CompletedProcess(argv, 1, "", f"{refused}\n")
    return subprocess.CompletedProcess(argv, 0, _SUBMITTED_TEXT.get(scheduler.name, "{}\n").format(run_id), "")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        text = f"{folder} exists: this id was submitted before; give the job another one, or remove the folder"
        raise JobManagerError(text, "FOLDER_EXISTS") from None


# Schedulers --------------------------------------------------------------------------------------------------


def _site_settings() -> tuple[Settings, SitePolicy]:
    try:
        return load_settings(), load_site_policy()
    except SettingsError as error:
        raise JobManagerError(str(error), "CANNOT_START") from error


def _scheduler(kind: SchedulerType, settings: Settings, site: SitePolicy) -> Scheduler:
    if kind in (SchedulerType.NONE, SchedulerType.LOCAL):
        raise no_cluster("no scheduler is named: expected scheduler_type slurm, lsf, pbs or windows_hpc")
    try:
        return make_scheduler(kind.value, settings, site, inherited(os.environ))
    except SettingsError as error:
        raise no_cluster(str(error)) from error


async def _with_scheduler(kind: SchedulerType, ask: Callable[[Scheduler], Awaitable[T]]) -> T:
    """Call a scheduler, then release its resources."""
    scheduler = _scheduler(kind, *_site_settings())
    try:
        return await ask(scheduler)
    except Unreachable as error:
        text = f"{scheduler.name} does not answer: {error}"
        raise JobManagerError(text, "SCHEDULER_UNREACHABLE") from error
    finally:
        await scheduler.close()


async def _first_answering(settings: Settings, site: SitePolicy) -> SchedulerType:
    """Return the first scheduler of this host that answers."""
    errors: list[str] = []
    documented = {kind.value: kind for kind in SchedulerType}  # a plug-in's name is not among them
    for name in installed(settings, inherited(os.environ)):
        kind = documented.get(name)
        if kind is None:
            continue
        try:
            await _with_scheduler(kind, lambda scheduler: scheduler.probe())
        except JobManagerError as error:
            errors.append(str(error))
        else:
            return kind
    raise no_cluster("no scheduler answers on this host" + "".join(f"; {text}" for text in errors))


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also in a thread that has an event loop."""
    with ThreadPoolExecutor(1, "edbjobs-cluster") as pool:
        return pool.submit(asyncio.run, work).result()
