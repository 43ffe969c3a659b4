"""Generate the Python stubs from protos/ into a folder: `python scripts/regenerate.py client/python`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(destination: Path) -> None:
    """Run protoc with the pinned plugins; its output is the same byte for byte each time."""
    tools = Path(sys.executable).parent
    files = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "edbjobs" / "v1").glob("*.proto"))
    services = [name for name in files if name.endswith("_service.proto")]
    base = [sys.executable, "-m", "grpc_tools.protoc", "-I."]
    subprocess.run(
        [
            *base,
            f"--plugin=protoc-gen-mypy={tools / 'protoc-gen-mypy'}",
            f"--python_out={destination}",
            f"--mypy_out=quiet:{destination}",
            *files,
        ],
        cwd=PROTOS,
        check=True,
    )
    subprocess.run(
        [
            *base,
            f"--plugin=protoc-gen-mypy_grpc={tools / 'protoc-gen-mypy_grpc'}",
            f"--grpc_python_out={destination}",
            f"--mypy_grpc_out=quiet:{destination}",
            *services,
        ],
        cwd=PROTOS,
        check=True,
    )


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve())
