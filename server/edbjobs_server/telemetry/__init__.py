"""Samples of the host."""
