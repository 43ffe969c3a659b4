"""Runs on this host under Linux: a launcher starts one supervisor per run."""
