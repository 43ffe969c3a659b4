"""What a service with Windows HPC is set up from, and the script that its people can read."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from edbjobs.v1 import job_pb2, jobs_messages_pb2
from edbjobs_server.config.settings import Settings, SettingsError, load_settings
from edbjobs_server.config.site_policy import SitePolicy
from edbjobs_server.doctor.solver import releases
from edbjobs_server.manager.log_reader import read_log
from edbjobs_server.service.cluster_factory import make_clusters, node_releases
from edbjobs_server.solver.releases import Release, choose, on_windows_nodes
from edbjobs_server.util.path_workers import PathWorkers

V252 = r"C:\Program Files\ANSYS Inc\v252\AnsysEM\ansysedt.exe"
V242 = r"\\fs\apps\v242\Win64\ansysedtsv.exe"


def settings(folder: Path, **more: Any) -> Settings:
    file = folder / "hpc"
    file.write_text("HPC\\ann\nsecret\n")
    file.chmod(0o600)
    given = {
        "hpc_url": "https://head",
        "hpc_credentials": file,
        "scheduler": "windows_hpc",
        "state_dir": folder / "state",
    }
    return load_settings({**given, **more})


async def test_it_has_the_path_map_of_the_site_by_given_and_by_real_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    site = SitePolicy(path_map={str(tmp_path / "link"): "\\\\fs\\work"})
    found = make_clusters(settings(tmp_path, shared_dir=tmp_path / "link" / "runs"), site, {}, "store")
    hpc = found["windows_hpc"].scheduler
    assert hpc.node_path(str(tmp_path / "link" / "runs")) == "\\\\fs\\work\\runs"
    assert hpc.node_path(str(tmp_path / "real" / "a.aedt")) == "\\\\fs\\work\\a.aedt"
    await hpc.close()


def test_a_folder_for_runs_that_the_nodes_do_not_see_keeps_the_service_from_beginning(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"shared_dir: .*below no folder .*path_map") as error:
        make_clusters(
            settings(tmp_path, shared_dir=tmp_path), SitePolicy(path_map={"/else": "\\\\fs\\work"}), {}, "store"
        )
    assert str(tmp_path) in str(error.value)


def test_a_share_without_a_name_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="windows_hpc: '/s' = "):
        make_clusters(settings(tmp_path), SitePolicy(path_map={"/s": "\\\\fs"}), {}, "store")


# Solvers -----------------------------------------------------------------------------------------------------


def test_solvers_of_the_nodes_are_told_by_their_path() -> None:
    new, old = on_windows_nodes([PureWindowsPath(V242), PureWindowsPath(V252)])
    assert (new.version, new.student, str(new.path), new.source) == ("2025.2", False, V252, "nodes")
    assert (old.version, old.student, str(old.path)) == ("2024.2", True, V242)
    assert choose((new, old), "", "") is new
    assert choose((new, old), "2024 R2", "") is old
    assert choose((new, old), "", V242) is old


@pytest.mark.parametrize("value", [[V252, V242], f"{V252};{V242}", f" {V252} ; {V242};"])
def test_they_are_a_setting(tmp_path: Path, value: object) -> None:
    assert [str(path) for path in settings(tmp_path, hpc_solvers=value).hpc_solvers] == [V252, V242]


@pytest.mark.parametrize(
    "value", ["/opt/ansysedt", "ansysedt.exe", "C:ansysedt.exe", r"C:\%X%\a.exe", r"C:\a.bat", 'C:\\a".exe']
)
def test_what_is_no_program_of_windows_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match="expected a program's full path on Windows"):
        settings(tmp_path, hpc_solvers=value)


async def test_without_them_the_nodes_run_what_they_see_of_this_hosts(tmp_path: Path) -> None:
    host = [Release("2025.2", "252", Path(path), "settings") for path in ("/opt/v252/ansysedt", "/apps/v252/ansysedt")]
    given = settings(tmp_path)
    clusters = make_clusters(given, SitePolicy(path_map={"/apps": "\\\\fs\\apps"}), {}, "store")
    schedulers = {name: executor.scheduler for name, executor in clusters.items()}
    assert node_releases(given, host, schedulers) == {"windows_hpc": (host[1],)}
    named = node_releases(settings(tmp_path, hpc_solvers=V252), host, schedulers)
    assert [str(release.path) for release in named["windows_hpc"]] == [V252]
    assert node_releases(given, host, {}) == {}


def test_the_doctor_tells_them_and_misses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edbjobs_server.doctor.solver.discover", lambda *_: ())
    (check,) = releases(settings(tmp_path, hpc_solvers=V252))
    assert (check.status, check.text) == (
        "ok",
        f"AEDT 2025.2 at {V252} on the nodes of Windows HPC, as the settings say",
    )


# The script --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["script", "script.ps1"])
async def test_the_script_of_a_run_is_found_by_either_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "7.1"
    folder.mkdir()
    (folder / name).write_text("# what is run")
    job = job_pb2.Job(id="j", attempt_count=1)
    job.attempts.add(number=1, run_directory=str(folder)).end_time.FromSeconds(1)

    async def get() -> job_pb2.Job:
        return job

    asked = jobs_messages_pb2.ReadLogRequest(stream=jobs_messages_pb2.LOG_STREAM_SCRIPT)
    paths = PathWorkers()
    assert b"".join([item.data async for item in read_log(asked, get, paths, "")]) == b"# what is run"
    paths.close()
