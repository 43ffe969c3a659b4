"""SLURM."""

from edbjobs_server.executors.slurm.scheduler import Slurm

__all__ = ["Slurm"]
