from __future__ import annotations

import inspect
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from edbjobs import JobConfig, RetryOptions
from edbjobs.cli._app import PANELS, command_name
from edbjobs.cli._batch import batch_name
from edbjobs.cli._options import job_dict, pairs

COMMANDS = (
    "serve",
    "up",
    "down",
    "submit",
    "batch",
    "list",
    "show",
    "watch",
    "logs",
    "cancel",
    "hold",
    "release",
    "priority",
    "retry",
    "delete",
    "limits",
    "resources",
    "queue",
    "solvers",
    "status",
    "preview",
    "doctor",
    "demo",
    "partitions",
    "cluster-jobs",
)
NOTHING: dict[str, Any] = {
    "cores": None,
    "memory": None,
    "design": None,
    "setup": None,
    "aedt_version": None,
    "time_limit": None,
    "fields": None,
    "config": None,
}


def edbjobs(*arguments: str, program: tuple[str, ...] = ("-m", "edbjobs")) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_every_command_exists_and_documents_its_exit_codes() -> None:
    found = {command_name(command): command for commands in PANELS.values() for command in commands}
    assert sorted(found) == sorted(COMMANDS)
    done = edbjobs("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)
    assert "Exit codes" in done.stdout
    assert "Exit codes" in edbjobs("list", "--help").stdout


def test_every_command_can_write_json_but_serve_which_writes_nothing() -> None:
    for commands in PANELS.values():
        for command in commands:
            assert ("json" in inspect.signature(command).parameters) == (command.__name__ != "serve")


def test_help_loads_neither_grpc_nor_pydantic() -> None:
    code = (
        "import sys; sys.argv = ['edbjobs', '--help']\n"
        "from edbjobs.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('grpc', 'pydantic', 'google', 'edbjobs_server') if m in sys.modules])"
    )
    assert edbjobs(program=("-c", code)).stdout.splitlines()[-1] == "[]"


def test_completion_can_be_had() -> None:
    done = edbjobs("--show-completion", "bash")
    assert done.returncode == 0
    assert "edbjobs" in done.stdout


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        ("typer", ["list"], 'pip install "edbjobs[cli]"'),
        ("rich", ["list"], 'pip install "edbjobs[cli]"'),
        ("structlog", ["serve"], 'pip install "edbjobs[cli,server]"'),
    ],
)
def test_a_missing_extra_is_reported_with_the_fix(missing: str, arguments: list[str], message: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from edbjobs.cli import main; main()"
    done = edbjobs(*arguments, program=("-c", code))
    assert done.returncode == 2
    assert message in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["submit"], ["submit", "a.aedt", "--cores", "many"], ["cancel"], ["queue", "--pause", "--resume"]],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert edbjobs(*arguments).returncode == 2


def test_an_invalid_config_is_reported_by_field_before_anything_is_sent() -> None:
    done = edbjobs("submit", "/x/a.aedt", "--set", "cancel_grace_period=4000", "--target", "127.0.0.1:1")
    assert done.returncode == 2
    assert "cancel_grace_period" in done.stderr
    done = edbjobs("submit", "/x/a.aedt", "--set", "nonsense=1", "--json", "--target", "127.0.0.1:1")
    assert json.loads(done.stdout)["error"]["fields"] == {"nonsense": "is not a field of the configuration"}


def test_an_unreachable_service_exits_with_2_and_shows_the_fix() -> None:
    done = edbjobs("list", "--target", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "edbjobs up" in done.stderr
    done = edbjobs("list", "--target", "127.0.0.1:1", "--json")
    assert json.loads(done.stdout)["error"]["reason"] == "UNREACHABLE"
    assert edbjobs("list", "--target", "nonsense").returncode == 2


def config_of(**given: Any) -> JobConfig:
    return JobConfig.from_dict({**job_dict(**{**NOTHING, **given}), "project_path": "/x/a.aedt"})


def test_options_make_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    base = JobConfig(
        project_path="/x/a.aedt", cores=2, labels={"a": "1"}, design="D", setup="S", time_limit=timedelta(0)
    )
    file.write_text(json.dumps(base.to_dict()))
    fields = ["layout_options.mpi_vendor=Intel", "auto_settings=true", "batch_options.HPCLicenseType=pool", "retry={}"]
    config = config_of(cores=8, memory="2GB", fields=fields, config=file, labels=["b=2"], batch="b1")
    assert (config.cores, config.memory_bytes, config.setup, config.batch) == (8, 2 * 1024**3, "S", "b1")
    assert config.labels == {"a": "1", "b": "2"}
    assert config.time_limit == timedelta(0)
    assert config.layout_options.mpi_vendor == "Intel"
    assert (config.auto_settings, config.retry) == (True, RetryOptions())
    assert config.batch_options == {"HPCLicenseType": "pool"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("1.5h", 5400), ("90m", 5400), ("2d", 172_800), ("1:30", 5400), ("1:30:10", 5410),
     ("1-02:00:00", 93_600)],
)  # fmt: skip
def test_a_time_limit_has_a_unit(text: str, seconds: float) -> None:
    assert config_of(time_limit=text).time_limit == timedelta(seconds=seconds)


def test_what_is_not_given_is_absent_and_0_is_not() -> None:
    sent = config_of().to_message()
    assert [field.name for field, _ in sent.ListFields()] == ["project_path"]
    sent = config_of(memory="0", time_limit="0", fields=["monitor=false", 'machines=[{"gpus": 0}]']).to_message()
    assert (sent.HasField("memory_bytes"), sent.HasField("time_limit"), sent.HasField("monitor")) == (True, True, True)
    assert sent.machines[0].HasField("gpus")
    with pytest.raises(ValueError, match="cores"):
        config_of(cores=0)


@pytest.mark.parametrize(
    ("option", "text"), [("memory", "much"), ("memory", "-1"), ("time_limit", "soon"), ("time_limit", "1:2:3:4")]
)
def test_sizes_and_times_are_checked(option: str, text: str) -> None:
    with pytest.raises(typer.Exit):
        job_dict(**{**NOTHING, option: text})


@pytest.mark.parametrize("text", ["novalue", "=x"])
def test_pairs_have_a_key_and_a_value(text: str) -> None:
    with pytest.raises(typer.Exit):
        pairs([text], "--label")
    assert pairs(["a=b=c", "d="], "--label") == {"a": "b=c", "d": ""}


@pytest.mark.parametrize("name", ["board", "my boards & more", "-", "x" * 100])
def test_a_batch_has_a_name_that_no_other_has(name: str) -> None:
    made = {batch_name(Path("/d") / name) for _ in range(100)}
    assert len(made) == 100
    JobConfig(project_path="/x/a.aedt", batch=made.pop())
