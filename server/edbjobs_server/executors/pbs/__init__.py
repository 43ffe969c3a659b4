"""OpenPBS and PBS Professional."""

from edbjobs_server.executors.pbs.scheduler import Pbs

__all__ = ["Pbs"]
