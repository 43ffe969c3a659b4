"""The entry point of Windows HPC Pack."""

from __future__ import annotations

from edbjobs_server.executors.schedulers.base import Scheduler
from edbjobs_server.executors.schedulers.plugin import PluginContext, PluginError, SchedulerPlugin


def _make(context: PluginContext) -> Scheduler:
    from edbjobs_server.executors.schedulers.windows_hpc import WindowsHpc  # imported where it is used only

    if not context.head_node or context.credentials is None:
        raise PluginError("windows_hpc needs hpc_url, the address of the head node, and hpc_credentials")
    try:
        return WindowsHpc(context.head_node, context.credentials, context.ca_file, context.path_map)
    except ValueError as error:
        raise PluginError(str(error)) from error


PLUGIN = SchedulerPlugin("windows_hpc", _make, needs_head_node=True, preference=4)
