"""Typed client of the edbjobs service."""
