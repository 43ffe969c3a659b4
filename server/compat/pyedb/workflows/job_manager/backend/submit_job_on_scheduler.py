"""The command that submits one job to a cluster: see `edbjobs_pyedb.submit_job_on_scheduler`."""

from __future__ import annotations

from edbjobs_pyedb.submit_job_on_scheduler import (
    DEFAULT_CORES_PER_NODE,
    DEFAULT_HOST,
    DEFAULT_NODES,
    DEFAULT_PARTITION,
    DEFAULT_PORT,
    DEFAULT_RUN_LIMIT,
    main,
    parse_cli,
    submit_slurm_job,
)

__all__ = [
    "DEFAULT_CORES_PER_NODE",
    "DEFAULT_HOST",
    "DEFAULT_NODES",
    "DEFAULT_PARTITION",
    "DEFAULT_PORT",
    "DEFAULT_RUN_LIMIT",
    "main",
    "parse_cli",
    "submit_slurm_job",
]

if __name__ == "__main__":
    main()
