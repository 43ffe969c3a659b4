"""The command that submits a folder's projects: see `edbjobs_pyedb.submit_batch_jobs`."""

from __future__ import annotations

from edbjobs_pyedb.submit_batch_jobs import main, parse_cli, scan_projects, submit_batch_jobs, submit_single_job

__all__ = [
    "main",
    "parse_cli",
    "scan_projects",
    "submit_batch_jobs",
    "submit_single_job",
]

if __name__ == "__main__":
    main()
