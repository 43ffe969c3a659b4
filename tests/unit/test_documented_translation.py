"""The documented configuration and the contract's are translated both ways by one table."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs._enums import DesignMode, EndReason, ExistingResults, SchedulerPriority
from edbjobs.config import JobConfig, LayoutOptions, Machine, RetryOptions
from edbjobs.config import SchedulerOptions as ContractOptions
from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.documented import scheduler_texts as texts
from edbjobs_server.gateway.documented.config import HFSSSimulationConfig
from edbjobs_server.gateway.documented.translation import (
    MODES,
    PRIORITIES,
    documented_field,
    documented_refusal,
    from_job_config,
    to_job_config,
)
from hypothesis import given
from hypothesis import strategies as st

GIB = 1024**3
NOW = datetime(2026, 3, 4, 15, 30, tzinfo=timezone.utc).astimezone()
CLUSTERS = ("slurm", "lsf", "pbs", "windows_hpc", "flux")


def documented(**values: Any) -> HFSSSimulationConfig:
    return HFSSSimulationConfig.from_dict({"project_path": "/p/a.aedt", **values})


def sent(scheduler: str, **values: Any) -> JobConfig:
    return to_job_config(documented(**values), scheduler, NOW)


def asked(scheduler: str = "slurm", fields: dict[str, Any] | None = None, **options: Any) -> ContractOptions:
    return sent(scheduler, scheduler_options=options, **(fields or {})).scheduler_options


def refused(scheduler: str, **values: Any) -> dict[str, str]:
    with pytest.raises(Refused) as caught:
        sent(scheduler, **values)
    assert caught.value.reason == "INVALID_JOB"
    return caught.value.fields


def shown(**values: Any) -> dict[str, Any]:
    return from_job_config(JobConfig(project_path="/p/a.aedt", **values)).to_dict()


# Words -------------------------------------------------------------------------------------------------------


def test_every_enum_value_has_its_documented_word() -> None:
    assert set(MODES) == set(DesignMode)
    assert set(PRIORITIES) == set(SchedulerPriority)
    for mode, word in MODES.items():
        config = sent("local", design_name="d", design_mode=word)
        assert config.design_mode is mode
        assert from_job_config(config).design_mode == word
    for priority, word in PRIORITIES.items():
        config = sent("slurm", scheduler_options={"priority": word})
        assert config.scheduler_options.priority is priority
        assert from_job_config(config).scheduler_options.priority == word
    for existing in ExistingResults:
        assert from_job_config(sent("local", existing_results=existing.value)).existing_results is existing


@pytest.mark.parametrize(
    ("scheduler", "name", "word"),
    [("none", "", "none"), ("", "", "none"), ("local", "local", "local"), ("flux", "flux", "flux"),
     *((name, name, name) for name in ("slurm", "lsf", "pbs", "windows_hpc"))],
)  # fmt: skip
def test_where_it_runs(scheduler: str, name: str, word: str) -> None:
    config = sent(scheduler)
    assert config.scheduler == name
    assert from_job_config(config).to_dict()["scheduler_type"] == word


# What is not set ---------------------------------------------------------------------------------------------


def test_documented_defaults_are_not_passed_on() -> None:
    plain = documented()
    config = to_job_config(HFSSSimulationConfig.from_dict(plain.to_dict()), "none")
    assert [field.name for field, _ in config.to_message().ListFields()] == ["project_path"]
    assert asked(nodes=1, queue="default", memory="4GB", time="24:00:00") == ContractOptions(
        priority=SchedulerPriority.NORMAL
    )
    assert asked("local") == ContractOptions()


def test_the_defaults_come_back() -> None:
    written = shown()
    assert (written["solver"], written["auto"], written["distributed"]) == ("Hfss3DLayout", True, True)
    assert (written["scheduler_options"]["queue"], written["scheduler_options"]["time"]) == ("default", "24:00:00")
    assert (written["scheduler_options"]["memory"], written["scheduler_options"]["priority"]) == ("4GB", "Normal")
    assert not {"explicit", "retry", "cores", "memory_mib", "wall_clock_limit"} & written.keys()


def test_another_product_is_passed_on() -> None:
    assert sent("local", solver="Hfss3DLayout").product == ""
    assert sent("local", solver="Hfss").product == "Hfss"
    assert shown(product="HFSS 3D Layout Design")["solver"] == "HFSS 3D Layout Design"


# Of this host ------------------------------------------------------------------------------------------------


def test_a_local_job_has_cores_memory_and_machines() -> None:
    nodes = [{"cores": 64}, {"hostname": "n2", "cores": 4, "max_cores": 8, "utilization": 80, "tasks": 2, "gpus": 0}]
    config = sent("local", cores=8, memory_mib=10, machine_nodes=nodes, wall_clock_limit=60)
    assert (config.cores, config.memory_bytes, config.time_limit) == (8, 10 << 20, timedelta(minutes=1))
    first, second = config.machines
    assert (first.max_cores, first.aedt()) == (None, "localhost:1:64:90%")  # 20 is no fact about the host
    assert (second.max_cores, second.aedt()) == (8, "n2:2:4:80%:0")
    assert sent("local", cores=0, memory_mib=0).cores is None
    assert shown(memory_bytes=(10 << 20) + 1, cores=3)["memory_mib"] == 11


def test_an_unlimited_local_job_has_no_documented_limit() -> None:
    assert "wall_clock_limit" not in shown(time_limit=0)
    assert shown(time_limit=90)["wall_clock_limit"] == 90.0


@pytest.mark.parametrize("name", ["auto", "distributed"])
def test_flags_of_a_local_job(name: str) -> None:
    field = {"auto": "auto_settings", "distributed": "distributed"}[name]
    assert getattr(sent("local", **{name: True}), field) is None  # the documented default, which nobody need have set
    assert getattr(sent("local", **{name: True, "explicit": [name]}), field) is True
    assert getattr(sent("local", **{name: False}), field) is False
    assert shown(**{field: True})["explicit"] == [name]


# Of a cluster ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fields", "cores"),
    [
        ({}, {}, None),
        ({"tasks_per_node": 4}, {}, None),
        ({"cores_per_node": 8, "tasks_per_node": 2}, {"cores": 96}, 8),
        ({"cores_per_node": 2, "tasks_per_node": 4}, {}, 4),
        ({"nodes": 3}, {"cores": 16}, 6),
        ({"nodes": 3, "tasks_per_node": 8}, {"cores": 16}, 8),
        ({"nodes": 2}, {"machine_nodes": [{"cores": 8}, {"hostname": "b", "cores": 9}]}, 9),
    ],
)
def test_cores_of_a_cluster_job_are_shared_out(
    options: dict[str, Any], fields: dict[str, Any], cores: int | None
) -> None:
    config = sent("slurm", scheduler_options=options, **fields)
    assert config.scheduler_options.cores_per_node == cores
    assert (config.cores, config.machines, config.memory_bytes) == (None, (), None)


@given(st.integers(1, 2**40), st.integers(1, 1000))
def test_shares_of_memory_add_up_to_what_the_job_declares(memory: int, nodes: int) -> None:
    share = asked(nodes=nodes, fields={"memory_mib": memory}).memory_bytes_per_node
    assert share is not None
    assert 0 <= share * nodes - (memory << 20) < nodes << 20


def test_memory_of_the_options_comes_first() -> None:
    assert asked(memory="2GB", fields={"memory_mib": 10}).memory_bytes_per_node == 2 * GIB
    assert shown(scheduler="slurm", scheduler_options={"memory_bytes_per_node": 4 * GIB})["scheduler_options"][
        "memory"
    ] == ("4096MB")


def test_the_schedulers_limit_comes_before_that_of_the_run() -> None:
    assert sent("slurm", wall_clock_limit=60).time_limit == timedelta(minutes=1)
    assert sent("slurm", wall_clock_limit=60, scheduler_options={"time": "2"}).time_limit == timedelta(minutes=2)
    assert sent("local", wall_clock_limit=60, scheduler_options={"time": "2"}).time_limit == timedelta(minutes=1)
    options = shown(scheduler="slurm", time_limit=86_400)
    assert options["scheduler_options"]["time"] == "1-00:00:00"
    assert "wall_clock_limit" not in options
    assert shown(scheduler="lsf", time_limit=0)["scheduler_options"]["time"] == "UNLIMITED"


def test_a_cluster_job_shares_its_work_out_unless_it_says_else() -> None:
    config = sent("slurm")
    assert (config.auto_settings, config.distributed) == (True, True)
    config = sent("slurm", auto=False, distributed=False)
    assert (config.auto_settings, config.distributed) == (False, False)
    written = shown(scheduler="slurm")
    assert (written["auto"], written["distributed"]) == (False, False)  # the contract's defaults
    assert shown(scheduler="slurm", scheduler_options={"nodes": 2})["distributed"] is True


def test_the_later_of_two_starts() -> None:
    noon = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
    options = {"begin": "2030-01-01T13:00:00+00:00"}
    assert sent("slurm", not_before=noon, scheduler_options=options).not_before_time == noon + timedelta(hours=1)
    options = {"begin": "2030-01-01T11:00:00Z"}
    assert sent("slurm", not_before=noon, scheduler_options=options).not_before_time == noon
    assert sent("local", scheduler_options=options).not_before_time is None
    assert from_job_config(sent("slurm", scheduler_options=options)).scheduler_options.begin == ""
    assert list(refused("slurm", scheduler_options={"begin": "soon"})) == ["config.scheduler_options.begin"]


def test_lists_of_nodes_and_licenses() -> None:
    found = asked(nodelist="n[1-3,7], m1 m2", exclude="a,,b", licenses=["hfss:2", "anshpc"])
    assert found.include_nodes == ("n[1-3,7]", "m1", "m2")
    assert found.exclude_nodes == ("a", "b")
    assert found.licenses == {"hfss": 2, "anshpc": 1}
    config = JobConfig(project_path="/p/a.aedt", scheduler="slurm", scheduler_options=found)
    options = from_job_config(config).scheduler_options
    assert (options.nodelist, options.exclude) == ("n[1-3,7],m1,m2", "a,b")
    assert options.licenses == ("anshpc:1", "hfss:2")
    twice = refused("slurm", scheduler_options={"licenses": ["hfss:2", "hfss:1"]})
    assert list(twice) == ["config.scheduler_options.licenses"]


def test_flags_of_the_options_are_not_set_where_they_are_false() -> None:
    found = asked(exclusive=False, run_as_administrator=False, gpus=0)
    assert (found.exclusive, found.run_as_administrator, found.gpus_per_node) == (None, None, None)
    assert asked(exclusive=True, gpus=2).exclusive is True


# Other fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{}, {"max_attempts": 0}, {"max_attempts": 1, "reasons": ["lost"]}])
def test_one_attempt_is_no_retry(policy: dict[str, Any]) -> None:
    assert sent("local", retry=policy).retry is None


def test_retries() -> None:
    config = sent("local", retry={"max_attempts": 3, "reasons": ["lost"], "initial_backoff": 5})
    assert config.retry == RetryOptions(max_attempts=3, reasons=(EndReason.LOST,), initial_delay=timedelta(seconds=5))
    assert shown(retry=RetryOptions())["retry"] == {"max_attempts": 3}
    assert list(refused("local", retry={"max_attempts": 2, "reasons": ["normal"]})) == ["config.retry.reasons"]


def test_batch_options_take_precedence_over_layout_options() -> None:
    config = sent(
        "local",
        layout_options={"enable_gpu": True, "mpi_vendor": "Open MPI"},
        batch_options={"hfss 3d layout design/enablegpu": "0"},
    )
    assert config.layout_options == LayoutOptions(mpi_vendor="Open MPI")
    assert config.batch_options == {"hfss 3d layout design/enablegpu": "0"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"setup_name": "S"}, "design_name"),
        ({"license_wait_limit": 5}, "license_wait_limit"),
        ({"scheduler_options": {"time": "soon"}}, "scheduler_options.time"),
    ],
)
def test_what_the_contract_refuses_has_its_documented_name(values: dict[str, Any], field: str) -> None:
    assert list(refused("slurm", **values)) == [f"config.{field}"]


def test_refusals_of_the_service_have_documented_names() -> None:
    fields = {"config.scheduler_options.partition": "no", "config.machines[0].cores": "no", "request_id": "no"}
    found = documented_refusal(Refused("INVALID_JOB", "config.scheduler_options.partition: no", fields=fields))
    assert list(found.fields) == ["config.scheduler_options.queue", "config.machine_nodes[0].cores", "request_id"]
    assert found.message == "config.scheduler_options.queue: no"
    assert documented_field("setup") == "setup_name"
    assert documented_field("setups") == "setups"


# Both ways ---------------------------------------------------------------------------------------------------

WORD = st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True)
SECONDS = st.integers(1, 86_400 * 300).map(lambda seconds: timedelta(seconds=seconds))
OPTIONS = st.builds(
    ContractOptions,
    partition=WORD.filter(lambda name: name != "default"),
    nodes=st.none() | st.integers(2, 99),
    tasks_per_node=st.none() | st.integers(2, 4),
    cores_per_node=st.none() | st.integers(4, 64),
    memory_bytes_per_node=st.none() | st.integers(1, 2**20).map(lambda mib: mib << 20),
    gpus_per_node=st.none() | st.integers(1, 4),
    gpu_type=WORD,
    exclusive=st.none() | st.just(True),
    constraint=WORD,
    include_nodes=st.lists(WORD | st.just("n[1-3,7]"), max_size=3).map(tuple),
    exclude_nodes=st.lists(WORD, max_size=3).map(tuple),
    account=WORD,
    qos=WORD,
    reservation=WORD,
    priority=st.sampled_from(SchedulerPriority),
    licenses=st.dictionaries(WORD, st.integers(1, 9), max_size=3),
    wckey=WORD,
    email=st.sampled_from(["", "a@b.example"]),
    comment=WORD,
    run_as_administrator=st.none() | st.just(True),
    extra=st.dictionaries(WORD, WORD, max_size=2),
)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "project_path": st.just("/p/a.aedt"),
    "design": WORD,
    "setup": WORD,
    "design_mode": st.none() | st.sampled_from(DesignMode),
    "aedt_version": st.sampled_from(["", "2025.2"]),
    "aedt_path": st.sampled_from(["", "/opt/ansysedt"]),
    "product": st.sampled_from(["", "HFSS"]),
    "licenses": st.dictionaries(WORD, st.integers(0, 9), max_size=2),
    "cancel_grace_period": st.none() | st.integers(0, 29).map(lambda seconds: timedelta(seconds=seconds)),
    "non_graphical": st.none() | st.just(False),
    "monitor": st.none() | st.just(False),
    "layout_options": st.builds(LayoutOptions, enable_gpu=st.none() | st.booleans(), mpi_vendor=WORD),
    "batch_options": st.dictionaries(WORD, WORD, max_size=2),
    "environment": st.dictionaries(WORD, WORD, max_size=2),
    "wait_for_license": st.none() | st.just(True),
    "scheduler_wait_limit": st.none() | SECONDS,
    "not_before_time": st.none() | st.just(NOW),
    "retry": st.none()
    | st.builds(
        RetryOptions,
        max_attempts=st.integers(2, 9),
        reasons=st.lists(st.sampled_from([EndReason.LOST, EndReason.LICENSE]), max_size=2).map(tuple),
        initial_delay=st.none() | st.integers(0, 9).map(lambda seconds: timedelta(seconds=seconds)),
        max_delay=st.none() | st.integers(0, 9).map(lambda seconds: timedelta(seconds=seconds)),
    ),
    "existing_results": st.sampled_from([None, ExistingResults.CLEAR, ExistingResults.REFUSE]),
    "batch": st.sampled_from(["", "b1"]),
    "labels": st.dictionaries(WORD, WORD, max_size=2),
}
LOCAL = st.builds(
    JobConfig,
    **COMMON,
    scheduler=st.sampled_from(["", "local"]),
    cores=st.none() | st.integers(1, 99),
    memory_bytes=st.none() | st.integers(1, 2**20).map(lambda mib: mib << 20),
    machines=st.lists(
        st.builds(
            Machine,
            hostname=WORD,
            cores=st.integers(2, 19),
            max_cores=st.none() | st.integers(21, 99),
            memory_percent=st.integers(1, 100),
            tasks=st.sampled_from([-1, 1, 2]),
            gpus=st.none() | st.integers(0, 2),
        ),
        max_size=2,
    ).map(tuple),
    time_limit=st.none() | SECONDS,
    distributed=st.none() | st.booleans(),
    auto_settings=st.none() | st.booleans(),
)
CLUSTER = st.builds(
    JobConfig,
    **COMMON,
    scheduler=st.sampled_from(CLUSTERS),
    scheduler_options=OPTIONS,
    time_limit=st.none() | st.just(timedelta(0)) | SECONDS,
    distributed=st.booleans(),
    auto_settings=st.booleans(),
)


@given(LOCAL | CLUSTER)
def test_a_configuration_comes_back_as_it_was(config: JobConfig) -> None:
    back = from_job_config(config)
    assert to_job_config(back, config.scheduler) == config
    if config.scheduler != "flux":  # REST can show a plug-in, and cannot name one
        read = HFSSSimulationConfig.from_dict(back.to_dict())
        assert to_job_config(read, config.scheduler) == config


# Texts of schedulers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "text", "seconds"),
    [
        *(("slurm", "5", 300), ("lsf", "5", 300), ("windows_hpc", "5", 300), ("pbs", "5", 5), ("flux", "5", 300)),
        *(("slurm", "5:30", 330), ("pbs", "5:30", 330), ("lsf", "5:30", 19_800), ("windows_hpc", "5:30", 19_800)),
        *((name, "1:05:30", 3930) for name in CLUSTERS),
        *((name, "1-2", 93_600) for name in CLUSTERS),
        *((name, "1-2:30:10", 95_410) for name in CLUSTERS),
        *((name, word, 0) for name in CLUSTERS for word in ("UNLIMITED", "infinite")),
        ("slurm", "0", 0),
    ],
)
def test_time_limits(scheduler: str, text: str, seconds: int) -> None:
    assert texts.limit_of(text, scheduler) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["soon", "1h", "-1", "1:2:3:4", "1.5", "1-"])
def test_what_is_no_time_limit(text: str) -> None:
    for scheduler in CLUSTERS:
        with pytest.raises(ValueError, match="time limit"):
            texts.limit_of(text, scheduler)
    with pytest.raises(ValueError, match="more than 0"):
        texts.limit_of("0:00", "lsf")


@given(st.integers(0, 300 * 86_400), st.sampled_from(CLUSTERS))
def test_every_scheduler_reads_a_limit_as_it_is_written(seconds: int, scheduler: str) -> None:
    limit = timedelta(seconds=seconds)
    assert texts.limit_of(texts.limit_text(limit), scheduler) == limit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("64GB", 64 * GIB), ("64g", 64 * GIB), ("64 GiB", 64 * GIB), ("1.5T", 1536 * GIB), ("512M", 512 << 20)),
        *(("512", 512 << 20), ("1KB", 1024), ("0.5", 1 << 19), ("0GB", 0)),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert texts.memory_of(text) == size


@pytest.mark.parametrize(
    ("scheduler", "text", "expected"),
    [
        ("slurm", "2026-12-31T23:59", (2026, 12, 31, 23, 59)),
        ("pbs", "2026-12-31T23:59:00", (2026, 12, 31, 23, 59)),
        ("slurm", "2026-12-31", (2026, 12, 31, 0, 0)),
        ("slurm", "tomorrow", (2026, 3, 5, 0, 0)),
        ("slurm", "midnight", (2026, 3, 5, 0, 0)),
        ("slurm", "noon", (2026, 3, 5, 12, 0)),
        ("slurm", "16:00", (2026, 3, 4, 16, 0)),
        ("slurm", "9:15 AM", (2026, 3, 5, 9, 15)),
        ("lsf", "12:31:23:59", (2026, 12, 31, 23, 59)),
        ("lsf", "2027:12:31:23:59", (2027, 12, 31, 23, 59)),
        ("lsf", "20:8:00", (2026, 3, 20, 8, 0)),
        ("lsf", "16:00", (2026, 3, 4, 16, 0)),
        ("pbs", "202612312359.00", (2026, 12, 31, 23, 59)),
        ("pbs", "12312359", (2026, 12, 31, 23, 59)),
        ("pbs", "1600", (2026, 3, 4, 16, 0)),
    ],
)
def test_moments(scheduler: str, text: str, expected: tuple[int, ...]) -> None:
    now = datetime(2026, 3, 4, 15, 30).astimezone()
    assert texts.moment_of(text, scheduler, now) == datetime(*expected).astimezone()  # type: ignore[arg-type]


def test_moments_from_now() -> None:
    assert texts.moment_of("now", "slurm", NOW) == NOW
    assert texts.moment_of("now+1hour", "slurm", NOW) == NOW + timedelta(hours=1)
    assert texts.moment_of("now+90", "slurm", NOW) == NOW + timedelta(seconds=90)
    assert texts.moment_of("now+2days", "lsf", NOW) == NOW + timedelta(days=2)


@pytest.mark.parametrize("text", ["soon", "25:00", "2026-13-31T23:59", "now+1year", "13:00 PM", "20261231", "1"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="must be a moment"):
        texts.moment_of(text, "slurm", NOW)


@given(st.text(max_size=20), st.sampled_from(CLUSTERS))
def test_no_text_is_too_strange_for_a_moment(text: str, scheduler: str) -> None:
    with contextlib.suppress(ValueError):
        assert texts.moment_of(text, scheduler, NOW).tzinfo is not None
