"""Which clusters a service has: chosen by the settings, else those whose commands are installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edbjobs_server.config.settings import Settings, SettingsError
from edbjobs_server.config.settings_types import credentials
from edbjobs_server.config.site_policy import SitePolicy
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.poll_timing import PollTiming
from edbjobs_server.executors.cluster.run_folders import RunFolders
from edbjobs_server.executors.cluster.script import Scripts, SiteLines
from edbjobs_server.executors.schedulers.base import Scheduler
from edbjobs_server.executors.schedulers.command import is_there
from edbjobs_server.solver.releases import Release, on_windows_nodes

_Maker = Callable[[], Scheduler]
# What must be on PATH for a scheduler to be looked for; whether it answers is found out by asking it.
_COMMANDS = {"slurm": ("sbatch", "squeue"), "lsf": ("bsub", "bjobs"), "pbs": ("qsub", "qstat", "pbsnodes")}


def make_clusters(
    settings: Settings, site: SitePolicy, environ: Mapping[str, str], store_id: str
) -> dict[str, ClusterExecutor]:
    """Make the executors of the clusters that jobs can be handed to, the preferred one first.

    Parameters
    ----------
    settings : Settings
        `scheduler` names one, ``auto`` takes what is installed, ``none`` takes none.
    site : SitePolicy
        The site's policy.
    environ : mapping of str to str
        What commands are run with; without the service's secrets.
    store_id : str
        Keeps the run folders of services apart that share a folder.

    Raises
    ------
    SettingsError
        The scheduler that was named cannot be used, or its nodes do not see the folder for runs.
    """
    shared = site.shared_dir_of(settings)
    folders = RunFolders((shared or settings.state_dir / "cluster") / store_id)
    scripts = Scripts(settings.templates_dir, SiteLines(site.setup, site.scratch))
    timing = {"interval": site.poll_seconds(settings.cluster_poll_seconds), "floor": max(1.0, site.min_poll_seconds)}
    schedulers = {name: make_scheduler(name, settings, site, environ) for name in installed(settings, environ)}
    if shared is not None:
        _refuse_unseen(schedulers, shared)
    return {
        name: ClusterExecutor(scheduler, scripts, folders, PollTiming(**timing))
        for name, scheduler in schedulers.items()
    }


def node_releases(
    settings: Settings, releases: Sequence[Release], schedulers: Mapping[str, Scheduler]
) -> dict[str, tuple[Release, ...]]:
    """Return the solvers of clusters that cannot run those of this host, by scheduler.

    Parameters
    ----------
    settings : Settings
        `hpc_solvers` names those on Windows nodes.
    releases : sequence of Release
        Solvers of this host; without `hpc_solvers` the nodes run those of them that they see.
    schedulers : mapping of str to Scheduler
        Those the service has.
    """
    windows = schedulers.get("windows_hpc")
    if windows is None:
        return {}
    found = on_windows_nodes(settings.hpc_solvers)
    return {windows.name: found or tuple(item for item in releases if _sees(windows, str(item.path)))}


def _sees(scheduler: Scheduler, path: str) -> bool:
    try:
        scheduler.seen(path)
    except Refused:
        return False
    return True


def _refuse_unseen(schedulers: Mapping[str, Scheduler], shared: Path) -> None:
    for name, scheduler in schedulers.items():
        try:
            scheduler.seen(str(shared))
        except Refused as refused:
            text = f"shared_dir: {refused.message}, with path_map in the site's policy"
            raise SettingsError(f"{text}; or leave {name} out: hpc_url names it") from refused


def installed(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the schedulers that this host can submit to, the preferred one first.

    Raises
    ------
    SettingsError
        The one that the settings name is not there.
    """
    known = [*_COMMANDS, *(["windows_hpc"] if settings.hpc_url else [])]
    if settings.scheduler == "none":
        return []
    if settings.scheduler == "auto":
        return [name for name in known if not _missing(name, environ)]
    missing = _missing(settings.scheduler, environ)
    if missing:
        raise SettingsError(f"scheduler: {settings.scheduler} needs {missing} on PATH; start on a host of the cluster")
    return [settings.scheduler]


def make_scheduler(name: str, settings: Settings, site: SitePolicy, environ: Mapping[str, str]) -> Scheduler:
    """Build the adapter of a scheduler, without connecting to it.

    Raises
    ------
    SettingsError
        ``windows_hpc`` without its address.
    """
    makers: dict[str, _Maker] = {
        "slurm": partial(_slurm, environ),
        "lsf": partial(_lsf, environ),
        "pbs": partial(_pbs, environ),
        "windows_hpc": partial(_windows_hpc, settings, site),
    }
    return makers[name]()


def _missing(name: str, environ: Mapping[str, str]) -> str:
    return ", ".join(program for program in _COMMANDS.get(name, ()) if not is_there(program, environ))


# Each is imported where it is used only: few services have more than one.


def _slurm(environ: Mapping[str, str]) -> Scheduler:
    from edbjobs_server.executors.schedulers.slurm import Slurm

    return Slurm(environ)


def _lsf(environ: Mapping[str, str]) -> Scheduler:
    from edbjobs_server.executors.schedulers.lsf import Lsf

    return Lsf(environ)


def _pbs(environ: Mapping[str, str]) -> Scheduler:
    from edbjobs_server.executors.schedulers.pbs import Pbs

    return Pbs(environ)


def _windows_hpc(settings: Settings, site: SitePolicy) -> Scheduler:
    from edbjobs_server.executors.schedulers.windows_hpc import WindowsHpc

    file = settings.hpc_credentials
    if not settings.hpc_url or file is None:
        raise SettingsError("windows_hpc needs hpc_url, the address of the head node, and hpc_credentials")
    # Projects go by their real paths, run folders by the path that was set up.
    paths = {name: share for path, share in site.path_map.items() for name in (os.path.realpath(path), path)}
    try:
        # User and password are read anew for each use, so that they can be changed.
        return WindowsHpc(settings.hpc_url, partial(credentials, file), settings.hpc_ca, paths)
    except ValueError as error:
        raise SettingsError(str(error)) from error
