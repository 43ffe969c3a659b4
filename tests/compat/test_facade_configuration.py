"""The documented configuration objects: changeable, with the documented defaults, and copied into the checked form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edbjobs_pyedb.configuration import (
    HFSS3DLayoutBatchOptions,
    HFSSSimulationConfig,
    MachineNode,
    SchedulerOptions,
    SchedulerType,
    create_hfss_config,
)
from edbjobs_pyedb.errors import JobManagerError
from edbjobs_server.gateway.documented import config as frozen
from edbjobs_server.solver.demo import example_project


def made(**fields: object) -> HFSSSimulationConfig:
    return create_hfss_config("/p/board.aedb", **fields)  # type: ignore[arg-type]


def test_it_may_be_changed_until_it_is_copied() -> None:
    config = HFSSSimulationConfig(project_path="/p/board.aedb")
    config.machine_nodes[0].cores = 16
    copy = config.native()
    config.machine_nodes[0].cores = 2
    config.setup_name = "Setup2"
    assert (copy.machine_nodes[0].cores, copy.setup_name) == (16, "")
    assert str(copy.machine_nodes[0]) == "localhost:1:16:90%"


def test_documented_defaults_are_shown_and_not_passed() -> None:
    config = made()
    assert (config.auto, config.distributed, config.layout_options.mpi_vendor) == (True, True, "Intel")
    assert config.generate_batch_options_string() == ""
    copy = config.native()
    assert (copy.auto, copy.distributed, copy.layout_options) == (None, None, frozen.HFSS3DLayoutBatchOptions())
    config.auto = True
    config.layout_options.enable_gpu = False
    copy = config.native()
    assert (copy.auto, copy.distributed, copy.layout_options.enable_gpu) == (True, None, False)
    assert config.generate_batch_options_string() == "'HFSS 3D Layout Design/EnableGPU'='0'"


def test_the_documented_dictionary_loses_nothing() -> None:
    config = made(auto=True, design_name="d", setup_name="s", labels={"a": "b"}, machine_nodes=[MachineNode(cores=4)])
    config.layout_options.validate_only = False
    written = json.loads(json.dumps(config.to_dict()))
    again = HFSSSimulationConfig.from_dict(written)
    assert again.native() == config.native()
    assert HFSSSimulationConfig.of(config.native()).native() == config.native()
    assert written["machine_nodes"] == [{"hostname": "localhost", "cores": 4, "max_cores": 20, "utilization": 90}]


def test_a_dump_of_defaults_by_the_old_package_says_nothing() -> None:
    dumped = {"auto": True, "distributed": True, "user": "unknown", "jobid": "a", "project_path": "/p/b.aedt"}
    copy = HFSSSimulationConfig.from_dict({**dumped, "layout_options": {"mpi_vendor": "Intel"}}).native()
    assert (copy.auto, copy.distributed, copy.user, copy.layout_options.mpi_vendor) == (None, None, "", None)


@pytest.mark.parametrize(
    ("fields", "error_text"),
    [
        ({"foo": 1}, "foo: is not a field"),
        ({"machine_nodes": [MachineNode(cores=0)]}, "cores: should be"),
        ({"scheduler_options": SchedulerOptions(time="1\n2")}, "time: must be a time limit"),
        ({"design_name": "a\n#SBATCH x"}, "design_name: must not"),
        ({"machine_nodes": "two"}, "machine_nodes"),
        ({"jobid": "a b"}, "jobid: must be"),
    ],
)
def test_invalid_fields_are_named(fields: dict[str, object], error_text: str) -> None:
    with pytest.raises(ValueError, match=error_text) as error:
        made(**fields)
    assert "the configuration is not valid" in str(error.value)


def test_assigned_values_are_checked_when_they_are_used() -> None:
    config = made()
    config.scheduler_type = "none"  # type: ignore[assignment]
    config.machine_nodes[0].hostname = "a b"
    for use in (config.validate_fields, config.to_dict, config.generate_command_list, config.machine_nodes[0].native):
        with pytest.raises(ValueError, match="hostname: must be a host name"):
            use()


def test_scheduler_words_in_any_case() -> None:
    assert made(scheduler_type="SLURM").scheduler_type is SchedulerType.SLURM
    assert HFSSSimulationConfig(scheduler_type="Lsf").scheduler_type is SchedulerType.LSF
    assert SchedulerType("windows_hpc") is SchedulerType.WINDOWS_HPC


def test_the_texts_of_a_command_line() -> None:
    config = made(jobid="j1", ansys_edt_path="/opt/aedt/ansysedt", design_name="d", setup_name="s")
    config.machine_nodes = [MachineNode(hostname="n1", cores=4), MachineNode(hostname="n2", cores=4)]
    config.layout_options.mpi_version = "2021"
    assert config.generate_machinelist_string() == "list=n1:1:4:90%,n2:1:4:90%"
    assert config.generate_design_string() == "d:Nominal:s"
    command = config.generate_command_list()
    assert command[:4] == ["/opt/aedt/ansysedt", "-jobid", "j1", "-distributed"]
    assert command[-3:] == ["-batchsolve", "d:Nominal:s", "/p/board.aedb"]
    assert "'HFSS 3D Layout Design/MPIVersion'='2021'" in command
    assert config.generate_command_string().startswith("/opt/aedt/ansysedt -jobid j1 -distributed -machinelist")
    assert str(config.machine_nodes[0]) == "n1:1:4:90%"
    assert made().generate_design_string() == ""
    options = HFSS3DLayoutBatchOptions(solve_adaptive_only=True)
    assert options.to_batch_options_dict() == {"HFSS 3D Layout Design/SolveAdaptiveOnly": "1"}
    assert options.to_batch_options_string() == "'HFSS 3D Layout Design/SolveAdaptiveOnly'='1'"


def test_run_simulation_solves_here(state: Path, tmp_path: Path) -> None:
    project = example_project(tmp_path)
    config = create_hfss_config(project, environment={"ANS_EDBJOBS_DEMO": "seconds=0.1"})
    done = config.run_simulation(capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert project.with_suffix(".aedtresults").exists()
    with pytest.raises(JobManagerError) as error:
        create_hfss_config(tmp_path / "none.aedt").run_simulation()
    assert error.value.reason == "PROJECT_NOT_FOUND"


def test_run_simulation_without_an_aedt(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBJOBS_DEMO_SOLVER", "0")
    with pytest.raises(JobManagerError, match="no AEDT is installed") as error:
        create_hfss_config(example_project(tmp_path)).run_simulation()
    assert error.value.reason == "SOLVER_NOT_FOUND"


def test_paths_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert create_hfss_config("board.aedb").project_path == str(tmp_path / "board.aedb")
    assert HFSSSimulationConfig(project_path="b.aedt").native().project_path == str(tmp_path / "b.aedt")
    with pytest.raises(ValueError, match="project_path"):
        HFSSSimulationConfig().validate_fields()
