from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs.config import (
    DesignMode,
    EndReason,
    ExistingResults,
    JobConfig,
    LayoutOptions,
    Machine,
    RetryOptions,
    SchedulerOptions,
    SchedulerPriority,
    field_errors,
    make_job_id,
    total_cores,
)
from edbjobs.v1 import job_config_pb2 as pb
from google.protobuf.descriptor import FieldDescriptor
from pydantic import ValidationError

GIB = 1024**3
NOT_READ = {"dependencies", "require_converged", "required_outputs", "exports"}  # of later releases
MODELS: list[tuple[Any, Any]] = [
    (pb.JobConfig, JobConfig),
    (pb.Machine, Machine),
    (pb.LayoutOptions, LayoutOptions),
    (pb.SchedulerOptions, SchedulerOptions),
    (pb.RetryOptions, RetryOptions),
]


def errors(**fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        JobConfig(**{"project_path": "/data/a.aedb", **fields})
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
    assert JobConfig(project_path=path).project_path == path


def test_a_folder_may_end_with_a_separator() -> None:
    assert JobConfig(project_path="/data/a.aedb/").project_path == "/data/a.aedb"


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
        ({"design": "{}"}, "design"),
        ({"setup": "{}"}, "setup"),
        ({"product": "{}"}, "product"),
        ({"aedt_path": "/{}"}, "aedt_path"),
        ({"scheduler": "{}"}, "scheduler"),
        ({"batch": "{}"}, "batch"),
        ({"labels": {"k": "{}"}}, "labels.k"),
        ({"environment": {"K": "{}"}}, "environment.K"),
        ({"batch_options": {"k": "{}"}}, "batch_options.k"),
        ({"scheduler_options": {"partition": "{}"}}, "scheduler_options.partition"),
        ({"scheduler_options": {"account": "{}"}}, "scheduler_options.account"),
        ({"scheduler_options": {"include_nodes": ["{}"]}}, "scheduler_options.include_nodes[0]"),
        ({"scheduler_options": {"extra": {"k": "{}"}}}, "scheduler_options.extra.k"),
        ({"layout_options": {"temp_directory": "/{}"}}, "layout_options.temp_directory"),
        ({"machines": [{"hostname": "{}"}]}, "machines[0].hostname"),
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


@pytest.mark.parametrize("name", ["-a", ".a", "a b", "a/b", "a" * 64, "ä", "a\n"])
def test_names_of_batches_have_one_form(name: str) -> None:
    assert "1 to 63 letters" in errors(batch=name)["batch"]


@pytest.mark.parametrize("name", ["-ng", "a:Nominal:b", "a'b", 'a"b'])
def test_the_text_after_batchsolve_cannot_become_an_option_or_another_selector(name: str) -> None:
    assert "'-'" in errors(design=name)["design"]


def test_a_batch_option_cannot_end_its_quotes() -> None:
    assert "quotes" in errors(batch_options={"a": "'1' 'b'='2'"})["batch_options.a"]


@pytest.mark.parametrize("name", ["1A", "A-B", "A=B", ""])
def test_environment_names_have_one_form(name: str) -> None:
    assert "variable's name" in errors(environment={name: "x"})[f"environment.{name}"]


@pytest.mark.parametrize(
    ("field", "where"),
    [
        ({"cores": True}, "cores"),
        ({"cores": 0}, "cores"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"memory_bytes": 2**61}, "memory_bytes"),
        ({"time_limit": -1}, "time_limit"),
        ({"time_limit": True}, "time_limit"),
        ({"time_limit": 367 * 86_400}, "time_limit"),
        ({"cancel_grace_period": 3601}, "cancel_grace_period"),
        ({"license_wait_limit": 0, "wait_for_license": True}, "license_wait_limit"),
        ({"scheduler_wait_limit": 0}, "scheduler_wait_limit"),
        ({"licenses": {"anshpc": -1}}, "licenses.anshpc"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
        ({"retry": {"max_attempts": 101}}, "retry.max_attempts"),
        ({"retry": {"reasons": ["normal"]}}, "retry.reasons"),
        ({"retry": {"reasons": ["cancelled"]}}, "retry.reasons"),
        ({"retry": {"initial_delay": -1}}, "retry.initial_delay"),
        ({"not_before_time": datetime(2026, 1, 1)}, "not_before_time"),
        ({"labels": {f"k{n}": "" for n in range(65)}}, "labels"),
        ({"labels": {"k": "x" * 256}}, "labels.k"),
        ({"aedt_version": "latest"}, "aedt_version"),
        ({"machines": [{"memory_percent": 0}]}, "machines[0].memory_percent"),
        ({"machines": [{"memory_percent": 101}]}, "machines[0].memory_percent"),
        ({"machines": [{"cores": 0}]}, "machines[0].cores"),
        ({"scheduler_options": {"nodes": 0}}, "scheduler_options.nodes"),
        ({"scheduler_options": {"tasks_per_node": 0}}, "scheduler_options.tasks_per_node"),
        ({"scheduler_options": {"cores_per_node": 0}}, "scheduler_options.cores_per_node"),
        ({"scheduler_options": {"memory_bytes_per_node": 0}}, "scheduler_options.memory_bytes_per_node"),
        ({"scheduler_options": {"cores_per_node": 2, "tasks_per_node": 3}}, "scheduler_options.tasks_per_node"),
        ({"scheduler_options": {"include_nodes": ["n1 n2"]}}, "scheduler_options.include_nodes[0]"),
        ({"scheduler_options": {"licenses": {"hfss": 0}}}, "scheduler_options.licenses.hfss"),
        ({"scheduler_options": {"email": "a@b,c@d"}}, "scheduler_options.email"),
        ({"scheduler_options": {"priority": "urgent"}}, "scheduler_options.priority"),
        ({"design_mode": "Parametric"}, "design_mode"),
        ({"time_limt": 1}, "time_limt"),
        # what is valid by itself
        ({"setup": "Setup1"}, "design"),
        ({"design_mode": "optimetrics"}, "design"),
        ({"license_wait_limit": 60}, "license_wait_limit"),
        ({"license_wait_limit": 60, "wait_for_license": False}, "license_wait_limit"),
        ({"scheduler": "slurm", "cores": 4}, "cores"),
        ({"scheduler": "slurm", "memory_bytes": 0}, "memory_bytes"),
        ({"scheduler": "slurm", "machines": [{}]}, "machines"),
        ({"batch_options": {"HFSS/X": "1", "hfss/x": "2"}}, "batch_options"),
        (
            {
                "layout_options": {"enable_gpu": False},
                "batch_options": {"hfss 3d layout design/enablegpu": "1"},
            },
            "batch_options.hfss 3d layout design/enablegpu",
        ),
        (
            {"layout_options": {"temp_directory": "/t"}, "batch_options": {"TempDirectory": "/u"}},
            "batch_options.TempDirectory",
        ),
    ],
)
def test_values_out_of_range_are_refused_by_field(field: dict[str, Any], where: str) -> None:
    assert where in errors(**field)


def test_labels_have_4_kib_together() -> None:
    labels = {f"k{number:03}": "x" * 252 for number in range(16)}  # 256 bytes each
    assert JobConfig(project_path="/a.aedb", labels=labels).labels == labels
    assert "4096 bytes" in errors(labels={**labels, "k": ""})["labels"]
    assert "4096 bytes" in errors(labels={**labels, "k000": "x" * 251 + "ü"})["labels"]  # bytes, not characters


def test_a_missing_project_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        JobConfig.model_validate({})
    assert field_errors(caught.value, "config") == {"config.project_path": "is required"}


def test_machine_list_form_is_tasks_cores_ram_gpus() -> None:
    assert Machine().aedt() == "localhost:1:1:90%"
    assert Machine(cores=8, tasks=2).aedt() == "localhost:2:8:90%"
    assert Machine(hostname="n1", cores=48, memory_percent=80, gpus=1).aedt() == "n1:1:48:80%:1"
    assert str(Machine(hostname="n1", cores=4, tasks=-1, gpus=0)) == "n1:-1:4:90%:0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cores": 9, "max_cores": 8}, "more than max_cores"),
        ({"cores": 21, "max_cores": 20}, "more than max_cores"),
        ({"cores": 2, "tasks": 3}, "more than cores"),
        ({"tasks": 2}, "more than cores"),
        ({"tasks": 0}, "at least 1"),
    ],
)
def test_inconsistent_machines_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Machine(**fields)
    assert message in str(field_errors(caught.value))


def test_total_cores() -> None:
    assert total_cores(JobConfig(project_path="/a.aedb")) == 1
    machines = (Machine(cores=4), Machine(hostname="b"), Machine(hostname="c", cores=8, tasks=2))
    assert total_cores(JobConfig(project_path="/a.aedb", machines=machines)) == 13
    assert total_cores(JobConfig(project_path="/a.aedb", machines=machines, cores=3)) == 3


def test_ids_do_not_collide() -> None:
    assert len({make_job_id() for _ in range(10_000)}) == 10_000
    JobConfig(project_path="/a.aedb", batch=make_job_id("x" * 32))
    with pytest.raises(ValueError, match="longer than 32"):
        make_job_id("x" * 33)


def test_models_are_frozen() -> None:
    config = JobConfig(project_path="/a.aedb")
    with pytest.raises(ValidationError, match="frozen"):
        config.cores = 3


LOCAL = JobConfig(
    project_path="/data/a.aedb",
    design="main",
    setup="S 1",
    design_mode=DesignMode.OPTIMETRICS,
    aedt_version="2025.2",
    aedt_path="/opt/ansysedt",
    product="HFSS 3D Layout Design",
    machines=(Machine(hostname="n1", cores=8, max_cores=16, tasks=2, gpus=0), Machine()),
    cores=16,
    memory_bytes=GIB,
    licenses={"anshpc": 8, "hfss": 0},
    time_limit=timedelta(hours=20),
    cancel_grace_period=timedelta(seconds=5),
    distributed=True,
    auto_settings=False,
    non_graphical=False,
    monitor=False,
    layout_options=LayoutOptions(enable_gpu=False, mpi_vendor="Open MPI", temp_directory="/scratch/x"),
    batch_options={"HPCLicenseType": "pool"},
    environment={"ANSYSLMD_LICENSE_FILE": "1055@srv"},
    wait_for_license=True,
    license_wait_limit=timedelta(minutes=5),
    scheduler_wait_limit=timedelta(hours=1),
    not_before_time=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
    retry=RetryOptions(max_attempts=3, reasons=(EndReason.LOST,), initial_delay=timedelta(seconds=0.5)),
    existing_results=ExistingResults.CLEAR,
    batch="b1",
    labels={"k": "v"},
)
CLUSTER = JobConfig(
    project_path="/data/a.aedb",
    scheduler="slurm",
    time_limit=timedelta(0),
    scheduler_options=SchedulerOptions(
        partition="gpu",
        nodes=2,
        tasks_per_node=2,
        cores_per_node=8,
        memory_bytes_per_node=64 * GIB,
        gpus_per_node=1,
        gpu_type="a100",
        exclusive=False,
        constraint="[a|b]",
        include_nodes=("n[1-3,7]", "m1"),
        exclude_nodes=("n2",),
        account="p1",
        qos="long",
        reservation="maint",
        priority=SchedulerPriority.HIGHEST,
        licenses={"hfss@srv": 2},
        wckey="w",
        email="ann@example.com",
        comment="for the night",
        run_as_administrator=False,
        extra={"hint": "x y"},
    ),
)
SMALL = JobConfig(project_path="/data/a.aedb")


def zero(field: FieldDescriptor) -> Any:
    """Return the value of an optional field that proto3 would not tell from an absent one."""
    if field.message_type is not None:
        return timedelta(0)
    return False if field.type == FieldDescriptor.TYPE_BOOL else 0


OPTIONAL = [
    (message, model, field)
    for message, model in MODELS
    for field in message.DESCRIPTOR.fields
    if field.name not in NOT_READ
    and field.has_presence
    and (field.message_type is None or field.message_type.name == "Duration")
]


@pytest.mark.parametrize(
    ("message", "model", "field"), OPTIONAL, ids=[f"{model.__name__}.{field.name}" for _, model, field in OPTIONAL]
)
def test_zero_counts_or_is_refused_and_is_never_the_same_as_absent(message: Any, model: Any, field: Any) -> None:
    from edbjobs._config_message import _write, read_message

    given: dict[str, Any] = {"project_path": "/a.aedb"} if model is JobConfig else {}
    absent = _write(model(**given), message)
    assert not absent.HasField(field.name)
    assert getattr(model(**{**given, **read_message(absent)}), field.name) is None
    wrong: dict[str, str] = {}
    try:
        made = model(**given, **{field.name: zero(field)})
    except ValidationError as refused:
        wrong = field_errors(refused)
    if wrong:
        assert field.name in str(wrong)
        return
    sent = _write(made, message)
    assert sent.HasField(field.name)
    assert model.model_validate(read_message(message.FromString(sent.SerializeToString()))) == made
    again = model.model_validate(json.loads(made.model_dump_json(exclude_defaults=True)))
    assert getattr(again, field.name) == zero(field)


@pytest.mark.parametrize("config", [SMALL, LOCAL, CLUSTER])
def test_configurations_round_trip(config: JobConfig) -> None:
    assert JobConfig.from_message(config.to_message()) == config
    assert JobConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_small_config_makes_a_small_message() -> None:
    assert [field.name for field, _ in SMALL.to_message().ListFields()] == ["project_path"]
    assert SMALL.to_dict() == {"project_path": "/data/a.aedb"}


def test_what_is_empty_is_not_set() -> None:
    config = JobConfig(project_path="/a.aedb", design="", labels={}, machines=(), scheduler_options=SchedulerOptions())
    assert [field.name for field, _ in config.to_message().ListFields()] == ["project_path"]
    assert JobConfig.from_dict(
        {"project_path": "/a.aedb", "cores": None, "retry": {"max_attempts": None}}
    ) == JobConfig(project_path="/a.aedb", retry=RetryOptions())


def test_retry_options_without_values_are_retry_options() -> None:
    message = JobConfig(project_path="/a.aedb", retry=RetryOptions(), machines=(Machine(),)).to_message()
    assert message.HasField("retry")
    assert len(message.machines) == 1
    assert JobConfig.from_message(message).retry == RetryOptions()


@pytest.mark.parametrize(("text", "seconds"), [("7200s", 7200), ("0.5s", 0.5), ("PT2H", 7200), ("02:00:00", 7200)])
def test_durations_are_read_in_their_json_form_too(text: str, seconds: float) -> None:
    config = JobConfig.from_dict({"project_path": "/a.aedb", "time_limit": text})
    assert config.time_limit == timedelta(seconds=seconds)
    assert config.to_dict()["time_limit"] == seconds


def test_every_field_of_the_contract_is_a_field_of_a_model() -> None:
    for message, model in MODELS:
        names = {field.name for field in message.DESCRIPTOR.fields}
        assert names - NOT_READ == set(model.model_fields)


def test_fields_of_a_later_release_are_no_error_of_the_model() -> None:
    message = SMALL.to_message()
    message.require_converged = True
    message.required_outputs.append("*.s2p")
    message.exports.add()
    message.dependencies.add()
    assert JobConfig.from_message(message) == SMALL


@pytest.mark.parametrize("field", ["design_mode", "existing_results", "scheduler_options.priority"])
def test_a_value_of_a_newer_client_is_refused_not_dropped(field: str) -> None:
    message = SMALL.to_message()
    *folder, name = field.split(".")
    setattr(message.scheduler_options if folder else message, name, 99)
    with pytest.raises(ValidationError) as caught:
        JobConfig.from_message(message)
    assert field in field_errors(caught.value)


def test_times_out_of_range_are_refused_by_field() -> None:
    message = SMALL.to_message()
    message.not_before_time.seconds = 2**62
    message.time_limit.seconds = 2**62
    message.retry.reasons.append(99)  # type: ignore[arg-type]
    with pytest.raises(ValidationError) as caught:
        JobConfig.from_message(message)
    assert {"not_before_time", "time_limit", "retry.reasons"} <= set(field_errors(caught.value))
