"""The entry point of PBS."""

from __future__ import annotations

from edbjobs_server.executors.schedulers.base import Scheduler
from edbjobs_server.executors.schedulers.plugin import PluginContext, SchedulerPlugin


def _make(context: PluginContext) -> Scheduler:
    from edbjobs_server.executors.schedulers.pbs import Pbs  # imported where it is used only

    return Pbs(context.environ)


PLUGIN = SchedulerPlugin("pbs", _make, commands=("qsub", "qstat", "pbsnodes"), preference=3)
