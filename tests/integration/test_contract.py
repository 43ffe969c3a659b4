"""The contract is well formed, breaks no client of today, and its committed stubs are fresh."""

from __future__ import annotations

import filecmp
import subprocess
from pathlib import Path

import pytest
import regenerate

ROOT = Path(__file__).resolve().parents[2]
BUF = ROOT / "tests" / "buf" / "node_modules" / ".bin" / "buf"


def buf(*arguments: str) -> str:
    """Run buf; gives what it found wrong."""
    if not BUF.exists():
        pytest.skip("buf is not installed: npm is missing")
    done = subprocess.run([BUF, *arguments], cwd=ROOT / "protos", capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode or done.stdout else ""


def test_contract_follows_the_rules() -> None:
    assert buf("lint") == ""


def test_contract_is_formatted() -> None:
    assert buf("format", "--diff", "--path", "edbjobs") == ""


def test_contract_breaks_no_client() -> None:
    assert buf("breaking", "--against", "edbjobs.binpb") == ""


def test_a_removed_field_would_be_found(tmp_path: Path) -> None:
    broken = tmp_path / "protos"
    for source in (ROOT / "protos").rglob("*"):
        if source.is_file():
            target = broken / source.relative_to(ROOT / "protos")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    job = broken / "edbjobs" / "v1" / "job.proto"
    job.write_text(job.read_text().replace("int32 priority = 5;", "string priority = 5;"))
    assert "priority" in buf("breaking", str(broken), "--against", "edbjobs.binpb")


def test_committed_stubs_are_fresh(tmp_path: Path) -> None:
    regenerate.generate(tmp_path)
    made = tmp_path / "edbjobs" / "v1"
    committed = ROOT / "client" / "python" / "edbjobs" / "v1"
    names = {path.name for path in made.iterdir()}
    assert names == {path.name for path in committed.glob("*_pb2*")}
    _, different, unreadable = filecmp.cmpfiles(made, committed, sorted(names), shallow=False)
    assert not different + unreadable, "run `make proto`"
