"""IBM Spectrum LSF, and its free relative OpenLava."""

from edbjobs_server.executors.schedulers.lsf.scheduler import Lsf

__all__ = ["Lsf"]
