"""Start a service in the background, and stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from edbjobs._endpoint import Endpoint, process_start, read_endpoint, remove_endpoint, runtime_dir
from edbjobs._exceptions import EdbJobsError
from edbjobs.cli._errors import FAILED, fail

__all__ = ["answers", "down", "start", "up"]

STEP = 0.02


def address(endpoint: Endpoint) -> str:
    """Return the address that a client on this host uses."""
    return f"unix:{endpoint.uds}" if endpoint.uds and os.path.exists(endpoint.uds) else endpoint.grpc


def answers(endpoint: Endpoint) -> bool:
    """Return True if the service of an endpoint answers and has the pid of the endpoint."""
    from edbjobs._client import Client

    try:
        with Client(address(endpoint), token=_token(endpoint), timeout=5.0) as client:
            details = client.status().details
            return details is not None and details.pid == endpoint.pid
    except EdbJobsError:
        return False


def _token(endpoint: Endpoint) -> str | None:
    try:
        return Path(endpoint.token_file).read_text(encoding="utf-8").strip() if endpoint.token_file else None
    except OSError:
        return None


def up(arguments: list[str], timeout: float) -> tuple[Endpoint, bool]:
    """Find or start this user's service; return its endpoint and whether it was started."""
    endpoint = read_endpoint()
    if endpoint is not None and answers(endpoint):
        return endpoint, False
    folder = runtime_dir(create=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="up-") as private:
        return start(arguments, Path(private) / "ready.json", folder / "serve.log", timeout)[0], True


def start(
    arguments: list[str], ready: Path, output: Path, timeout: float, environment: Mapping[str, str] | None = None
) -> tuple[Endpoint, subprocess.Popen[bytes]]:
    """Start a service in a new session and wait until it answers."""
    command = [sys.executable, "-m", "edbjobs", "serve", "--ready-file", str(ready), *arguments]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
            creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
        )
    deadline = time.monotonic() + timeout
    while (endpoint := read_endpoint(ready)) is None:
        if process.poll() is not None:
            fail(_last_line(output) or f"the service ended with code {process.returncode}")
        if time.monotonic() > deadline:
            process.terminate()
            fail(f"the service did not answer within {timeout:g} s; its last output: {_last_line(output) or 'none'}")
        time.sleep(STEP)
    return endpoint, process


def _last_line(output: Path) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("edbjobs: ") if lines else ""


def down(timeout: float) -> int:
    """Stop this user's service and wait until its process has ended; return its pid, 0 if there was none."""
    endpoint = read_endpoint()
    if endpoint is None:
        return 0
    if not _is_running(endpoint):
        remove_endpoint(endpoint)
        return 0
    if not answers(endpoint):
        fail(
            f"pid {endpoint.pid} is recorded as the service but does not answer as edbjobs; check the process, "
            "and end it yourself if it is the service",
            code=FAILED,
        )
    os.kill(endpoint.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while _is_running(endpoint):
        if time.monotonic() > deadline:
            fail(f"pid {endpoint.pid} has not ended within {timeout:g} s; it is still draining", code=FAILED)
        time.sleep(STEP)
    return endpoint.pid


def _is_running(endpoint: Endpoint) -> bool:
    if endpoint.pid_start:
        return process_start(endpoint.pid) == endpoint.pid_start
    return answers(endpoint)
