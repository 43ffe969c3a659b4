"""Every public name of the old modules is here, or stands in docs/compatibility.md with its reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.reference import run_reference

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("names.py")
DOCUMENT = ROOT / "docs" / "compatibility.md"
HEADING = "### Not here, or another one"

Names = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Names:
    done = run_reference(tmp_path_factory.mktemp("old"), str(SCRIPT))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def new() -> Names:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def listed() -> set[str]:
    section = DOCUMENT.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    assert all(reason.strip() for _, reason in rows), "each row has its reason"
    return {name for names, _ in rows for name in re.findall(r"`([^`]+)`", names)}


def test_names_were_found(old: Names) -> None:
    assert "job_manager_handler.JobManagerHandler.submit_job" in old
    assert old["job_submission.MachineNode"]["max_cores"] == "20"
    assert len(old) > 150


def test_every_name_is_here_or_has_its_reason(old: Names, new: Names, listed: set[str]) -> None:
    assert {name for name in old if name not in new} == {name for name in listed if name in old and "(" not in name}


def test_every_parameter_is_here_with_its_default(old: Names, new: Names, listed: set[str]) -> None:
    other = {
        f"{name}({parameter})"
        for name, parameters in old.items()
        if name in new
        for parameter, default in parameters.items()
        if new[name].get(parameter) != default
    }
    assert other == {name for name in listed if "(" in name}


def test_no_row_is_about_what_never_was(old: Names, listed: set[str]) -> None:
    assert {name for name in listed if name.split("(")[0] not in old} == set()
