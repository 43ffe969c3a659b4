"""The tools for C# that Debian ships as source only: grpc_csharp_plugin and Google.Protobuf.dll.

The sources come with apt from the machine's own Debian lines, into a cache outside the checkout; apt checks their
signatures, and nothing of the machine's apt is changed: `python tests/interop/csharp_tools.py FOLDER` builds both.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCES = ("protobuf", "grpc")
LISTS = Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d")


def cache_folder() -> Path:
    """Give the folder that keeps the sources from one test run to the next."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edbjobs-tests" / "debian-sources"


def fetch(cache: Path) -> dict[str, Path]:
    """Have the unpacked sources in the cache; gives their folders by name."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "complete").exists():
            _download(cache)
            (cache / "complete").touch()
    return {name: cache / name for name in SOURCES}


def build(folder: Path, sources: dict[str, Path]) -> None:
    """Build ``grpc_csharp_plugin`` and ``Google.Protobuf.dll`` in a folder."""
    compiler = sources["grpc"] / "src" / "compiler"
    code = [compiler / "csharp_plugin.cc", compiler / "csharp_generator.cc"]
    include = f"-I{sources['grpc']}"
    _run("g++", "-O0", "-std=c++17", include, "-o", folder / "grpc_csharp_plugin", *code, "-lprotoc", "-lprotobuf")
    library = sources["protobuf"] / "csharp" / "src" / "Google.Protobuf"
    # First, or mcs does not see the alias in this file of 11,000 lines.
    first = library / "Reflection" / "Descriptor.cs"
    others = [path for path in sorted(library.rglob("*.cs")) if path != first]
    shim = Path(__file__).resolve().parent / "csharp" / "UnsafeShim.cs"
    options = ["-optimize", "-unsafe", "-langversion:latest", "-nowarn:414,618,1591"]
    _run("mcs", *options, "-target:library", f"-out:{folder / 'Google.Protobuf.dll'}", first, shim, *others)


def _download(cache: Path) -> None:
    lines = cache / "lines"
    lists = cache / "lists"
    lines.mkdir(exist_ok=True)
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    for number, (suffix, text) in enumerate(_source_lines()):
        (lines / f"{number}{suffix}").write_text(text)
    options = [
        *("-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={lines}"),
        *("-o", f"Dir::State::lists={lists}", "-o", "APT::Sandbox::User=root", "-q"),
    ]
    _run("apt-get", *options, "update", cwd=cache)
    _run("apt-get", *options, "source", "--download-only", *SOURCES, cwd=cache)
    for name in SOURCES:
        (description,) = cache.glob(f"{name}_*.dsc")
        _run("dpkg-source", "--no-check", "-x", description, cache / name, cwd=cache)


def _source_lines() -> Iterator[tuple[str, str]]:
    """Give the machine's Debian lines as lines for sources, with the suffix of their file."""
    single, folder = LISTS
    for file in [single, *sorted(folder.glob("*"))]:
        if file.suffix == ".sources" and "debian" in file.stem:
            yield ".sources", file.read_text().replace("Types: deb\n", "Types: deb-src\n")
        elif file.suffix == ".list" and file.is_file() and "debian" in file.read_text():
            lines = [line for line in file.read_text().splitlines() if line.startswith("deb ")]
            yield ".list", "\n".join("deb-src " + line[4:] for line in lines) + "\n"


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve(), fetch(cache_folder()))
