"""The clusters of a service: the one that the settings name, else those that are installed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
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
from edbjobs_server.executors.schedulers.plugin import PluginContext, PluginError, SchedulerPlugin, plugins
from edbjobs_server.solver.releases import Release, on_windows_nodes

_LOG = logging.getLogger(__name__)


class BrokenPluginError(SettingsError):
    """A scheduler's plug-in raised what it should not."""


def make_clusters(
    settings: Settings, site: SitePolicy, environ: Mapping[str, str], store_id: str
) -> dict[str, ClusterExecutor]:
    """Make the executors of the clusters that jobs can be submitted to, the preferred one first.

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
        The scheduler of the settings cannot be used, or its nodes do not see the folder for runs.
    """
    shared = site.shared_dir_of(settings)
    folders = RunFolders((shared or settings.state_dir / "cluster") / store_id)
    scripts = Scripts(settings.templates_dir, SiteLines(site.setup, site.scratch))
    timing = {"interval": site.poll_seconds(settings.cluster_poll_seconds), "floor": max(1.0, site.min_poll_seconds)}
    schedulers = _make_schedulers(settings, site, environ)
    if shared is not None:
        _refuse_unseen(schedulers, shared)
    return {
        name: ClusterExecutor(scheduler, scripts, folders, PollTiming(**timing))
        for name, scheduler in schedulers.items()
    }


def _make_schedulers(settings: Settings, site: SitePolicy, environ: Mapping[str, str]) -> dict[str, Scheduler]:
    schedulers: dict[str, Scheduler] = {}
    for name in installed(settings, environ):
        try:
            schedulers[name] = make_scheduler(name, settings, site, environ)
        except BrokenPluginError as error:
            if settings.scheduler == name:
                raise
            _LOG.warning("%s; it is left out", error)
    return schedulers


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
        scheduler.node_path(path)
    except Refused:
        return False
    return True


def _refuse_unseen(schedulers: Mapping[str, Scheduler], shared: Path) -> None:
    for name, scheduler in schedulers.items():
        try:
            scheduler.node_path(str(shared))
        except Refused as refused:
            text = f"shared_dir: {refused.message}, with path_map in the site's policy"
            raise SettingsError(f"{text}; or leave {name} out: hpc_url names it") from refused


def installed(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return the schedulers that jobs can be submitted to from this host, the preferred one first.

    Raises
    ------
    SettingsError
        The scheduler that the settings name is not installed.
    """
    if settings.scheduler == "none":
        return []
    context = _context(settings, SitePolicy(), environ)
    if settings.scheduler == "auto":
        return [name for name, plugin in plugins()[0].items() if not plugin.missing(context)]
    missing = _plugin(settings.scheduler).missing(context)
    if missing:
        raise SettingsError(f"scheduler: {settings.scheduler} needs {missing}; start on a host of the cluster")
    return [settings.scheduler]


def make_scheduler(name: str, settings: Settings, site: SitePolicy, environ: Mapping[str, str]) -> Scheduler:
    """Make the scheduler of a name; whether it responds shows when it is asked.

    Raises
    ------
    SettingsError
        No plug-in has the name, it lacks a setting, or it failed (`BrokenPluginError`).
    """
    plugin = _plugin(name)
    try:
        return plugin.make(_context(settings, site, environ))
    except PluginError as error:
        raise SettingsError(str(error)) from error
    except Exception as error:  # foreign code: its error must name it
        raise BrokenPluginError(f"scheduler: the plug-in {name} failed: {error!r}") from error


def _plugin(name: str) -> SchedulerPlugin:
    found, failed = plugins()
    if name in failed:
        raise SettingsError(f"scheduler: the plug-in {name} cannot be used: {failed[name]}")
    if name not in found:
        raise SettingsError(f"scheduler: there is no plug-in {name}; installed are {', '.join(found) or 'none'}")
    return found[name]


def _context(settings: Settings, site: SitePolicy, environ: Mapping[str, str]) -> PluginContext:
    file = settings.hpc_credentials
    return PluginContext(
        environ,
        # Projects go by their real paths, run folders by the path that was set up.
        path_map={name: share for path, share in site.path_map.items() for name in (os.path.realpath(path), path)},
        head_node=settings.hpc_url or "",
        # Read again for each use, so that user and password can be changed.
        credentials=None if file is None else partial(credentials, file),
        ca_file=settings.hpc_ca,
    )
