"""The command `edbjobs doctor` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDBJOBS_", "ANSYS", "AWP_"))}
    (tmp_path / "run").mkdir(0o700)
    places = {"EDBJOBS_RUNTIME_DIR": str(tmp_path / "run"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return kept | places | {"EDBJOBS_GRPC": "127.0.0.1:0"}


def doctor(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edbjobs", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_findings_as_json_and_the_exit_code(tmp_path: Path, environment: dict[str, str]) -> None:
    done = doctor(environment, "--state-dir", str(tmp_path / "state"), "--json")
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert found["solver"]["status"] == "fail"  # no AEDT here
    assert found["store"] == {
        "name": "store",
        "status": "ok",
        "text": "none yet: made at the first start",
        "advice": "",
    }
    assert done.returncode == 1
    assert doctor(environment | {"EDBJOBS_DEMO_SOLVER": "1"}, "--state-dir", str(tmp_path / "state")).returncode == 0
    assert not (tmp_path / "state").exists()


def test_a_bad_setting_is_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    done = doctor(environment | {"EDBJOBS_GRPC": "nowhere"}, "--state-dir", str(tmp_path))
    assert done.returncode != 0
    assert "EDBJOBS_GRPC" in done.stderr
    assert "Traceback" not in done.stderr


def test_rebuild(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "state").mkdir(0o700)
    (tmp_path / "state" / "store.db").write_bytes(b"broken" * 1000)
    done = doctor(environment, "--state-dir", str(tmp_path / "state"), "--rebuild")
    assert done.returncode == 0, done.stderr
    assert "0 jobs in the new store" in done.stdout
    again = doctor(environment, "--state-dir", str(tmp_path / "state"), "--rebuild")
    assert again.returncode != 0
    assert "is whole" in again.stderr


def test_clusters(tmp_path: Path, environment: dict[str, str]) -> None:
    """One that was named and is not there keeps the service from starting; one that is silent does not."""
    tools = tmp_path / "tools"
    tools.mkdir()
    here = environment | {"EDBJOBS_SCHEDULER": "lsf", "PATH": str(tools), "EDBJOBS_DEMO_SOLVER": "1"}
    state = ("--state-dir", str(tmp_path / "state"))

    def found(**more: str) -> dict[str, dict[str, str]]:
        return {check["name"]: check for check in json.loads(doctor(here | more, *state, "--json").stdout)}

    assert found()["clusters"]["status"] == "fail"
    assert "bsub" in found()["clusters"]["text"]
    for name in ("sbatch", "squeue", "scontrol"):
        (tools / name).write_text("#!/bin/sh\necho slurm_load_ctl: Unable to contact slurm controller >&2; exit 1\n")
        (tools / name).chmod(0o755)
    silent = found(EDBJOBS_SCHEDULER="auto")
    assert silent["slurm"]["status"] == "warn"
    assert "Unable to contact slurm controller" in silent["slurm"]["text"]
    assert "NO_SHARED_DIR" in silent["shared folder"]["text"]
    (tools / "scontrol").write_text("#!/bin/sh\necho 'Slurmctld(primary) at c is UP'; echo 'slurm 23.11.4'\n")
    answers = found(EDBJOBS_SCHEDULER="slurm", EDBJOBS_SHARED_DIR=str(tmp_path / "shared"))
    assert (answers["slurm"]["status"], answers["slurm"]["text"]) == ("ok", "slurm 23.11.4 answers")
    assert answers["shared folder"]["status"] == "ok"
    assert found(EDBJOBS_SCHEDULER="none")["clusters"]["text"].startswith("off")
