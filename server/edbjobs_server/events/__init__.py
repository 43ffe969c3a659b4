"""The log of revisions and its watchers."""

from edbjobs_server.events.log import EventLog

__all__ = ["EventLog"]
