"""The real service as a process of its own, for tests that start, kill and restart it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from edbjobs.v1 import (
    cluster_service_pb2_grpc,
    job_pb2,
    jobs_messages_pb2,
    jobs_service_pb2_grpc,
    resources_service_pb2_grpc,
)

DEADLINE = 60.0  # a start on a busy machine takes its time


class ServiceProcess:
    """One service on one state folder; may be killed and started again.

    Parameters
    ----------
    folder : Path
        Gets state and runtime folder.
    settings : object
        Settings by name, as of ``edbjobs_server.config.settings.Settings``.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.runtime_dir = folder / "run"
        self.ready_file = folder / "ready.json"
        self.settings = {
            "grpc": "127.0.0.1:0",
            "http": "",
            "uds": str(self.runtime_dir / "s"),
            "demo_solver": True,
            # Not whatever cluster this machine may belong to: a test that wants one brings it along.
            "scheduler": "auto" if "shared_dir" in settings else "none",
            **settings,
        }
        self.environment: dict[str, str] = {}
        self.prelude = ""  # Python that the process runs before anything of the service
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: grpc.Channel | None = None

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self) -> list[str]:
        """Return the command line of the process."""
        values = {**self.settings, "state_dir": str(self.state_dir), "ready_file": str(self.ready_file)}
        program = f"{self.prelude}\nimport sys; from edbjobs_server.service.app import main; sys.exit(main({values!r}))"
        return [sys.executable, "-c", program]

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process and do not wait for its answer."""
        self.runtime_dir.mkdir(mode=0o700, exist_ok=True)
        self.ready_file.unlink(missing_ok=True)
        with (self.folder / "service.out").open("ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                env={**os.environ, "EDBJOBS_RUNTIME_DIR": str(self.runtime_dir), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self.process

    def start(self) -> None:
        """Start the process and wait until it answers."""
        process = self.launch()
        deadline = time.monotonic() + DEADLINE
        while not self.ready_file.exists():
            assert process.poll() is None, self.output()
            assert time.monotonic() < deadline, "the service did not answer: " + self.output()
            time.sleep(0.005)
        self.channel = grpc.insecure_channel(self.target, options=[("grpc.use_local_subchannel_pool", 1)])

    @property
    def endpoint(self) -> dict[str, Any]:
        """What the ready file says."""
        return dict(json.loads(self.ready_file.read_text()))

    @property
    def target(self) -> str:
        """Address for a gRPC channel."""
        return f"unix:{self.endpoint['uds']}" if self.endpoint["uds"] else str(self.endpoint["grpc"])

    @property
    def jobs(self) -> jobs_service_pb2_grpc.JobsServiceStub:
        """Stub of JobsService."""
        assert self.channel is not None
        return jobs_service_pb2_grpc.JobsServiceStub(self.channel)

    @property
    def resources(self) -> resources_service_pb2_grpc.ResourcesServiceStub:
        """Stub of ResourcesService."""
        assert self.channel is not None
        return resources_service_pb2_grpc.ResourcesServiceStub(self.channel)

    @property
    def cluster(self) -> cluster_service_pb2_grpc.ClusterServiceStub:
        """Stub of ClusterService."""
        assert self.channel is not None
        return cluster_service_pb2_grpc.ClusterServiceStub(self.channel)

    def output(self) -> str:
        """What the process printed."""
        return (self.folder / "service.out").read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9 the process; its runs go on."""
        self._signal(signal.SIGKILL)

    def again(self) -> None:
        """Kill -9 the process and start the next one."""
        self.kill()
        self.start()

    def dies_at(
        self, point: str, request: jobs_messages_pb2.SubmitJobRequest, ready: Callable[[], object]
    ) -> job_pb2.Job:
        """Submit to a service that dies at a point of its way; gives what the next one answers to the same request."""
        self.environment["EDBJOBS_FAULT"] = point
        self.again()
        ready()
        with contextlib.suppress(grpc.RpcError):  # it may die before it has answered
            self.jobs.SubmitJob(request, timeout=10)
        assert self.process is not None
        self.process.wait(DEADLINE)
        del self.environment["EDBJOBS_FAULT"]
        self.again()
        return self.jobs.SubmitJob(request, timeout=10).job

    def stop(self) -> int:
        """Drain; gives the exit code. Runs go on."""
        return self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> int:
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
