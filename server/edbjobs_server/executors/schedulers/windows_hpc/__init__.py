"""Microsoft HPC Pack."""

from edbjobs_server.executors.schedulers.windows_hpc.scheduler import WindowsHpc

__all__ = ["WindowsHpc"]
