"""The documented command that submits every project of a folder."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
from edbjobs.cli._projects import AmbiguousProjects, find_projects

from edbjobs_pyedb import http
from edbjobs_pyedb.configuration import MachineNode, create_hfss_config
from edbjobs_pyedb.errors import JobManagerError

__all__ = ["main", "parse_cli", "scan_projects", "submit_batch_jobs", "submit_single_job"]


def parse_cli() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Submit every project of a folder to a job manager.")
    http.add_address(parser)
    parser.add_argument("--root-dir", required=True, type=_folder, help="folder to look for projects in")
    parser.add_argument("--num-cores", type=http.count, default=8, help="cores of each job; default: 8")
    parser.add_argument("--recursive", action="store_true", help="also in the folders below")
    parser.add_argument("--max-concurrent", type=http.count, default=5, help="requests at once; default: 5")
    parser.add_argument("--delay-ms", type=_delay, default=100, help="wait between two requests, ms; default: 100")
    parser.add_argument("--verbose", "-v", action="store_true", help="name each project before it is submitted")
    return parser.parse_args()


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return path.absolute()


def _delay(text: str) -> int:
    return 0 if text == "0" else http.count(text)


def scan_projects(root_dir: Path, recursive: bool = False) -> list[Path]:
    """Return the projects of a folder, one of each pair of .aedb folder and .aedt file.

    Of a pair the .aedt is taken; where the .aedb was changed after it, the .aedb, with a warning.

    Parameters
    ----------
    root_dir : Path
        Folder.
    recursive : bool
        Also in the folders below.
    """
    try:
        return find_projects(root_dir, recursive=recursive)
    except AmbiguousProjects as found:
        newer = {file: folder for folder, file in found.pairs}
    for file, folder in newer.items():
        print(f"warning: {file} is older than {folder.name}, which is taken", file=sys.stderr)
    return [newer.get(path, path) for path in find_projects(root_dir, recursive=recursive, prefer="aedt")]


async def submit_single_job(
    session: aiohttp.ClientSession, backend_url: str, project_path: Path, num_cores: int, priority: int = 0
) -> tuple[Path, bool, Any]:
    """Submit one project; return it, whether it was accepted, and the answer or the error's text."""
    try:
        config = create_hfss_config(project_path, machine_nodes=[MachineNode(cores=num_cores)])
        return project_path, True, await http.submit(session, config, priority, backend_url)
    except (JobManagerError, ValueError) as error:
        return project_path, False, str(error)


async def submit_batch_jobs(
    *,
    host: str,
    port: int,
    projects: list[Path],
    num_cores: int,
    max_concurrent: int = 5,
    delay_ms: int = 100,
) -> None:
    """Submit projects, and print the result for each.

    Raises
    ------
    JobManagerError
        Some were not accepted; the others were.
    """
    url = http.base_url(host, port)
    slots = asyncio.Semaphore(max_concurrent)

    async def one(session: aiohttp.ClientSession, index: int, project: Path) -> bool:
        await asyncio.sleep(index * delay_ms / 1000)
        async with slots:
            path, accepted, answer = await submit_single_job(session, url, project, num_cores)
        if accepted:
            http.print_answer(answer)
        else:
            print(f"error: {path}: {answer}", file=sys.stderr)
        return accepted

    async with http.get_session(url) as session:
        accepted = await asyncio.gather(*(one(session, index, project) for index, project in enumerate(projects)))
    if not all(accepted):
        raise JobManagerError(
            f"{accepted.count(False)} of {len(projects)} projects were not submitted", "NOT_SUBMITTED"
        )


def main() -> None:
    """Run the command; exit with 1 if a job was not submitted, with 2 on wrong arguments."""
    args = parse_cli()
    projects = scan_projects(args.root_dir, args.recursive)
    if not projects:
        print(f"error: there is no project in {args.root_dir}", file=sys.stderr)
        sys.exit(1)
    if args.verbose:
        print("\n".join(str(project) for project in projects))
    http.run(
        submit_batch_jobs(
            host=args.host,
            port=args.port,
            projects=projects,
            num_cores=args.num_cores,
            max_concurrent=args.max_concurrent,
            delay_ms=args.delay_ms,
        )
    )
