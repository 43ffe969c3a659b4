"""JobManager and what only it uses."""
