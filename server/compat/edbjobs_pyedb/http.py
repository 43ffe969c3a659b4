"""HTTP client of the documented API, and what the documented commands share."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any

import aiohttp

from edbjobs_pyedb.configuration import HFSSSimulationConfig
from edbjobs_pyedb.errors import JobManagerError

HOST_VARIABLE = "PYEDB_JOB_MANAGER_HOST"
PORT_VARIABLE = "PYEDB_JOB_MANAGER_PORT"
DEFAULT_HOST = "localhost"
DEFAULT_PORT = 8080
TIMEOUT_SECONDS = 30.0
_LONGEST_TEXT = 300


def get_session(url: str) -> aiohttp.ClientSession:
    """Return a session for requests to a job manager, with ``EDBJOBS_TOKEN`` as its token.

    Parameters
    ----------
    url : str
        Base URL of the job manager.
    """
    token = os.environ.get("EDBJOBS_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return aiohttp.ClientSession(url, headers=headers, timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS))


async def ask(session: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
    """Send a request and return the answer.

    Raises
    ------
    JobManagerError
        UNREACHABLE, or the reason in the job manager's answer.
    """
    try:
        async with session.request(method, url, json=body) as response:
            text = await response.text()
            answer = await response.json(content_type=None) if text.startswith(("{", "[")) else {"error": text}
            status = response.status
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
        what = str(error) or f"no answer within {TIMEOUT_SECONDS:g} s"
        raise JobManagerError(f"the job manager cannot be reached: {what}", "UNREACHABLE") from error
    if status >= 400:
        found = answer if isinstance(answer, dict) else {}
        message = str(found.get("error", ""))[:_LONGEST_TEXT] or f"status {status}"
        raise JobManagerError(message, str(found.get("reason", "")), found.get("fields"))
    return answer


async def submit(
    session: aiohttp.ClientSession, config: HFSSSimulationConfig, priority: int = 0, base: str = ""
) -> dict[str, Any]:
    """Queue a job; return the answer, with ``job_id`` and ``warnings``.

    Raises
    ------
    JobManagerError
        The job manager cannot be reached or refuses the job.
    """
    answer = await ask(session, "POST", f"{base}/jobs/submit", {"config": config.to_dict(), "priority": priority})
    if not isinstance(answer, dict) or not answer.get("job_id"):
        raise JobManagerError("the answer is not that of a job manager; check the address", "UNREACHABLE")
    return answer


async def submit_job_to_manager(
    config: HFSSSimulationConfig, priority: int = 0, manager_url: str = "http://localhost:8080"
) -> str:
    """Queue a job at a job manager of another process.

    Parameters
    ----------
    config : HFSSSimulationConfig
        What to solve.
    priority : int
        Higher first.
    manager_url : str
        Base URL of the job manager.

    Returns
    -------
    str
        Id of the job.

    Raises
    ------
    JobManagerError
        The job manager cannot be reached or refuses the job; it is not run in this process instead.
    """
    async with get_session(manager_url) as session:
        return str((await submit(session, config, priority))["job_id"])


# The commands ------------------------------------------------------------------------------------------------


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the options for the address of the job manager."""
    host, port = os.environ.get(HOST_VARIABLE, DEFAULT_HOST), os.environ.get(PORT_VARIABLE, str(DEFAULT_PORT))
    parser.add_argument(
        "--host", default=host, help=f"host of the job manager; default: {HOST_VARIABLE}, else localhost"
    )
    parser.add_argument(
        "--port", type=port_number, default=port, help=f"its port; default: {PORT_VARIABLE}, else {DEFAULT_PORT}"
    )


def port_number(text: str) -> int:
    """Parse a port."""
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def count(text: str) -> int:
    """Parse a number of at least 1."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def base_url(host: str, port: int) -> str:
    """Return the base URL of an address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def print_answer(answer: dict[str, Any]) -> None:
    """Print the answer to a submission."""
    for text in answer.get("warnings", ()):
        print(f"warning: {text}", file=sys.stderr)
    print(f"submitted {answer['job_id']}", flush=True)


def run(work: Coroutine[Any, Any, Any]) -> None:
    """Run a command; exit with 1 if it fails."""
    try:
        asyncio.run(work)
    except (JobManagerError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
