"""Which clusters a service has: chosen by the settings, else those whose commands are installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from edbjobs_server.executors.cluster.base import Scheduler
from edbjobs_server.executors.cluster.command import is_there
from edbjobs_server.executors.cluster.executor import ClusterExecutor
from edbjobs_server.executors.cluster.folders import Folders
from edbjobs_server.executors.cluster.script import Scripts, SiteLines
from edbjobs_server.executors.cluster.timing import Timing
from edbjobs_server.settings import Settings, SettingsError
from edbjobs_server.settings_types import credentials
from edbjobs_server.site import Site

_Maker = Callable[[], Scheduler]
# What must be on PATH for a scheduler to be looked for; whether it answers is found out by asking it.
_COMMANDS = {"slurm": ("sbatch", "squeue"), "lsf": ("bsub", "bjobs"), "pbs": ("qsub", "qstat", "pbsnodes")}


def make_clusters(
    settings: Settings, site: Site, environ: Mapping[str, str], store_id: str
) -> dict[str, ClusterExecutor]:
    """Make the executors of the clusters that jobs can be handed to, the preferred one first.

    Parameters
    ----------
    settings : Settings
        `scheduler` names one, ``auto`` takes what is installed, ``none`` takes none.
    site : Site
        The site's policy.
    environ : mapping of str to str
        What commands are run with; without the service's secrets.
    store_id : str
        Keeps the run folders of services apart that share a folder.

    Raises
    ------
    SettingsError
        The scheduler that was named cannot be used.
    """
    shared = site.shared_dir_of(settings)
    folders = Folders((shared or settings.state_dir / "cluster") / store_id)
    scripts = Scripts(settings.templates_dir, SiteLines(site.setup, site.scratch))
    timing = {"interval": site.poll_seconds(settings.cluster_poll_seconds), "floor": max(1.0, site.min_poll_seconds)}
    return {
        name: ClusterExecutor(make(), scripts, folders, Timing(**timing))
        for name, make in _makers(settings, site, environ).items()
    }


def _makers(settings: Settings, site: Site, environ: Mapping[str, str]) -> dict[str, _Maker]:
    known: dict[str, _Maker] = {
        "slurm": partial(_slurm, environ),
        "lsf": partial(_lsf, environ),
        "pbs": partial(_pbs, environ),
    }
    if settings.hpc_url:
        known["windows_hpc"] = partial(_windows_hpc, settings, site)
    if settings.scheduler == "none":
        return {}
    if settings.scheduler == "auto":
        return {name: make for name, make in known.items() if not _missing(name, environ)}
    missing = _missing(settings.scheduler, environ)
    if missing:
        raise SettingsError(f"scheduler: {settings.scheduler} wants {missing} on PATH; is this a host of the cluster?")
    return {settings.scheduler: known[settings.scheduler]}


def _missing(name: str, environ: Mapping[str, str]) -> str:
    return ", ".join(program for program in _COMMANDS.get(name, ()) if not is_there(program, environ))


# Each is imported where it is used only: few services have more than one.


def _slurm(environ: Mapping[str, str]) -> Scheduler:
    from edbjobs_server.executors.slurm import Slurm

    return Slurm(environ)


def _lsf(environ: Mapping[str, str]) -> Scheduler:
    from edbjobs_server.executors.lsf import Lsf

    return Lsf(environ)


def _pbs(environ: Mapping[str, str]) -> Scheduler:
    from edbjobs_server.executors.pbs import Pbs

    return Pbs(environ)


def _windows_hpc(settings: Settings, site: Site) -> Scheduler:
    from edbjobs_server.executors.windows_hpc import WindowsHpc

    file = settings.hpc_credentials
    assert file is not None, "the settings want it together with hpc_url"
    # Read anew for each use, so that the password can be changed.
    return WindowsHpc(settings.hpc_url, partial(credentials, file), settings.hpc_ca, site.path_map)
