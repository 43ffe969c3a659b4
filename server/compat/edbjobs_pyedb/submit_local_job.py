"""The documented command that submits one job to a job manager."""

from __future__ import annotations

import argparse

from edbjobs_pyedb import http
from edbjobs_pyedb.configuration import MachineNode, create_hfss_config

__all__ = ["main", "parse_cli", "submit_job"]


def parse_cli() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Submit a solve to a job manager.")
    http.add_address(parser)
    parser.add_argument("--project-path", required=True, help="project: an .aedb folder, or an .aedt or .aedtz file")
    parser.add_argument("--num-cores", type=http.count, default=8, help="cores in all; default: 8")
    return parser.parse_args()


async def submit_job(*, host: str, port: int, project_path: str, num_cores: int) -> None:
    """Submit a solve and print its id.

    Raises
    ------
    JobManagerError
        The job manager cannot be reached or refuses the job.
    ValueError
        The project's path is not valid.
    """
    config = create_hfss_config(project_path, machine_nodes=[MachineNode(cores=num_cores)])
    async with http.get_session(http.base_url(host, port)) as session:
        http.print_answer(await http.submit(session, config))


def main() -> None:
    """Run the command; exit with 1 if the job was not submitted, with 2 on wrong arguments."""
    http.run(submit_job(**vars(parse_cli())))
