"""Runs on a cluster: what its schedulers have in common."""
