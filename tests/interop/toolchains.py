"""Builds the C++ and C# clients for the tests, each once per test run, below the run's temporary folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from interop import csharp_tools

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGES = {
    "cmake": "cmake",
    "g++": "g++",
    "protoc": "protobuf-compiler",
    "grpc_cpp_plugin": "protobuf-compiler-grpc",
    "mcs": "mono-mcs",
    "mono": "mono-runtime",
    "apt-get": "apt",
    "dpkg-source": "dpkg-dev",
    "javac": "openjdk-17-jdk-headless",
    "grpc_java_plugin": "protobuf-compiler-grpc-java-plugin libgrpc-java libprotobuf-java",
    "go": "golang-go",
    "protoc-gen-go-grpc": "protoc-gen-go-grpc golang-google-grpc-dev golang-google-protobuf-dev",
}


CPP = ("cmake", "g++", "protoc", "grpc_cpp_plugin")
CSHARP = ("g++", "protoc", "mcs", "mono", "apt-get", "dpkg-source")


def lack(programs: Sequence[str]) -> str:
    """Say which programs are missing and what to install; empty: none."""
    missing = [name for name in programs if shutil.which(name) is None]
    packages = " ".join(PACKAGES.get(name, name) for name in missing)
    return f"{', '.join(missing)} missing: apt-get install {packages}" if missing else ""


def need(programs: Sequence[str]) -> None:
    """Skip the test where a program is missing."""
    if lacking := lack(programs):
        pytest.skip(lacking)  # CI makes an error of that


def run(command: Sequence[str | Path], *, cwd: Path | None = None, timeout: float = 600) -> str:
    """Run a tool; gives what it printed, and fails with that."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Build something in a folder that all workers of this test run share; the first one builds, the others wait."""
    base = factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "built").exists():
            build(shared)
            (shared / "built").touch()
    return shared


def build_cpp(folder: Path) -> None:
    """Build and install the C++ client, then the driver against what was installed."""
    installed = folder / "installed"
    # Not optimized: what is tested is what it does, and CI waits for it.
    flags = ["-DCMAKE_CXX_FLAGS=-O0", "-DCMAKE_BUILD_TYPE="]
    run(["cmake", "-S", ROOT / "client" / "cpp", "-B", folder / "client", *flags])
    run(["cmake", "--build", folder / "client", "--parallel", "2"])
    run(["cmake", "--install", folder / "client", "--prefix", installed])
    run(["cmake", "-S", HERE / "cpp", "-B", folder / "driver", f"-DCMAKE_PREFIX_PATH={installed}", *flags])
    run(["cmake", "--build", folder / "driver"])


def cpp(factory: pytest.TempPathFactory) -> Path:
    """Give the folder with ``installed/bin/edbjobs-cpp`` and ``driver/driver``."""
    need(CPP)
    return once(factory, "cpp", build_cpp)


def build_csharp(folder: Path) -> None:
    """Compile the C# client, its sample and the driver with mono, against the demo solver for the NuGet packages."""
    csharp_tools.build(folder, csharp_tools.fetch(csharp_tools.cache_folder()))
    generated = folder / "generated"
    generated.mkdir()
    protos = ROOT / "protos"
    files = [path.relative_to(protos) for path in sorted(protos.glob("edbjobs/v1/*.proto"))]
    details = ["google/rpc/status.proto", "google/rpc/error_details.proto"]
    plugin = f"--plugin=protoc-gen-grpc={folder / 'grpc_csharp_plugin'}"
    outputs = [f"--csharp_out={generated}", f"--grpc_out={generated}", "--grpc_opt=no_server"]
    run(["protoc", "-I.", plugin, *outputs, *files, *details], cwd=protos)
    doubles = [HERE / "csharp" / "GrpcCoreDouble.cs", HERE / "csharp" / "GrpcNetClientDouble.cs"]
    client = ROOT / "client" / "csharp"
    _mcs(folder, "GrpcDouble.dll", doubles)
    _mcs(folder, "EdbJobs.Client.dll", [*client.glob("*.cs"), *generated.glob("*.cs")], "GrpcDouble.dll")
    both = ("GrpcDouble.dll", "EdbJobs.Client.dll")
    _mcs(folder, "edbjobs-csharp.exe", [*(client / "sample").glob("*.cs")], *both)
    _mcs(folder, "driver.exe", [HERE / "csharp" / "Driver.cs"], *both)
    (folder / "host").mkdir()
    _mcs(folder, "host/host.exe", [HERE / "csharp" / "Host.cs"])


def _mcs(folder: Path, name: str, sources: Sequence[Path], *references: str) -> None:
    kind = "library" if name.endswith(".dll") else "exe"
    libraries = ["Google.Protobuf.dll", "System.Net.Http.dll", *references]
    # mono is .NET Framework to a program. 612: generated code uses what it marks as obsolete itself.
    options = ["-langversion:latest", "-define:NETFRAMEWORK", "-warnaserror", "-nowarn:612", f"-lib:{folder}"]
    run(
        [
            *("mcs", *options, f"-target:{kind}", f"-out:{folder / name}"),
            *(f"-r:{library}" for library in libraries),
            *sorted(sources),
        ]
    )


def csharp(factory: pytest.TempPathFactory) -> Path:
    """Give the folder with ``edbjobs-csharp.exe``, ``driver.exe`` and the libraries."""
    need(CSHARP)
    return once(factory, "csharp", build_csharp)
