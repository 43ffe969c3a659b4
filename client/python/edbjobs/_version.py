"""Release of edbjobs."""

__version__ = "0.1.0"
