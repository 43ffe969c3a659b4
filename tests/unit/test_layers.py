"""Imports run downwards only, and the core knows nothing but the standard library and itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parents[2] / "server" / "edbjobs_server"

# A part may import the parts on later lines, and those on its own.
LAYERS = [
    {"facade"},
    {"__main__", "app", "doctor", "schedulers"},
    {"gateway", "rpc", "retention"},
    {"manager", "control", "runs", "clusters", "explaining"},
    {
        "drafting",
        "following",
        "gatewatch",
        "run_changes",
        "run_context",
        "run_preparation",
        "run_retry",
        "run_spec",
        "run_steps",
        "run_task",
        "submission",
        "tail",
        "limit_changes",
        "silence",
        "validation",
        "waiting",
    },
    {"events"},
    {"store"},
    {"site"},
    {"access", "addresses", "codec", "executors", "logs", "sockets", "solver", "telemetry", "within"}
    | {"event_loop", "settings", "settings_types"},
    {"core"},
    {"util"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
FILES = sorted(SERVER.rglob("*.py"))


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(file: Path) -> set[str]:
    """Modules a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "edbjobs_server":
                found.update(f"edbjobs_server.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SERVER)))
def test_imports_run_downwards(file: Path) -> None:
    relative = file.relative_to(SERVER)
    part = relative.parts[0].removesuffix(".py")
    if part == "__init__":
        return
    level = LEVEL[part]
    for module in imports(file):
        other = part_of(module) if module.startswith("edbjobs_server.") else ""
        if other and other != part:
            assert LEVEL[other] >= level, f"{part} imports {module}"


@pytest.mark.parametrize("file", sorted((SERVER / "core").glob("*.py")), ids=lambda file: file.name)
def test_core_knows_no_io(file: Path) -> None:
    allowed = sys.stdlib_module_names - {"asyncio", "os", "socket", "sqlite3", "subprocess", "threading", "time", "io"}
    for module in imports(file):
        root = module.split(".")[0]
        assert module.startswith("edbjobs_server.core") or root in allowed, f"{file.name} imports {module}"
