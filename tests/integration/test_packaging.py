"""What is published: sdist and wheel are built in isolation, have all they must, and go with PyEDB and PyAEDT."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.distributions import COMPAT, ROOT, built, wheels

INSTALL_SECONDS = 420
ANSYS = ("pyedb", "pyaedt")
pytestmark = pytest.mark.timeout(900)  # installing PyEDB and PyAEDT is bounded by itself

USE = """
import sys
import ansys.aedt.core, pyedb
import edbjobs, edbjobs.v1.jobs_service_pb2_grpc
from edbjobs_server.service.app import Service
from edbjobs_server.solver.demo import example_project
from importlib.resources import files
assert (files("edbjobs.protos") / "edbjobs" / "v1" / "job.proto").is_file()
edbjobs.Client("127.0.0.1:1").close()
edbjobs.JobConfig(project_path="/p/a.aedb").to_message()
print(edbjobs.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return _names(wheel)


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder.parent).as_posix()


def test_the_wheel_has_both_packages_whole_and_the_contract(names: set[str]) -> None:
    packages = {*_files(ROOT / "client" / "python" / "edbjobs"), *_files(ROOT / "server" / "edbjobs_server")}
    contract = {f"edbjobs/{name}" for name in _files(ROOT / "protos")}
    missing = (packages | contract) - names
    assert not missing
    others = {name for name in names - packages - contract if ".dist-info/" not in name}
    assert not others


def test_the_wheel_has_what_only_data_files_can_bring(names: set[str]) -> None:
    for name in (
        "edbjobs/py.typed",
        "edbjobs_server/py.typed",
        "edbjobs_server/gateway/dashboard/page.css",
        "edbjobs_server/gateway/dashboard/page.html",
        "edbjobs/protos/edbjobs.binpb",
        "edbjobs/protos/edbjobs/v1/jobs_service.proto",
        "edbjobs/protos/google/rpc/status.proto",
    ):
        assert name in names
    assert any(name.startswith("edbjobs_server/store/schema/") and name.endswith(".sql") for name in names)
    assert any(name.startswith("edbjobs_server/store/queries/") and name.endswith(".sql") for name in names)
    assert any(name.startswith("edbjobs_server/solver/demo/") and name.endswith(".aedt") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_for_pyedb_has_facade_and_documented_modules(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _, compat = wheels(tmp_path_factory)
    inside = {name for name in _names(compat) if ".dist-info/" not in name}
    assert inside == {*_files(COMPAT / "edbjobs_pyedb"), *_files(COMPAT / "pyedb")}
    assert {"edbjobs_pyedb/py.typed", "pyedb/workflows/job_manager/backend/service.py"} <= inside


def test_the_sdist_has_what_the_wheel_is_made_of_and_no_more(tmp_path_factory: pytest.TempPathFactory) -> None:
    (sdist,) = built(tmp_path_factory).glob("edbjobs-*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    expected = {"client", "server", "protos", "examples", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"}
    assert expected <= inside
    assert inside - expected <= {"PKG-INFO", ".gitignore"}


@pytest.fixture(scope="module")
def ansys_python() -> Iterator[Path]:
    """Give an environment with PyEDB and PyAEDT, kept outside the checkout from one run to the next."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edbjobs-tests"
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(f"{sys.version} {ANSYS}".encode()).hexdigest()[:12]
    folder = cache / f"ansys-{key}"
    with (cache / f"ansys-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=INSTALL_SECONDS)
            _pip(folder / "bin" / "python", *ANSYS)
            (folder / "complete").touch()
        yield folder / "bin" / "python"


def test_it_installs_beside_pyedb_and_pyaedt(ansys_python: Path, wheel: Path, tmp_path: Path) -> None:
    # Named again, all have to be met at once: pip finds releases that suit them all, or says that there are none.
    _pip(ansys_python, "--force-reinstall", "--no-deps", str(wheel))
    _pip(ansys_python, f"edbjobs[server,cli] @ {wheel.as_uri()}", *ANSYS)
    checked = _run(ansys_python, tmp_path, "-m", "pip", "check")
    wrong = [line for line in checked.stdout.splitlines() if line.startswith(("edbjobs ", *ANSYS))]
    assert not wrong
    used = _run(ansys_python, tmp_path, "-c", USE)
    assert used.returncode == 0, used.stderr
    assert str(ansys_python.parent.parent) in used.stdout, "the installed one, not the checkout's"
    version = _run(ansys_python, tmp_path, "-m", "edbjobs", "--version")
    assert version.returncode == 0, version.stderr


def _pip(python: Path, *arguments: str) -> None:
    done = _run(python, python.parent, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)
    if done.returncode and "ResolutionImpossible" not in done.stderr:
        pytest.skip(f"pip install {' '.join(arguments)} failed: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr


def _run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(
        [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
