"""The commands for jobs against the real service with the demo solver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.solver.demo import example_project
from support.service import ServiceProcess

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("cli"), max_local_jobs=4, max_cores=8) as running:
        running.environment["ANS_EDBJOBS_DEMO"] = "seconds=0.2"
        yield running


@pytest.fixture
def edbjobs(service: ServiceProcess) -> Run:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "edbjobs", *arguments],
            env={**os.environ, "EDBJOBS_RUNTIME_DIR": str(service.runtime_dir)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done
        return done

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return example_project(tmp_path)


FAST = ("--set", "environment.ANS_EDBJOBS_DEMO=seconds=0.2")


def parse_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_a_solve_from_submit_to_delete(edbjobs: Run, project: Path) -> None:
    done = edbjobs("submit", str(project), "--id", "one", "--wait", "--label", "k=v", *FAST)
    assert done.stdout.startswith("one: completed: Setup1: normal completion")
    assert done.stderr.splitlines()[-1] == done.stdout.rstrip()
    shown = edbjobs("show", "one").stdout
    assert "the solver's own log" in shown
    assert "the demo solver" in shown
    job = parse_json(edbjobs("show", "one", "--json"))
    assert (job["state"], job["config"]["labels"], job["demo"]) == ("completed", {"k": "v"}, True)
    assert job["attempts"][0]["run_directory"] in shown
    assert (job["outcome"]["evidence"], job["waiting"], job["view"]) == ("solver_log", None, "full")
    assert edbjobs("logs", "one", "-n", "1").stdout.startswith("Stopping Batch Run")
    assert "Normal completion" in edbjobs("logs", "one", "-f").stdout
    assert json.loads(edbjobs("logs", "one", "-n", "1", "--json").stdout)["text"].startswith("Stopping Batch Run")
    assert [job["id"] for job in parse_json(edbjobs("list", "--label", "k=v", "--json"))] == ["one"]
    assert "completed" in edbjobs("list", "--label", "k=v").stdout
    assert edbjobs("retry", "one", "--wait").stdout.startswith("one: completed")
    assert "deleted" in edbjobs("delete", job["uid"]).stdout
    edbjobs("show", job["uid"], code=1)


def test_a_failed_solve_exits_with_1_and_shows_the_reason(edbjobs: Run, project: Path) -> None:
    fail = ("--set", "environment.ANS_EDBJOBS_DEMO=seconds=0.2,fail=license")
    done = edbjobs("submit", str(project), "--id", "bad", "--wait", *fail, code=1)
    assert done.stdout.startswith("bad: failed (license)")
    assert "FlexNet" in edbjobs("show", "bad").stdout or "licen" in edbjobs("show", "bad").stdout


def test_what_the_service_refuses_is_1_and_names_the_field(edbjobs: Run, tmp_path: Path) -> None:
    done = edbjobs("submit", str(tmp_path / "none.aedt"), code=1)
    assert "none.aedt" in done.stderr
    assert parse_json(edbjobs("submit", str(tmp_path / "none.aedt"), "--json", code=1))["error"]["reason"]


def test_held_jobs_are_released_moved_and_cancelled(edbjobs: Run, project: Path) -> None:
    edbjobs("submit", str(project), "--id", "held", "--hold", *FAST)
    assert "held" in edbjobs("list", "--state", "queued").stdout
    assert parse_json(edbjobs("priority", "held", "-5", "--json"))[0]["job"]["priority"] == -5
    assert edbjobs("release", "held").stdout.startswith("held: ")
    edbjobs("watch", "held")
    edbjobs("submit", str(project), "--id", "held2", "--hold")
    done = edbjobs("cancel", "held2", "nobody", code=1)
    assert "held2: cancelled" in done.stdout
    assert "nobody" in done.stderr
    assert parse_json(edbjobs("cancel", "held2", "--json"))[0]["job"]["state"] == "cancelled", "it is already"
    assert parse_json(edbjobs("cancel", "held", "--json", code=1))[0]["error"]["reason"] == "JOB_ENDED"


def test_a_folder_is_a_batch(edbjobs: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        example_project(tmp_path / name)
    done = edbjobs("batch", str(tmp_path), "-r", "--name", "b1", "--wait", *FAST)
    assert "batch b1: 2 submitted" in done.stdout
    assert done.stdout.count("completed: Setup1") == 2
    assert len(parse_json(edbjobs("list", "--batch", "b1", "--json"))) == 2
    assert "no .aedt" in edbjobs("batch", str(tmp_path), code=1).stderr
    assert "patch_antenna" in edbjobs("watch", "--batch", "b1").stdout


def test_a_pair_wants_a_word(edbjobs: Run, project: Path) -> None:
    database = project.with_suffix(".aedb")
    database.mkdir()
    os.utime(database, (project.stat().st_mtime + 10,) * 2)
    done = edbjobs("batch", str(project.parent), code=2)
    assert "--prefer" in done.stderr
    batch = parse_json(edbjobs("batch", str(project.parent), "--prefer", "aedt", "--hold", "--json"))
    assert [item["project"] for item in batch["results"]] == [str(project)]
    assert "1 job being cancelled" in edbjobs("cancel", "--batch", batch["batch"]).stdout


def test_watch_writes_events_as_json_lines(edbjobs: Run, project: Path) -> None:
    edbjobs("submit", str(project), "--id", "w1", *FAST)
    lines = [json.loads(line) for line in edbjobs("watch", "w1", "--json").stdout.splitlines()]
    events = [line for line in lines if "update" not in line]
    assert [event["revision"] for event in events] == sorted({event["revision"] for event in events})
    assert not lines or lines[-1]["job_change"]["type"] == "completed"
    assert all(event["job_change"]["job"]["config"]["project_path"] == str(project) for event in events)


def test_a_preview_runs_nothing(edbjobs: Run, project: Path) -> None:
    before = parse_json(edbjobs("list", "--all", "--json"))
    assert "-batchsolve" in edbjobs("preview", str(project), "--design", "Patch", "--setup", "Setup1").stdout
    assert parse_json(edbjobs("preview", str(project), "--cores", "2", "--json"))["argv"]
    assert len(parse_json(edbjobs("list", "--all", "--json"))) == len(before)


def test_host_and_queue(edbjobs: Run) -> None:
    assert "edbjobs" in edbjobs("status").stdout
    assert "processors" in edbjobs("resources").stdout
    assert parse_json(edbjobs("resources", "--json"))["cpu_count"] > 0
    assert "paused" in edbjobs("queue", "--pause").stdout
    assert parse_json(edbjobs("queue", "--resume", "--json"))["paused"] is False
    assert "demo solver" in edbjobs("solvers").stdout
    assert parse_json(edbjobs("solvers", "--json"))[0]["demo"] is True
    changed = edbjobs("limits", "--max-cpu-percent", "90", "--license", "hfss=3").stdout
    assert "closed above 90 %" in changed
    assert "hfss: 3" in changed
    assert parse_json(edbjobs("limits", "--max-cpu-percent", "0", "--json"))["max_cpu_percent"] == 0
    without = ("--remove", "max-cpu-percent", "--remove-license", "hfss")
    left = parse_json(edbjobs("limits", *without, "--json"))  # 0 lets nothing start, for the tests that follow either
    assert (left["max_cpu_percent"], left["licenses"]) == (None, {})
    edbjobs("limits", "--max-cpu-percent", "-1", code=1)
    edbjobs("limits", "--license", "hfss=many", code=2)


def test_tables_fit_80_columns_and_ids_are_whole(edbjobs: Run, project: Path) -> None:
    name = "a-rather-long-name-of-a-job-that-somebody-made-up-0123456789.x"
    edbjobs("submit", str(project), "--id", name, "--hold")
    listed = edbjobs("list", "-n", "1").stdout
    assert all(len(line) <= 80 for line in listed.splitlines())
    assert name in "".join(line.split()[0] for line in listed.splitlines()[1:])
    edbjobs("cancel", name)


def test_a_reader_that_leaves_is_no_error(service: ServiceProcess, edbjobs: Run, project: Path) -> None:
    edbjobs("submit", str(project), "--id", "pipe", "--wait", *FAST)
    command = f"{sys.executable} -m edbjobs logs pipe | head -n 1"
    environment = {**os.environ, "EDBJOBS_RUNTIME_DIR": str(service.runtime_dir)}
    done = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
