"""The real service starts, or reports in one line why it cannot; it advertises its endpoints and cleans up."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from edbjobs._version import __version__
from edbjobs.v1 import cluster_service_pb2, cluster_service_pb2_grpc
from support.service import DEADLINE, ServiceProcess

STATUS = cluster_service_pb2.GetSystemStatusRequest()


def refusal(service: ServiceProcess) -> str:
    """Start a service that must fail; return its error line."""
    (service.folder / "service.out").unlink(missing_ok=True)
    process = service.launch()
    try:
        code = process.wait(DEADLINE)
    finally:
        process.kill()
        service.process = None
    lines = service.output().strip().splitlines()
    assert (code, len(lines)) == (2, 1), service.output()
    assert not service.ready_file.exists()
    return lines[0]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def running(tmp_path: Path) -> Iterator[ServiceProcess]:
    folder = tmp_path / "running"
    folder.mkdir()
    with ServiceProcess(folder, http="127.0.0.1:0") as service:
        yield service


def other(tmp_path: Path, **settings: Any) -> ServiceProcess:
    folder = tmp_path / "other"
    folder.mkdir(exist_ok=True)
    return ServiceProcess(folder, **settings)


def code_of(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call)
    return error.code().name


# Failed starts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("endpoint", "option"), [("grpc", "--grpc"), ("http", "--http")])
def test_a_port_in_use(tmp_path: Path, taken: int, endpoint: str, option: str) -> None:
    service = other(tmp_path, **{endpoint: f"127.0.0.1:{taken}"})
    line = refusal(service)
    assert f"127.0.0.1:{taken} is in use" in line
    assert option in line
    assert not Path(str(service.settings["uds"])).exists(), "a service that did not start leaves no socket"
    service.settings[endpoint] = "127.0.0.1:0"
    service.start()
    service.stop()


def test_two_services_never_share_a_port(tmp_path: Path, running: ServiceProcess) -> None:
    line = refusal(other(tmp_path, grpc=running.endpoint["grpc"]))
    assert f"{running.endpoint['grpc']} is in use" in line
    running.cluster.GetSystemStatus(STATUS, timeout=10)


def test_a_unix_socket_in_use(tmp_path: Path, running: ServiceProcess) -> None:
    line = refusal(other(tmp_path, uds=running.endpoint["uds"]))
    assert "another service answers" in line
    assert "--uds" in line
    running.cluster.GetSystemStatus(STATUS, timeout=10)


def test_a_state_folder_in_use(tmp_path: Path, running: ServiceProcess) -> None:
    service = other(tmp_path)
    service.state_dir = running.state_dir
    line = refusal(service)
    assert socket.gethostname() in line
    assert f"pid {running.endpoint['pid']}" in line
    running.kill()
    service.start()  # a lock ends with its holder, however that ends
    service.stop()
    running.state_dir = tmp_path / "nothing"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_local_jobs": -1}, ["--max-local-jobs", "-1"]),
        ({"max_cpu_percent": 101}, ["--max-cpu-percent"]),
        ({"grpc": "somewhere"}, ["--grpc", "somewhere"]),
        ({"grpc": "", "uds": "none"}, ["the service would be unreachable"]),
        ({"uds": "/tmp/" + "x" * 120}, ["107 bytes"]),
        ({"solvers": ["/nowhere/ansysedt"]}, ["--solver", "/nowhere/ansysedt"]),
        ({"transport_mode": "mtls"}, ["certificates"]),
    ],
)
def test_a_bad_setting(tmp_path: Path, settings: dict[str, Any], words: list[str]) -> None:
    line = refusal(other(tmp_path, **settings))
    assert all(word in line for word in words), line


def test_a_bad_variable(tmp_path: Path) -> None:
    service = other(tmp_path)
    service.environment["EDBJOBS_MAX_LOCL_JOBS"] = "3"
    line = refusal(service)
    assert "EDBJOBS_MAX_LOCL_JOBS" in line
    assert "max_local_jobs" in line


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("state", "state"),
        ("state/runs", "runs"),
        ("state/token", "token"),
        ("run/s", "is no socket"),
        ("run/endpoint.json/x", "endpoint.json"),
        ("folder", "--uds"),
    ],
)
def test_a_file_in_the_way(tmp_path: Path, name: str, word: str) -> None:
    service = other(tmp_path)
    if name == "folder":
        service.settings["uds"] = str(service.folder / "folder" / "s")
    service.runtime_dir.mkdir(0o700)
    in_the_way = service.folder / name
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("x" * 50)
    assert word in refusal(service)


def test_a_ready_file_that_cannot_be_made(tmp_path: Path) -> None:
    service = other(tmp_path)
    service.ready_file = service.folder / "nothing" / "ready.json"
    assert str(service.ready_file.parent) in refusal(service)


def test_a_damaged_endpoint_file_does_not_block_the_end(tmp_path: Path) -> None:
    service = other(tmp_path)
    service.start()
    (service.runtime_dir / "endpoint.json").write_text("spoilt")
    assert service.stop() == 0, service.output()
    assert not service.ready_file.exists()
    assert (service.runtime_dir / "endpoint.json").read_text() == "spoilt"


def test_invalid_certificates(tmp_path: Path) -> None:
    for name in ("ca.crt", "server.crt", "server.key"):
        (tmp_path / name).write_text("none")
    line = refusal(other(tmp_path, transport_mode="mtls", certificates=str(tmp_path)))
    assert "certificates" in line


def test_a_corrupt_store_is_kept_and_rebuilding_is_named(tmp_path: Path) -> None:
    service = other(tmp_path)
    service.state_dir.mkdir(0o700)
    (service.state_dir / "store.db").write_bytes(b"no store at all " * 500)
    assert "doctor --rebuild" in refusal(service)
    assert "doctor --rebuild" in refusal(service), "and it does not start with an empty one the next time"


# Endpoints ----------------------------------------------------------------------------------------------


def test_the_endpoint_file_exists_while_it_serves(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, http="127.0.0.1:0")
    service.start()
    assert service.process is not None
    pid = service.process.pid
    endpoint = service.runtime_dir / "endpoint.json"
    found = service.endpoint
    assert json.loads(endpoint.read_text()) == found
    assert found["grpc"].startswith("127.0.0.1:")
    assert found["uds"] == str(service.runtime_dir / "s")
    assert found["http"].startswith("http://127.0.0.1:")
    assert (found["pid"], found["host"], found["version"]) == (pid, socket.gethostname(), __version__)
    assert Path(found["token_file"]).read_text().strip()
    for path in (service.ready_file, endpoint):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with grpc.insecure_channel(found["grpc"]) as channel:
        status = cluster_service_pb2_grpc.ClusterServiceStub(channel).GetSystemStatus(STATUS, timeout=10)
    assert (status.details.pid, status.details.state_directory) == (pid, str(service.state_dir))
    assert service.stop() == 0
    assert not service.ready_file.exists()
    assert not endpoint.exists()
    assert not Path(found["uds"]).exists()


def test_an_endpoint_of_another_service_stays(tmp_path: Path, running: ServiceProcess) -> None:
    """Two services of one account share the runtime folder: the older one must not remove the newer's file."""
    newer = other(tmp_path, uds=str(tmp_path / "s"))
    newer.runtime_dir = running.runtime_dir
    newer.start()
    endpoint = running.runtime_dir / "endpoint.json"
    assert json.loads(endpoint.read_text())["pid"] == newer.endpoint["pid"]
    assert running.stop() == 0
    assert json.loads(endpoint.read_text())["pid"] == newer.endpoint["pid"]
    newer.stop()
    assert not endpoint.exists()


def test_what_a_killed_service_left_is_replaced(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path)
    service.start()
    uds = Path(service.endpoint["uds"])
    service.kill()
    assert uds.exists()
    service.start()
    service.cluster.GetSystemStatus(STATUS, timeout=10)
    service.stop()


def test_the_unix_socket_is_closed_to_others(tmp_path: Path) -> None:
    uds = tmp_path / "made" / "edbjobs.sock"
    with ServiceProcess(tmp_path, uds=str(uds), grpc="") as service:
        assert stat.S_IMODE(uds.stat().st_mode) == 0o600
        assert stat.S_IMODE(uds.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(service.state_dir.stat().st_mode) == 0o700
        private = [path for path in service.state_dir.rglob("*") if path.stat().st_mode & 0o077]
        assert private == [], "no file in the state folder is open to others"
        service.cluster.GetSystemStatus(STATUS, timeout=10)


def test_mutual_tls_accepts_clients_with_a_certificate_of_ours(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    folder = tmp_path / "certificates"
    folder.mkdir()
    ours.cert_pem.write_to_path(str(folder / "ca.crt"))
    server = ours.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.crt"))

    def call(cert: trustme.LeafCert | None) -> str:
        key, chain = (cert.private_key_pem.bytes(), cert.cert_chain_pems[0].bytes()) if cert else (None, None)
        credentials = grpc.ssl_channel_credentials(ours.cert_pem.bytes(), key, chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(service.endpoint["grpc"], credentials, options=options) as channel:
            try:
                stub = cluster_service_pb2_grpc.ClusterServiceStub(channel)
                return stub.GetSystemStatus(STATUS, timeout=20).caller.name
            except grpc.RpcError as error:
                return code_of(error)

    with ServiceProcess(tmp_path, transport_mode="mtls", certificates=str(folder)) as service:
        assert call(ours.issue_cert(common_name="alice")) == "alice"
        assert call(None) == "UNAVAILABLE"
        assert call(theirs.issue_cert(common_name="alice")) == "UNAVAILABLE"
        assert call(ours.issue_cert("nameless.example")) == "UNAUTHENTICATED"
        with grpc.insecure_channel(service.endpoint["grpc"]) as channel, pytest.raises(grpc.RpcError):
            cluster_service_pb2_grpc.ClusterServiceStub(channel).GetSystemStatus(STATUS, timeout=20)


def test_the_log_names_the_caller_and_no_secret(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path) as service:
        token = Path(service.endpoint["token_file"]).read_text().strip()
        request = cluster_service_pb2.GetSystemStatusRequest()
        service.cluster.GetSystemStatus(request, timeout=10, metadata=(("authorization", f"Bearer {token}"),))
        with pytest.raises(grpc.RpcError):
            service.cluster.GetSystemStatus(request, timeout=10, metadata=(("authorization", "Bearer wrong"),))
    written = service.output() + "".join(path.read_text() for path in service.state_dir.glob("*.log*"))
    assert "UNAUTHENTICATED" in written
    assert token not in written
    assert os.fspath(service.state_dir) in written or "answers at" in written
