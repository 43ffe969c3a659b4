"""The entry point of LSF."""

from __future__ import annotations

from edbjobs_server.executors.schedulers.base import Scheduler
from edbjobs_server.executors.schedulers.plugin import PluginContext, SchedulerPlugin


def _make(context: PluginContext) -> Scheduler:
    from edbjobs_server.executors.schedulers.lsf import Lsf  # imported where it is used only

    return Lsf(context.environ)


PLUGIN = SchedulerPlugin("lsf", _make, commands=("bsub", "bjobs"), preference=2)
