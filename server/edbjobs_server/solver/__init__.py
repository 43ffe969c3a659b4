"""AEDT: installed releases, projects, command lines, logs, and what a run's end means."""
