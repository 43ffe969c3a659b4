"""Schedulers as plug-ins: found by the entry point group ``edbjobs.schedulers``, made when a service starts.

An entry point names a `SchedulerPlugin`. docs/adding-a-scheduler.md is for those who write one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from edbjobs_server.executors.schedulers.base import Scheduler
from edbjobs_server.executors.schedulers.command import is_there

GROUP = "edbjobs.schedulers"
_LOG = logging.getLogger(__name__)


class PluginError(Exception):
    """A scheduler cannot be made from the settings; the text says which setting and what to do."""


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a scheduler is made from.

    Attributes
    ----------
    environ : mapping of str to str
        Environment of the scheduler's commands, without the service's secrets.
    path_map : mapping of str to str
        Folder of this host to the same folder on the nodes, from the site's policy.
    head_node : str
        Address of a scheduler's own web service (setting ``hpc_url``); empty: none.
    credentials : callable
        Reads user and password from the file of the setting ``hpc_credentials`` at each call; None: not set.
    ca_file : Path or None
        Certificate authority of the web service (setting ``hpc_ca``).
    """

    environ: Mapping[str, str]
    path_map: Mapping[str, str] = field(default_factory=dict)
    head_node: str = ""
    credentials: Callable[[], tuple[str, str]] | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class SchedulerPlugin:
    """One kind of scheduler.

    Attributes
    ----------
    name : str
        The name jobs and settings use, for example ``slurm``.
    make : callable
        Makes the scheduler; raises `PluginError`.
    commands : tuple of str
        Programs that must be on PATH; whether the scheduler responds is found out by asking it.
    needs_head_node : bool
        It is reached by its web service, and used only where ``hpc_url`` is set.
    preference : int
        Where several are installed, the lowest comes first.
    """

    name: str
    make: Callable[[PluginContext], Scheduler]
    commands: tuple[str, ...] = ()
    needs_head_node: bool = False
    preference: int = 100

    def missing(self, context: PluginContext) -> str:
        """Return what this host lacks for the scheduler; empty: nothing."""
        if self.needs_head_node and not context.head_node:
            return "hpc_url, the address of the head node"
        programs = ", ".join(program for program in self.commands if not is_there(program, context.environ))
        return f"{programs} on PATH" if programs else ""


def plugins() -> tuple[dict[str, SchedulerPlugin], dict[str, str]]:
    """Return the installed plug-ins by name, the preferred one first, and why others cannot be loaded, by name."""
    found: dict[str, SchedulerPlugin] = {}
    failed: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        try:
            plugin = point.load()
        except Exception as error:  # foreign code: it must not keep the service from starting
            failed[point.name] = f"{point.value} cannot be loaded: {error!r}"
            continue
        if isinstance(plugin, SchedulerPlugin) and plugin.name == point.name:
            found[plugin.name] = plugin
        else:
            failed[point.name] = f"{point.value}: expected a SchedulerPlugin of that name"
    for name, why in failed.items():
        _LOG.warning("scheduler plug-in %s is left out: %s", name, why)
    return dict(sorted(found.items(), key=lambda item: (item[1].preference, item[0]))), failed
