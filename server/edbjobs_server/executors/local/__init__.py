"""Runs on this host: a launcher forks one supervisor per run; both outlive the service."""
