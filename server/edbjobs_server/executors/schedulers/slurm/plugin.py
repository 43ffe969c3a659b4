"""The entry point of SLURM."""

from __future__ import annotations

from edbjobs_server.executors.schedulers.base import Scheduler
from edbjobs_server.executors.schedulers.plugin import PluginContext, SchedulerPlugin


def _make(context: PluginContext) -> Scheduler:
    from edbjobs_server.executors.schedulers.slurm import Slurm  # imported where it is used only

    return Slurm(context.environ)


PLUGIN = SchedulerPlugin("slurm", _make, commands=("sbatch", "squeue"), preference=1)
