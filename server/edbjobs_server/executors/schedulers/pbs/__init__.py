"""OpenPBS and PBS Professional."""

from edbjobs_server.executors.schedulers.pbs.scheduler import Pbs

__all__ = ["Pbs"]
