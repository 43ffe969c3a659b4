"""Build the clients of all languages: `make clients`, which is `python -m interop.build FOLDER`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from interop import toolchains


def build_web(folder: Path) -> None:
    """Install the packages of the TypeScript client and build it, where it is."""
    client = toolchains.ROOT / "client" / "web"
    toolchains.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=client)
    toolchains.run(["npm", "run", "build"], cwd=client)
    (folder / "edbjobs").symlink_to(client / "dist")


CLIENTS: dict[str, tuple[Sequence[str], Callable[[Path], None]]] = {
    "cpp": (toolchains.CPP, toolchains.build_cpp),
    "csharp": (toolchains.CSHARP, toolchains.build_csharp),
    "web": (("node", "npm"), build_web),
}


def main(base: Path) -> int:
    """Build each client whose tools are here; a client left out is named, and an error in CI."""
    lacking = False
    for name, (programs, build) in CLIENTS.items():
        if why := toolchains.lack(programs):
            print(f"{name}: not built: {why}")
            lacking = True
            continue
        started = time.monotonic()
        folder = base / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build(folder)
        print(f"{name}: {folder} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if lacking and os.environ.get("EDBJOBS_CI") else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
