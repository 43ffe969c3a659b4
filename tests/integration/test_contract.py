"""The contract is well formed, breaks no client of today, and its committed stubs are fresh."""

from __future__ import annotations

import filecmp
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import regenerate
import yaml

ROOT = Path(__file__).resolve().parents[2]
RELEASED = ROOT / "tests" / "buf" / "released.binpb"
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
    assert buf("breaking", "--against", str(RELEASED)) == ""


def test_the_rules_have_no_exceptions_of_our_own() -> None:
    rules = yaml.safe_load((ROOT / "protos" / "buf.yaml").read_text())
    assert rules["lint"] == {"use": ["STANDARD", "COMMENTS"], "ignore": ["google"], "disallow_comment_ignores": True}
    assert rules["breaking"] == {"use": ["FILE"]}


BREAKS = {
    "an RPC that is gone": (
        "jobs_service.proto",
        r"  rpc GetJob\(.*?\n  }\n",
        "",
        'RPC "GetJob" on service "JobsService" was deleted',
    ),
    "a field of another name": (
        "job.proto",
        r"string uid = 1;",
        "string unique_id = 1;",
        'Field "1" on message "Job" changed name from "uid" to "unique_id"',
    ),
    "a field of another type": ("job.proto", r"string uid = 1;", "int64 uid = 1;", "changed type"),
    "a field that is gone": (
        "job.proto",
        r"  // [^\n]*\n  string uid = 1;\n",
        "",
        'field "1" with name "uid" on message "Job" was deleted',
    ),
    "another package of Go": (
        "job.proto",
        r"option go_package = .*?;\n",
        'option go_package = "example.com/x;x";\n',
        'File option "go_package" changed',
    ),
    "another package of Java": (
        "job.proto",
        r"option java_package = .*?;\n",
        'option java_package = "other";\n',
        'File option "java_package" changed',
    ),
    "another namespace of C#": (
        "job.proto",
        r"option csharp_namespace = .*?;\n",
        'option csharp_namespace = "Other";\n',
        'File option "csharp_namespace" changed',
    ),
    "a reason that is gone": (
        "errors.proto",
        r"  // [^\n]*\n  ERROR_REASON_INTERNAL = 101;\n",
        "",
        'enum value "101" on enum "ErrorReason" was deleted',
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_would_be_found(tmp_path: Path, name: str) -> None:
    file, old, new, expected = BREAKS[name]
    before, after = tmp_path / "before.binpb", tmp_path / "protos"
    assert buf("build", "-o", str(before)) == ""
    shutil.copytree(ROOT / "protos", after)
    proto = after / "edbjobs" / "v1" / file
    text, count = re.subn(old, new, proto.read_text(), count=1, flags=re.DOTALL)
    assert count == 1
    proto.write_text(text)
    assert buf("breaking", str(after), "--against", str(after)) == ""
    assert expected in buf("breaking", str(after), "--against", str(before))


def test_only_a_release_changes_the_image_of_the_released_contract() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (target,) = re.findall(r"^(\S+):(?:.*\n)(?:\t.*\n)*?\t.*released\.binpb", makefile, re.MULTILINE)
    assert target == "release-contract"


def test_committed_stubs_are_fresh(tmp_path: Path) -> None:
    regenerate.generate(tmp_path)
    made = tmp_path / "edbjobs" / "v1"
    committed = ROOT / "client" / "python" / "edbjobs" / "v1"
    names = {path.name for path in made.iterdir()}
    assert names == {path.name for path in committed.glob("*_pb2*")}
    _, different, unreadable = filecmp.cmpfiles(made, committed, sorted(names), shallow=False)
    assert not different + unreadable, "run `make proto`"
