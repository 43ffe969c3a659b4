"""The documented command that submits one job to the cluster of a job manager."""

from __future__ import annotations

import argparse
import re

from edbjobs_pyedb import http
from edbjobs_pyedb.configuration import SchedulerOptions, SchedulerType, create_hfss_config
from edbjobs_pyedb.errors import no_cluster
from edbjobs_pyedb.http import DEFAULT_HOST, DEFAULT_PORT

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

DEFAULT_PARTITION = "default"
DEFAULT_NODES = 1
DEFAULT_CORES_PER_NODE = 1
DEFAULT_RUN_LIMIT = "unlimited"
_CLOCK = re.compile(r"(\d{1,4}-)?\d{1,4}:\d{2}(:\d{2})?")


def parse_cli() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Submit a solve to the cluster of a job manager.")
    http.add_address(parser)
    parser.add_argument("--project-path", required=True, help="project: an .aedb folder, or an .aedt or .aedtz file")
    parser.add_argument("--partition", default=DEFAULT_PARTITION, help="partition or queue; default: the cluster's")
    parser.add_argument("--nodes", type=http.count, default=DEFAULT_NODES, help="nodes; default: 1")
    parser.add_argument(
        "--cores-per-node", type=http.count, default=DEFAULT_CORES_PER_NODE, help="cores on each; default: 1"
    )
    parser.add_argument(
        "--run-limit",
        type=_run_limit,
        default=DEFAULT_RUN_LIMIT,
        help="hours, HH:MM:SS or D-HH:MM:SS, or unlimited; default: unlimited, as far as the cluster allows",
    )
    return parser.parse_args()


def _run_limit(text: str) -> str:
    try:
        scheduler_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def scheduler_time(run_limit: str) -> str:
    """Return a run limit as the scheduler's option; empty: no limit is requested.

    Raises
    ------
    ValueError
        It is neither hours nor a time nor ``unlimited``.
    """
    if run_limit.lower() == DEFAULT_RUN_LIMIT:
        return ""
    if re.fullmatch(r"[1-9]\d{0,4}", run_limit):
        days, hours = divmod(int(run_limit), 24)
        return f"{days}-{hours:02}:00:00"
    if _CLOCK.fullmatch(run_limit):
        return run_limit
    raise ValueError(f"expected a run limit as hours, HH:MM:SS, D-HH:MM:SS or unlimited, got {run_limit!r}")


async def submit_slurm_job(
    *,
    host: str,
    port: int,
    project_path: str,
    partition: str,
    nodes: int,
    cores_per_node: int,
    run_limit: str,
) -> None:
    """Submit a solve to the cluster that the job manager has, and print its id.

    Raises
    ------
    JobManagerError
        NO_SCHEDULER where it has none (the job is not run on its own host instead), or it cannot be reached.
    ValueError
        The project's path or the limit is not valid.
    """
    time = scheduler_time(run_limit)
    async with http.get_session(http.base_url(host, port)) as session:
        found = await http.ask(session, "GET", "/api/scheduler_type")
        scheduler = SchedulerType(str(found.get("scheduler_type") or "none"))
        if scheduler in (SchedulerType.NONE, SchedulerType.LOCAL):
            raise no_cluster(
                f"the job manager at {host}:{port} has no cluster: no scheduler answers there; its setting "
                "`scheduler` selects what it looks for, and submit_local_job runs the job on its own host"
            )
        options = SchedulerOptions(queue=partition, nodes=nodes, cores_per_node=cores_per_node, time=time)
        config = create_hfss_config(project_path, scheduler_type=scheduler, scheduler_options=options)
        http.print_answer(await http.submit(session, config))


def main() -> None:
    """Run the command; exit with 1 if the job was not submitted, with 2 on wrong arguments."""
    http.run(submit_slurm_job(**vars(parse_cli())))
