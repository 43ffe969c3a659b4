"""The command that submits one job: see `edbjobs_pyedb.submit_local_job`."""

from __future__ import annotations

from edbjobs_pyedb.submit_local_job import main, parse_cli, submit_job

__all__ = [
    "main",
    "parse_cli",
    "submit_job",
]

if __name__ == "__main__":
    main()
