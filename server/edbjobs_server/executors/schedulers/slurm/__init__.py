"""SLURM."""

from edbjobs_server.executors.schedulers.slurm.scheduler import Slurm

__all__ = ["Slurm"]
