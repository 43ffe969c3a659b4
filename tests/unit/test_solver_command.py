"""Command lines have the form read in real logs and scripts, and no text can become an option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import DesignMode, JobConfig, LayoutOptions, Machine
from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.command_line import (
    MACHINES,
    SCRATCH,
    SPAWN,
    batch_options,
    batch_options_text,
    command_line,
    shell_line,
)
from edbjobs_server.solver.demo.options import parse
from edbjobs_server.solver.releases import Release

LINUX = Release("2025.2", "252", Path("/opt/ansys_inc/v252/AnsysEM/ansysedt"), "ANSYSEM_ROOT252")
PROJECT = "/data/board.aedt"


def config(**fields: Any) -> JobConfig:
    return JobConfig(**{"project_path": PROJECT, **fields})


def unchecked(**fields: Any) -> JobConfig:
    """Make a configuration past the model's own checks: this module must hold by itself."""
    return config().model_copy(update=fields)


def line(cores: int = 4, **fields: Any) -> list[str]:
    return command_line(config(**fields), LINUX, "j1", cores, project_path=PROJECT)


def test_the_plain_case() -> None:
    assert line() == [
        str(LINUX.path),
        "-jobid",
        "j1",
        "-machinelist",
        "list=localhost:1:4:90%",
        "-ng",
        "-monitor",
        "-batchsolve",
        PROJECT,
    ]


def test_the_line_of_a_real_2025_r2_log() -> None:
    layout = LayoutOptions(
        create_starting_mesh=False,
        default_process_priority="Normal",
        enable_gpu=False,
        mpi_vendor="Intel",
        mpi_version="Default",
        remote_spawn_command="Scheduler",
        solve_adaptive_only=False,
        validate_only=False,
    )
    made = line(layout_options=layout, machines=[Machine(tasks=2, cores=2)], distributed=False)
    key = "'HFSS 3D Layout Design/"
    assert made[1:] == [
        "-jobid",
        "j1",
        "-machinelist",
        "list=localhost:2:2:90%",
        "-ng",
        "-monitor",
        "-batchoptions",
        f"{key}CreateStartingMesh'='0' {key}DefaultProcessPriority'='Normal' {key}EnableGPU'='0' "
        f"{key}MPIVendor'='Intel' {key}MPIVersion'='Default' {key}RemoteSpawnCommand'='Scheduler' "
        f"{key}SolveAdaptiveOnly'='0' {key}ValidateOnly'='0'",
        "-batchsolve",
        PROJECT,
    ]


def test_cores_are_the_total_and_tasks_share_them() -> None:
    nodes = [Machine(hostname="n1", tasks=4, cores=16, memory_percent=80), Machine(hostname="n2", cores=8, gpus=1)]
    made = line(machines=nodes)
    assert made[made.index("-machinelist") + 1] == "list=n1:4:16:80%,n2:1:8:90%:1"
    assert made[3] == "-distributed"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"distributed": True}, True),
        ({"machines": [Machine(cores=8)]}, False),
        ({"machines": [Machine(cores=8, tasks=2)]}, True),
        ({"machines": [Machine(cores=8, tasks=-1)], "auto_settings": True}, True),
        ({"machines": [Machine(cores=8, tasks=2)], "distributed": False}, False),
    ],
)
def test_distributed_is_passed_where_tasks_are(fields: dict[str, Any], expected: bool) -> None:
    assert ("-distributed" in line(**fields)) is expected


@pytest.mark.parametrize(
    ("design", "mode", "setup", "selector"),
    [
        ("", None, "", []),
        ("", "nominal", "", []),
        ("board", None, "", ["board"]),
        ("board", "nominal", "", ["board:Nominal"]),
        ("board", "optimetrics", "", ["board:Optimetrics"]),
        ("board", None, "Setup 1", ["board:Nominal:Setup 1"]),
        ("board", "optimetrics", "Par1", ["board:Optimetrics:Par1"]),
        ("Платине", "nominal", "設定", ["Платине:Nominal:設定"]),
    ],
)
def test_the_selector(design: str, mode: DesignMode | None, setup: str, selector: list[str]) -> None:
    made = line(design=design, design_mode=mode, setup=setup)
    assert made[made.index("-batchsolve") + 1 :] == [*selector, PROJECT]


def test_every_option_is_before_batchsolve_and_the_demo_solver_accepts_it() -> None:
    made = line(
        design="board",
        setup="S",
        distributed=True,
        auto_settings=True,
        wait_for_license=True,
        layout_options={"temp_directory": "/scratch/my tmp", "enable_gpu": True},
        batch_options={"HPCLicenseType": "pool", "HFSS/NumCoresPerDistributedTask": "2"},
    )
    assert made[-3:] == ["-batchsolve", "board:Nominal:S", PROJECT]
    assert [word for word in made if word.startswith("-")] == [
        "-jobid",
        "-distributed",
        "-machinelist",
        "-auto",
        "-ng",
        "-monitor",
        "-waitforlicense",
        "-batchoptions",
        "-batchsolve",
    ]
    taken = parse(made[1:])
    assert (taken.selector, taken.ignored_selector, str(taken.project)) == ("board:Nominal:S", "", PROJECT)
    assert taken.batch_options == batch_options(
        config(
            layout_options={"temp_directory": "/scratch/my tmp", "enable_gpu": True},
            batch_options={"HPCLicenseType": "pool", "HFSS/NumCoresPerDistributedTask": "2"},
        )
    )


def test_batch_options_of_both_kinds() -> None:
    made = batch_options(config(layout_options={"enable_gpu": False}, batch_options={"HFSS/Solver": "x", "Empty": ""}))
    assert made == {"HFSS 3D Layout Design/EnableGPU": "0", "HFSS/Solver": "x"}


def test_backslashes_become_slashes() -> None:
    made = batch_options(config(layout_options={"temp_directory": "D:\\tmp\\"}))
    assert made == {"TempDirectory": "D:/tmp/"}


def test_options_in_a_file(tmp_path: Path) -> None:
    wish = config(layout_options={"enable_gpu": False}, batch_options={"TempDirectory": "/s", "AllowOffCore": "true"})
    text = batch_options_text(wish)
    assert text.splitlines() == [
        "$begin 'Config'",
        "\t'HFSS 3D Layout Design/EnableGPU'=0",
        "\t'TempDirectory'='/s'",
        "\t'AllowOffCore'='true'",
        "$end 'Config'",
    ]
    file = tmp_path / "options.txt"
    file.write_text(text)
    made = command_line(wish, LINUX, "j1", 1, file, project_path=PROJECT)
    assert made[made.index("-batchoptions") + 1] == str(file)
    assert parse(made[1:]).batch_options == batch_options(wish)


def test_windows_form() -> None:
    solver = Release("2025.2", "252", Path(r"C:\Program Files\ANSYS Inc\v252\AnsysEM\ansysedt.exe"), "registry")
    wish = config(project_path=r"D:\Temp\test jobs\test1.aedb", batch_options={"HPCLicenseType": "pool"})
    argv = command_line(wish, solver, "j1", 2, project_path=wish.project_path)
    assert argv[-1] == r"D:\Temp\test jobs\test1.aedb"
    shown = shell_line(argv, "win32")
    assert shown.startswith('"C:\\Program Files\\ANSYS Inc\\v252\\AnsysEM\\ansysedt.exe" -jobid j1')
    assert "list=localhost:1:2:90% -ng" in shown
    assert shown.endswith(r'"D:\Temp\test jobs\test1.aedb"')
    assert "90%% -ng" in shell_line(argv, "win32", cmd_file=True)
    assert "%%" not in shell_line(argv, "linux")


def test_the_path_that_was_accepted_is_solved_whatever_a_link_leads_to_now(tmp_path: Path) -> None:
    accepted = tmp_path / "accepted.aedt"
    accepted.symlink_to(tmp_path / "other.aedt")
    made = command_line(config(), LINUX, "j1", 1, project_path=str(accepted))
    assert made[-1] == str(accepted)


@pytest.mark.parametrize("field", ["design", "setup"])
@pytest.mark.parametrize(
    "text",
    [
        "-batchextract",
        "a\nb",
        "a'b",
        'a"b',
        "a:b",
        "a`id`",
        "a$(id)",
        "a;id",
        "a|id",
        "a&id",
        "a>f",
        "a\\b",
        "a\x00",
        "a\u2028b",
    ],
)
def test_a_name_cannot_become_an_option_or_a_command(field: str, text: str) -> None:
    wish = unchecked(**{"design": "d", field: text})
    with pytest.raises(Refused) as refused:
        command_line(wish, LINUX, "j1", 1, project_path=PROJECT)
    assert refused.value.reason == "INVALID_JOB"
    assert f"config.{field}" in refused.value.fields


@pytest.mark.parametrize("job_id", ["", "-ng", "a b", "a/b", "../x", "a\n", "a'"])
def test_a_job_id_is_checked(job_id: str) -> None:
    with pytest.raises(Refused):
        command_line(config(), LINUX, job_id, 1, project_path=PROJECT)


@pytest.mark.parametrize("host", ["-x", "a,b:1:1:90%", "a:9", "a b", "a\nb"])
def test_a_host_cannot_add_to_the_machine_list(host: str) -> None:
    node = Machine().model_copy(update={"hostname": host})
    with pytest.raises(Refused):
        command_line(unchecked(machines=(node,)), LINUX, "j1", 1, project_path=PROJECT)


@pytest.mark.parametrize(
    "options",
    [{"A": "x' 'B'='y"}, {"A' 'B": "x"}, {"A": "x\n'B'='y"}, {"-ng": "1"}, {"A=B": "x"}, {"A": '"'}, {"A": "$(id)"}],
)
def test_an_option_cannot_end_its_quotes(options: dict[str, str]) -> None:
    with pytest.raises(Refused, match="batch_options"):
        command_line(unchecked(batch_options=options), LINUX, "j1", 1, project_path=PROJECT)


@pytest.mark.parametrize("path", ["/data/a\n.aedt", '/data/a".aedt', "/data/a\x7f.aedt"])
def test_a_path_is_checked(path: str) -> None:
    with pytest.raises(Refused) as refused:
        command_line(config(), LINUX, "j1", 1, project_path=path)
    assert "config.project_path" in refused.value.fields


def test_flags_are_passed_by_their_defaults_and_not_where_they_are_false() -> None:
    assert [word for word in line() if word in FLAGS] == ["-ng", "-monitor"]
    everything = dict.fromkeys(("distributed", "auto_settings", "non_graphical", "monitor", "wait_for_license"), True)
    assert [word for word in line(**everything) if word in FLAGS] == list(FLAGS)
    assert not set(FLAGS) & set(line(**dict.fromkeys(everything, False)))


FLAGS = ("-distributed", "-auto", "-ng", "-monitor", "-waitforlicense")


def cluster_line(scratch: bool = False, **fields: Any) -> list[str]:
    return command_line(
        config(scheduler="slurm", **fields), LINUX, "j1", 4, project_path=PROJECT, cluster=True, scratch=scratch
    )


def test_on_a_cluster_the_batch_script_decides_where() -> None:
    made = cluster_line(scheduler_options={"nodes": 2}, scratch=True)
    assert made[1:] == [
        "-jobid",
        "j1",
        "-distributed",
        "-machinelist",
        MACHINES,
        "-ng",
        "-monitor",
        "-batchoptions",
        f"'HFSS 3D Layout Design/RemoteSpawnCommand'='{SPAWN}' 'HFSS/RemoteSpawnCommand'='{SPAWN}' "
        f"'TempDirectory'='{SCRATCH}'",
        "-batchsolve",
        PROJECT,
    ]


def test_on_a_cluster_the_job_has_the_last_word() -> None:
    made = cluster_line(
        scratch=True,
        auto_settings=True,
        distributed=False,
        scheduler_options={"tasks_per_node": 2},
        layout_options={"remote_spawn_command": "Scheduler"},
        batch_options={"tempdirectory": "/mine", "hfss/remotespawncommand": "SSH"},
    )
    assert "-auto" in made
    assert "-distributed" not in made
    assert made[made.index("-batchoptions") + 1] == (
        "'HFSS 3D Layout Design/RemoteSpawnCommand'='Scheduler' 'tempdirectory'='/mine' 'hfss/remotespawncommand'='SSH'"
    )


def test_without_a_scratch_folder_of_the_site_aedt_keeps_its_own() -> None:
    assert SCRATCH not in " ".join(cluster_line())


@pytest.mark.parametrize(("options", "expected"), [({}, False), ({"nodes": 2}, True), ({"tasks_per_node": 2}, True)])
def test_on_a_cluster_distributed_is_passed_where_more_than_one_task_is_asked_for(
    options: dict[str, int], expected: bool
) -> None:
    made = cluster_line(scheduler_options=options)
    assert ("-distributed" in made, "-auto" in made) == (expected, False)
