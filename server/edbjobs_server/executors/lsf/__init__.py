"""IBM Spectrum LSF, and its free relative OpenLava."""

from edbjobs_server.executors.lsf.scheduler import Lsf

__all__ = ["Lsf"]
