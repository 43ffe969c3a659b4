"""The samples of the clients, and what the clients add to the generated code."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trustme
from edbjobs_server.solver.demo import example_project
from support.service import ServiceProcess

from interop import toolchains
from interop.driver import ProcessDriver

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # the first test of a worker builds the clients

Sample = Callable[[pytest.TempPathFactory], Sequence[str | Path]]
SAMPLES: dict[str, Sample] = {
    "cpp": lambda factory: [toolchains.cpp(factory) / "installed" / "bin" / "edbjobs-cpp"],
    "csharp": lambda factory: ["mono", toolchains.csharp(factory) / "edbjobs-csharp.exe"],
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path, http="127.0.0.1:0") as running:
        yield running


def _run(command: Sequence[str | Path], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDBJOBS_RUNTIME_DIR": str(folder), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_solves_and_prints_the_log(
    name: str, service: ServiceProcess, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = example_project(tmp_path)
    done = _run([*SAMPLES[name](tmp_path_factory), project, "2"], service.runtime_dir)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first.startswith("submitted ")
    assert any("Completed" in line or "COMPLETED" in line for line in others)
    assert "Normal Completion" in done.stdout


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_says_what_was_wrong(
    name: str, service: ServiceProcess, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = _run([*SAMPLES[name](tmp_path_factory), tmp_path / "none.aedt"], service.runtime_dir)
    assert done.returncode == 1
    assert "config.project_path: does not exist" in done.stderr


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_says_that_no_service_answers(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = '{"grpc": "127.0.0.1:9", "http": "http://127.0.0.1:9"}'
    (tmp_path / "endpoint.json").write_text(target)
    done = _run([*SAMPLES[name](tmp_path_factory), tmp_path / "none.aedt"], tmp_path)
    assert done.returncode == 1
    assert "onnect" in done.stderr  # "failed to connect", "ConnectFailure", "Connection refused"


def test_csharp_works_as_an_add_in_of_a_host_without_configuration(
    service: ServiceProcess, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = toolchains.csharp(tmp_path_factory)
    project = example_project(tmp_path)
    done = _run(["mono", folder / "host" / "host.exe", folder, project], service.runtime_dir)
    assert done.returncode == 0, done.stderr
    assert "Normal Completion" in done.stdout


def test_cpp_does_not_trust_a_folder_that_others_can_write(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path.chmod(0o777)
    done = _run([*SAMPLES["cpp"](tmp_path_factory), tmp_path / "none.aedt"], tmp_path)
    assert done.returncode == 1
    assert "can be written by other accounts" in done.stderr


def test_cpp_speaks_mutual_tls(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(certificates / "ca.crt"))
    for name, issued in {
        "server": authority.issue_cert("127.0.0.1"),
        "client": authority.issue_cert("ann@example.com", common_name="ann"),
    }.items():
        issued.private_key_pem.write_to_path(str(certificates / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(certificates / f"{name}.crt"))
    driver = toolchains.cpp(tmp_path_factory) / "driver" / "driver"
    call = {"rpc": "ClusterService.GetSystemStatus", "request": "{}", "deadline": 20, "token": "", "until": ""}
    # A token would come first: only the address is told.
    told = tmp_path / "told"
    told.mkdir(mode=0o700)
    settings = {"uds": "", "transport_mode": "mtls", "certificates": str(certificates)}
    with ServiceProcess(tmp_path, **settings) as service:
        (told / "endpoint.json").write_text(json.dumps({"grpc": service.endpoint["grpc"]}))
        client = ProcessDriver([driver, certificates], {"EDBJOBS_RUNTIME_DIR": str(told)})
        answer = client.call(call)
        client.close()
    assert json.loads(answer["messages"][0])["caller"]["authentication"] == "AUTHENTICATION_CERTIFICATE"
