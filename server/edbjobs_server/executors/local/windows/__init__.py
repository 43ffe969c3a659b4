"""Runs on this host under Windows."""
