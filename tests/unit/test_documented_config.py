from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs._enums import EndReason
from edbjobs_server.gateway.documented.config import (
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    RetryPolicy,
    SchedulerOptions,
    SchedulerType,
    field_errors,
)
from pydantic import ValidationError


def errors(**fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        HFSSSimulationConfig(**{"project_path": "/data/a.aedb", **fields})
    return field_errors(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "/data/a.aedb",
        "/data/a.AEDT",
        "/d/a.aedtz",
        "C:\\work\\a.aedb",
        "d:/work/a.aedt",
        "\\\\srv\\share\\a.aedb",
    ],
)
def test_paths_absolute_on_either_system_are_accepted(path: str) -> None:
    assert HFSSSimulationConfig(project_path=path).project_path == path


def test_a_folder_may_end_with_a_separator() -> None:
    assert HFSSSimulationConfig(project_path="/data/a.aedb/").project_path == "/data/a.aedb"


@pytest.mark.parametrize("path", ["a.aedb", "C:a.aedb", "./a.aedt", "~/a.aedt"])
def test_relative_paths_are_refused(path: str) -> None:
    assert "absolute" in errors(project_path=path)["project_path"]


def test_other_files_are_refused() -> None:
    assert ".aedt" in errors(project_path="/etc/passwd")["project_path"]


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\x00b", "a\x1bb", "a\x85b", "a\u2028b", "a\n"])
@pytest.mark.parametrize(
    ("field", "where"),
    [
        ({"project_path": "/d/{}.aedb"}, "project_path"),
        ({"design_name": "{}"}, "design_name"),
        ({"setup_name": "{}"}, "setup_name"),
        ({"solver": "{}"}, "solver"),
        ({"ansys_edt_path": "/{}"}, "ansys_edt_path"),
        ({"user": "{}"}, "user"),
        ({"batch": "{}"}, "batch"),
        ({"labels": {"k": "{}"}}, "labels.k"),
        ({"environment": {"K": "{}"}}, "environment.K"),
        ({"batch_options": {"k": "{}"}}, "batch_options.k"),
        ({"scheduler_options": {"queue": "{}"}}, "scheduler_options.queue"),
        ({"scheduler_options": {"account": "{}"}}, "scheduler_options.account"),
        ({"scheduler_options": {"nodelist": "{}"}}, "scheduler_options.nodelist"),
        ({"scheduler_options": {"extra": {"k": "{}"}}}, "scheduler_options.extra.k"),
        ({"layout_options": {"temp_directory": "/{}"}}, "layout_options.temp_directory"),
        ({"machine_nodes": [{"hostname": "{}"}]}, "machine_nodes[0].hostname"),
    ],
)
def test_no_text_may_hold_line_breaks_or_control_characters(field: dict[str, Any], where: str, bad: str) -> None:
    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value.replace("{}", bad)

    assert where in errors(**fill(field))


@pytest.mark.parametrize("jobid", ["-a", ".a", "a b", "a/b", "a" * 64, "ä", "a\n"])
def test_ids_have_one_form(jobid: str) -> None:
    assert "1 to 63 letters" in errors(jobid=jobid)["jobid"]


@pytest.mark.parametrize("name", ["-ng", "a:Nominal:b", "a'b", 'a"b'])
def test_the_text_after_batchsolve_cannot_become_an_option_or_another_selector(name: str) -> None:
    assert "'-'" in errors(design_name=name)["design_name"]


def test_a_batch_option_cannot_end_its_quotes() -> None:
    assert "quotes" in errors(batch_options={"a": "'1' 'b'='2'"})["batch_options.a"]


@pytest.mark.parametrize("name", ["1A", "A-B", "A=B", ""])
def test_environment_names_have_one_form(name: str) -> None:
    assert "variable's name" in errors(environment={name: "x"})[f"environment.{name}"]


@pytest.mark.parametrize(
    ("field", "where"),
    [
        ({"cores": True}, "cores"),
        ({"cores": -1}, "cores"),
        ({"memory_mib": 2**50}, "memory_mib"),
        ({"wall_clock_limit": 0}, "wall_clock_limit"),
        ({"wall_clock_limit": True}, "wall_clock_limit"),
        ({"cancel_grace": 3601}, "cancel_grace"),
        ({"licenses": {"anshpc": -1}}, "licenses.anshpc"),
        ({"retry": {"max_attempts": 101}}, "retry.max_attempts"),
        ({"retry": {"reasons": ["nothing"]}}, "retry.reasons[0]"),
        ({"not_before": datetime(2026, 1, 1)}, "not_before"),
        ({"labels": {f"k{n}": "" for n in range(65)}}, "labels"),
        ({"labels": {"k": "x" * 256}}, "labels.k"),
        ({"aedt_version": "latest"}, "aedt_version"),
        ({"machine_nodes": [{"utilization": 0}]}, "machine_nodes[0].utilization"),
        ({"machine_nodes": [{"utilization": 101}]}, "machine_nodes[0].utilization"),
        ({"scheduler_options": {"email_notification": "a@b,c@d"}}, "scheduler_options.email_notification"),
        ({"scheduler_options": {"memory": "lots"}}, "scheduler_options.memory"),
        ({"scheduler_options": {"time": "1h; rm -rf"}}, "scheduler_options.time"),
        ({"scheduler_type": "cray"}, "scheduler_type"),
        ({"wall_clock_limt": 1}, "wall_clock_limt"),
    ],
)
def test_values_out_of_range_are_refused_by_field(field: dict[str, Any], where: str) -> None:
    assert where in errors(**field)


def test_a_missing_project_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        HFSSSimulationConfig.model_validate({})
    assert field_errors(caught.value, "config") == {"config.project_path": "is required"}


def test_machine_list_form_is_tasks_cores_ram_gpus() -> None:
    assert str(MachineNode(cores=8, tasks=2)) == "localhost:2:8:90%"
    assert str(MachineNode(hostname="n1", cores=48, gpus=1)) == "n1:1:48:90%:1"
    assert str(MachineNode(hostname="n1", cores=4, tasks=-1, gpus=0)) == "n1:-1:4:90%:0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cores": 9, "max_cores": 8}, "more than max_cores"),
        ({"cores": 2, "tasks": 3}, "more than cores"),
        ({"tasks": 0}, "at least 1"),
    ],
)
def test_inconsistent_machines_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MachineNode(**fields)
    assert message in str(field_errors(caught.value))


def test_documented_machine_defaults_do_no_harm() -> None:
    # 20 is the default of max_cores; a host with 64 cores must not be refused because of it.
    assert MachineNode(cores=64).cores == 64
    assert MachineNode(cores=-1).cores == 1
    assert MachineNode(cores=-1, max_cores=64).cores == 64


def test_models_are_frozen() -> None:
    config = HFSSSimulationConfig(project_path="/a.aedb")
    with pytest.raises(ValidationError, match="frozen"):
        config.cores = 3


FULL = HFSSSimulationConfig(
    project_path="/data/a.aedb",
    jobid="j1",
    user="ann",
    ansys_edt_path="/opt/ansysedt",
    aedt_version="2025.2",
    design_name="main",
    design_mode="Optimetrics",
    setup_name="S 1",
    machine_nodes=(MachineNode(hostname="n1", cores=8, max_cores=16, tasks=2, gpus=0), MachineNode()),
    distributed=True,
    auto=False,
    non_graphical=False,
    monitor=False,
    layout_options=HFSS3DLayoutBatchOptions(enable_gpu=False, mpi_vendor="Open MPI", temp_directory="/scratch/x"),
    scheduler_type=SchedulerType.SLURM,
    scheduler_options=SchedulerOptions(
        queue="gpu",
        nodes=2,
        memory="64GB",
        account="p1",
        gpus=1,
        licenses=("hfss:2",),
        extra={"comment": "x y"},
        comment="for the night",
    ),
    cores=16,
    memory_mib=1024,
    licenses={"anshpc": 8},
    environment={"ANSYSLMD_LICENSE_FILE": "1055@srv"},
    wall_clock_limit=timedelta(hours=20),
    cancel_grace=timedelta(seconds=5),
    retry=RetryPolicy(max_attempts=3, reasons=(EndReason.LOST,), initial_backoff=timedelta(seconds=0.5)),
    wait_for_license=True,
    license_wait_limit=timedelta(minutes=5),
    scheduler_wait_limit=timedelta(hours=1),
    existing_results="clear",  # type: ignore[arg-type]
    not_before=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
    labels={"k": "v"},
    batch="b1",
    batch_options={"HPCLicenseType": "pool"},
)
SMALL = HFSSSimulationConfig(project_path="/data/a.aedb")


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        FULL,
        SMALL.model_copy(update={"auto": True, "distributed": True}),
        SMALL.model_copy(update={"auto": False, "distributed": False}),
        SMALL.model_copy(update={"machine_nodes": (MachineNode(),)}),
        SMALL.model_copy(
            update={"layout_options": HFSS3DLayoutBatchOptions(temp_directory="/tmp", mpi_vendor="Intel")}
        ),
    ],
)
def test_configs_round_trip_through_json(config: HFSSSimulationConfig) -> None:
    assert HFSSSimulationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_three_documented_defaults_count_as_not_set() -> None:
    options = SchedulerOptions(queue="", time="", memory="")
    assert options == SchedulerOptions(queue="default", time="24:00:00", memory="4GB") == SchedulerOptions()
    assert [options.asked(name) for name in ("queue", "time", "memory")] == ["", "", ""]
    assert SchedulerOptions(memory="4096MB").asked("memory") == "4096MB"
