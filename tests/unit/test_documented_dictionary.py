from __future__ import annotations

import tempfile
from typing import Any

import pytest
from edbjobs_server.gateway.documented.config import HFSS3DLayoutBatchOptions, HFSSSimulationConfig
from edbjobs_server.gateway.documented.translation import to_job_config

# What a client of the documented job manager sends: every field, most of them at their defaults.
DOCUMENTED: dict[str, Any] = {
    "solver": "Hfss3DLayout",
    "ansys_edt_path": "/opt/v252/Linux64/ansysedt",
    "jobid": "LOCAL_1",
    "user": "unknown",
    "distributed": True,
    "machine_nodes": [{"hostname": "localhost", "cores": 16, "max_cores": 20, "utilization": 90}],
    "auto": True,
    "non_graphical": True,
    "monitor": True,
    "layout_options": {
        "create_starting_mesh": False,
        "default_process_priority": "Normal",
        "enable_gpu": False,
        "mpi_vendor": "Intel",
        "mpi_version": "Default",
        "remote_spawn_command": "Scheduler",
        "solve_adaptive_only": True,
        "validate_only": False,
        "temp_directory": "C:\\Users\\ann\\AppData\\Local\\Temp",
    },
    "project_path": "/data/antenna.aedt",
    "design_name": "main",
    "design_mode": "Nominal",
    "setup_name": "Setup1",
    "scheduler_type": "none",
    "scheduler_options": {
        "queue": "default",
        "time": "24:00:00",
        "nodes": 1,
        "tasks_per_node": 1,
        "cores_per_node": 0,
        "memory": "4GB",
        "account": None,
        "reservation": None,
        "qos": None,
        "constraints": None,
        "exclusive": False,
        "gpus": 0,
        "gpu_type": None,
        "priority": "Normal",
        "email_notification": None,
        "run_as_administrator": False,
    },
    "platform": "Windows",
    "timestamp": "2025-01-01T00:00:00",
    "version": "1.0.0",
}


def test_the_documented_form_is_read_with_its_real_meaning() -> None:
    config = HFSSSimulationConfig.from_dict(DOCUMENTED)
    assert str(config.machine_nodes[0]) == "localhost:1:16:90%"
    assert (config.auto, config.distributed, config.user) == (None, None, "")
    assert config.layout_options == HFSS3DLayoutBatchOptions(solve_adaptive_only=True)
    assert {field.name for field, _ in to_job_config(config, "local").to_message().ListFields()} == {
        "project_path",
        "aedt_path",
        "design",
        "design_mode",
        "setup",
        "scheduler",
        "machines",
        "layout_options",
    }


def test_the_documented_form_is_written_again() -> None:
    written = HFSSSimulationConfig.from_dict(DOCUMENTED).to_dict()
    same = {key for key, value in DOCUMENTED.items() if written[key] == value}
    assert set(written) == set(DOCUMENTED)
    # The rest: the user nobody named, the temporary folder of this machine, what is true of the writing.
    assert set(DOCUMENTED) - same <= {"user", "layout_options", "platform", "timestamp"}
    assert written["layout_options"]["temp_directory"] == tempfile.gettempdir()


def test_what_the_documented_curl_leaves_out_may_be_left_out() -> None:
    config = HFSSSimulationConfig.from_dict({"project_path": "/a.aedt", "user": None, "jobid": None})
    assert config == HFSSSimulationConfig(project_path="/a.aedt")


def test_a_wrong_key_is_not_swallowed() -> None:
    with pytest.raises(ValueError, match="wall_clock_limt"):
        HFSSSimulationConfig.from_dict({"project_path": "/a.aedt", "wall_clock_limt": 3})
