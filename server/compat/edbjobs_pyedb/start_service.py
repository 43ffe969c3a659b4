"""The documented commands that run a job manager until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
import threading

from edbjobs_pyedb import http
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_pyedb.handler import JobManagerHandler
from edbjobs_pyedb.limits import ResourceLimits

__all__ = ["main", "parse_cli", "run_handler"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the job manager with its HTTP endpoint, until a signal ends it.")
    http.add_address(parser)
    parser.add_argument(
        "--resume", action="store_true", help="start the jobs that an earlier session left; otherwise they stay held"
    )
    return parser


def parse_cli() -> argparse.Namespace:
    """Read the command line of ``start_service``."""
    parser = _parser()
    parser.add_argument(
        "--max-concurrent",
        "--max-concurrent-jobs",
        dest="max_concurrent",
        type=http.count,
        default=4,
        help="jobs that run at the same time; default: 4",
    )
    parser.add_argument(
        "--min-disk", type=_gib, default=10.0, help="nothing starts while less disk is free, GiB; default: 10"
    )
    parser.add_argument(
        "--min-memory", type=_gib, default=2.0, help="nothing starts while less memory is free, GiB; default: 2"
    )
    return parser.parse_args()


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def main() -> None:
    """Run the command ``start_service``; exit with 2 if it could not start."""
    args = parse_cli()
    limits = ResourceLimits(
        max_concurrent_jobs=args.max_concurrent, min_disk_gb=args.min_disk, min_memory_gb=args.min_memory
    )
    _serve(JobManagerHandler(host=args.host, port=args.port, **limits.given()), args.resume)


def run_handler() -> None:
    """Run the command ``job_manager_handler``; exit with 2 if it could not start."""
    args = _parser().parse_args()
    _serve(JobManagerHandler(host=args.host, port=args.port), args.resume)


async def run() -> None:
    """Run a job manager at the documented address until it is cancelled."""
    handler = JobManagerHandler()
    await asyncio.to_thread(handler.start_service)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await handler.stop_service()


def _serve(handler: JobManagerHandler, resume: bool) -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        handler.start_service()
    except JobManagerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        if resume:
            print(f"edbjobs: {handler.resume()} jobs of an earlier session are released", flush=True)
        elif handler.manager.held:
            print("edbjobs: start with --resume to release them", flush=True)
        print(f"edbjobs: the job manager answers at {handler.url}; Ctrl-C ends it", flush=True)
        while not ended.wait(_POLL_SECONDS):  # an unlimited wait would block signal handlers on Windows
            pass
    finally:
        handler.close()


_POLL_SECONDS = 1.0
