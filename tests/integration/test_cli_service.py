"""The commands that start and stop a service, and the demonstration."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edbjobs import Endpoint, read_endpoint, write_endpoint
from edbjobs._endpoint import process_start

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="edbjobs-test-") as name:
        (Path(name) / "run").mkdir(mode=0o700)
        yield Path(name)


@pytest.fixture
def edbjobs(folder: Path) -> Iterator[Run]:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "edbjobs", *arguments],
            env={**os.environ, "EDBJOBS_RUNTIME_DIR": str(folder / "run"), "EDBJOBS_STATE_DIR": str(folder / "state")},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done
        return done

    yield run
    endpoint = read_endpoint(folder / "run" / "endpoint.json")
    if endpoint is not None and endpoint.pid_start and process_start(endpoint.pid) == endpoint.pid_start:
        os.kill(endpoint.pid, signal.SIGKILL)


UP = ("up", "--grpc", "127.0.0.1:0", "--http", "", "--demo-solver")


def test_up_starts_one_service_and_down_ends_it(edbjobs: Run, folder: Path) -> None:
    first = json.loads(edbjobs(*UP, "--json").stdout)
    assert process_start(first["pid"]) == first["pid_start"] > 0
    again = edbjobs(*UP)
    assert "is already running" in again.stderr
    assert str(first["pid"]) in again.stdout
    assert "serving" in edbjobs("status").stdout
    assert f"stopped pid {first['pid']}" in edbjobs("down").stdout
    assert process_start(first["pid"]) == 0
    assert not (folder / "run" / "endpoint.json").exists()
    assert "no service" in edbjobs("down").stdout
    edbjobs("status", "--target", first["grpc"], code=2)


def test_up_passes_over_what_a_killed_service_left(edbjobs: Run) -> None:
    first = json.loads(edbjobs(*UP, "--json").stdout)
    os.kill(first["pid"], signal.SIGKILL)
    second = json.loads(edbjobs(*UP, "--json").stdout)
    assert second["pid"] != first["pid"]
    edbjobs("down")


def test_a_service_that_cannot_start_is_reported_in_one_line(edbjobs: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for command in ("up", "serve"):
            done = edbjobs(command, "--grpc", address, "--http", "", code=2)
            assert address.rpartition(":")[2] in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
    assert "max_cpu_percent" in edbjobs("serve", "--max-cpu-percent", "400", code=2).stderr.replace("-", "_")


def test_down_ends_no_process_that_is_not_the_service(edbjobs: Run, folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        path = folder / "run" / "endpoint.json"
        here = {"host": socket.gethostname(), "grpc": "127.0.0.1:1"}
        # A later process of the same number.
        write_endpoint(Endpoint(pid=other.pid, pid_start=1, **here), path)
        assert "no service" in edbjobs("down").stdout
        # The very process, but it does not answer as edbjobs.
        write_endpoint(Endpoint(pid=other.pid, pid_start=process_start(other.pid), **here), path)
        assert "does not answer" in edbjobs("down", code=1).stderr
        assert other.poll() is None
        path.unlink()
        other.kill()


# Rarely changed, or tables: from the settings file or the environment only.
FILE_ONLY = {
    "default_user",
    "users",
    "kill_leftovers_seconds",
    "lock_wait_seconds",
    "gate_event_seconds",
    "telemetry_seconds",
    "templates_dir",
    "cluster_poll_seconds",
    "hpc_url",
    "hpc_credentials",
    "hpc_ca",
    "hpc_solvers",
}


def test_serve_passes_every_option_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from edbjobs.cli import _service
    from edbjobs.cli._app import make_app
    from edbjobs_server.config.settings import Settings
    from edbjobs_server.service import app as service
    from typer.testing import CliRunner

    given: dict[str, object] = {}

    def main(values: dict[str, object], config: Path | None) -> int:
        given.update(values)
        return 7

    monkeypatch.setattr(service, "main", main)
    options = {
        "--state-dir": "/s",
        "--grpc": "127.0.0.1:0",
        "--uds": "/u",
        "--http": "127.0.0.1:1",
        "--public-url": "https://x",
        "--allowed-host": "x",
        "--trusted-proxy": "10.0.0.1",
        "--cors-origin": "http://localhost:5173",
        "--ready-file": "/r",
        "--log-level": "debug",
        "--retention-days": "1",
        "--retention-jobs": "2",
        "--max-local-jobs": "3",
        "--max-cores": "4",
        "--max-memory-bytes": "5",
        "--max-cluster-jobs": "6",
        "--license": "hfss=7",
        "--max-cpu-percent": "8",
        "--min-free-memory-bytes": "9",
        "--min-free-disk-bytes": "10",
        "--solver": "/bin/true",
        "--project-root": "/p",
        "--environment-allow": "X_*",
        "--scheduler": "slurm",
        "--shared-dir": "/shared/runs",
        "--shared-root": "/shared",
        "--transport-mode": "uds",
        "--certificates": "/c",
    }
    line = [item for pair in options.items() for item in pair]
    assert CliRunner().invoke(make_app(), ["serve", "--demo-solver", *line]).exit_code == 7
    assert len(given) == len(options) + 1
    assert set(given) == set(Settings.model_fields) - FILE_ONLY
    assert (given["licenses"], given["min_free_disk_bytes"], given["demo_solver"]) == ({"hfss": 7}, 10, True)
    given.clear()
    assert CliRunner().invoke(make_app(), ["serve"]).exit_code == 7
    assert given == {}
    assert _service.serve.__doc__


@pytest.mark.timeout(120)
def test_the_demonstration_shows_a_solve_that_outlives_its_service(edbjobs: Run, folder: Path) -> None:
    done = edbjobs("demo", "--state-dir", str(folder / "demo"), "--json")
    result = json.loads(done.stdout)
    assert result["good"] is True
    assert [(job["state"], job["outcome"]["evidence"], len(job["attempts"])) for job in result["jobs"]] == [
        ("completed", "solver_log", 1)
    ] * 2
    types = [event["type"] for event in result["events"]]
    assert types[0] == "queued"
    assert types[-1] == "completed"
    assert types.count("started") == 1
    # Nothing of it stays behind.
    assert read_endpoint(folder / "demo" / "run" / "endpoint.json") is None
