from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.config import settings as module
from edbjobs_server.config.addresses import split_address
from edbjobs_server.config.settings import Settings, SettingsError, default_config_file, load_settings
from edbjobs_server.config.settings_types import credentials
from edbjobs_server.core.limits import Limits, UserLimits


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("EDBJOBS_", "ANSYS_GRPC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EDBJOBS_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "edbjobs.toml"
    file.write_text(text)
    return file


def refused(values: dict[str, Any] | None = None, file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(values, file)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults(tmp_path: Path) -> None:
    found = load_settings()
    assert found.state_dir == tmp_path / "state" / "edbjobs"
    assert found.grpc == "127.0.0.1:18080"
    assert found.tcp == ("127.0.0.1", 18080)
    assert found.uds == tmp_path / "run" / "edbjobs.sock"
    assert (found.ready_file, found.solvers, found.demo_solver) == (None, [], False)
    assert (found.retention_days, found.retention_jobs) == (30.0, 100_000)
    assert found.explicit_limits() == {}


def test_command_line_before_environment_before_file_before_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toml(tmp_path, "max_cores = 1\nmax_local_jobs = 1\nretention_days = 1\n")
    monkeypatch.setenv("EDBJOBS_MAX_CORES", "2")
    monkeypatch.setenv("EDBJOBS_MAX_LOCAL_JOBS", "2")
    found = load_settings({"max_cores": 3, "retention_jobs": None}, file)
    assert found.max_cores == 3
    assert found.max_local_jobs == 2
    assert found.retention_days == 1.0
    assert found.retention_jobs == 100_000


def test_the_default_file_is_read_when_it_is_there(tmp_path: Path) -> None:
    file = default_config_file()
    assert file == tmp_path / "config" / "edbjobs" / "edbjobs.toml"
    file.parent.mkdir(parents=True)
    file.write_text('log_level = "debug"\n')
    assert load_settings().log_level == "debug"


def test_explicit_limits_are_those_given_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBJOBS_LICENSES", '{"hfss_solve": 4}')
    file = toml(tmp_path, "[users.alice]\nmax_running_jobs = 2\nmax_priority = -1\n[default_user]\nmax_cores = 8\n")
    given = load_settings({"max_local_jobs": 1, "max_cores": "none", "min_free_disk_bytes": 0}, file).explicit_limits()
    assert given == {
        "max_local_jobs": 1,
        "max_cores": None,
        "min_free_disk_bytes": 0,
        "licenses": {"hfss_solve": 4},
        "users": {"alice": UserLimits(2, None, -1)},
        "default_user": UserLimits(None, 8, None),
    }
    assert Limits(**given).of_user("bob").max_cores == 8
    assert set(Limits.__dataclass_fields__) <= set(Settings.model_fields)


def test_lists_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBJOBS_PROJECT_ROOTS", os.pathsep.join(["/a", "/b c"]))
    monkeypatch.setenv("EDBJOBS_ENVIRONMENT_ALLOW", "MY_*, OTHER")
    found = load_settings()
    assert found.project_roots == [Path("/a"), Path("/b c")]
    assert found.environment_allow == ["MY_*", "OTHER"]


def test_variables_of_client_and_runs_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings()
    for name in module.OTHER_VARIABLES - {"EDBJOBS_RUNTIME_DIR"}:
        monkeypatch.setenv(name, "x")
    assert load_settings() == before


@pytest.mark.parametrize("given", ["", "none", "None"])
def test_an_endpoint_can_be_turned_off(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings({"uds": given}).uds is None
    assert load_settings({"grpc": given}).tcp is None
    assert load_settings({"http": given}).web is None
    monkeypatch.setenv("EDBJOBS_UDS", given)
    assert load_settings().uds is None
    monkeypatch.setenv("EDBJOBS_HTTP", given)
    assert load_settings().web is None
    assert "would be unreachable" in refused({"grpc": given})


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:18080", ("127.0.0.1", 18080), "127.0.0.1:18080"),
        ("localhost:0", ("127.0.0.1", 0), "127.0.0.1:0"),
        ("[::1]:0", ("::1", 0), "[::1]:0"),
        ("0.0.0.0:1", ("0.0.0.0", 1), "0.0.0.0:1"),
    ],
)
def test_addresses(text: str, address: tuple[str, int], shown: str) -> None:
    assert split_address(text) == address
    assert load_settings({"grpc": text}).grpc == shown


@pytest.mark.parametrize(
    "text", ["18080", "127.0.0.1", "::1:80", "127.0.0.1:65536", "127.0.0.1:-1", "host:1", "[127.0.0.1]:1", ":1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    told = refused({"grpc": text}).removeprefix(f"setting --grpc: {text!r} is not allowed: ")
    assert told.startswith(("expected IP-ADDRESS:PORT", "the port must be"))


def test_an_error_names_where_the_value_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused({"max_local_jobs": -1}) == (
        "setting --max-local-jobs: -1 is not allowed: input should be greater than or equal to 0"
    )
    assert refused({"min_free_memory_bytes": "x"}).startswith("setting --min-free-memory-bytes: 'x'")
    file = toml(tmp_path, "max_cores = true\n")
    assert refused(file=file) == (
        f"setting max_cores in {file}: True is not allowed: expected a number, not true or false"
    )
    file = toml(tmp_path, "[users.bob]\nmax_jobs = 1\n")
    assert f"setting users in {file}.bob.max_jobs" in refused(file=file)
    monkeypatch.setenv("EDBJOBS_MAX_CPU_PERCENT", "101")
    assert refused().startswith("setting EDBJOBS_MAX_CPU_PERCENT: '101' is not allowed: ")
    monkeypatch.setenv("EDBJOBS_MAX_CPU_PERCENT", "90")
    monkeypatch.setenv("EDBJOBS_LICENSES", "{hfss}")
    assert refused().startswith("setting EDBJOBS_LICENSES: not JSON: ")


def test_an_unknown_name_is_refused_with_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toml(tmp_path, "max_local_job = 2\n")
    assert refused(file=file) == (f"there is no setting max_local_job in {file}; did you mean max_local_jobs?")
    monkeypatch.setenv("EDBJOBS_STATEDIR", "/x")
    assert refused() == "there is no setting EDBJOBS_STATEDIR; did you mean state_dir?"
    monkeypatch.delenv("EDBJOBS_STATEDIR")
    assert "the names are those of" in refused({"zzzz": 1})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(file=tmp_path / "none.toml")
    assert "is not TOML: " in refused(file=toml(tmp_path, "a = \n"))
    file = tmp_path / "latin.toml"
    file.write_bytes(b'a = "\xff"')
    assert "is not TOML: " in refused(file=file)


def test_relative_paths_are_taken_from_here_on_the_command_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"state_dir": "here"}).state_dir == tmp_path / "here"
    assert load_settings({"project_roots": ["a", Path("~/b")]}).project_roots == [
        tmp_path / "a",
        Path.home() / "b",
    ]
    monkeypatch.setenv("EDBJOBS_STATE_DIR", "here")
    assert "expected an absolute path" in refused()
    monkeypatch.setenv("EDBJOBS_STATE_DIR", "~/here")
    assert load_settings().state_dir == Path.home() / "here"
    monkeypatch.setenv("EDBJOBS_STATE_DIR", "/a\nb")
    assert "control characters" in refused()


def test_a_solver_must_be_a_program(tmp_path: Path) -> None:
    program = tmp_path / "ansysedt"
    assert f"there is no program {program}" in refused({"solvers": [program]})
    program.write_text("#!/bin/sh\n")
    program.chmod(0o600)
    assert "may not be executed" in refused({"solvers": [program]})
    program.chmod(stat.S_IRWXU)
    assert load_settings({"solvers": [program]}).solvers == [program]


@pytest.mark.parametrize("pattern", ["A=B", "A B", "A;B", "1A", "a.b", "LD\n"])
def test_a_pattern_names_variables_only(pattern: str) -> None:
    assert "environment" in refused({"environment_allow": [pattern]})


def test_transport_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings({"transport_mode": "uds"})
    assert found.tcp is None
    assert "opens no TCP endpoint" in refused({"transport_mode": "uds", "grpc": "127.0.0.1:0"})
    assert "needs a Unix socket" in refused({"transport_mode": "uds", "uds": "none"})
    assert "a folder with ca.crt" in refused({"transport_mode": "mtls"})
    monkeypatch.setenv("ANSYS_GRPC_CERTIFICATES", str(tmp_path))
    assert f"{tmp_path / 'ca.crt'} cannot be read" in refused({"transport_mode": "mtls"})
    for name in ("ca.crt", "server.crt", "server.key"):
        (tmp_path / name).touch()
    assert load_settings({"transport_mode": "mtls"}).certificates == tmp_path


def test_a_socket_path_has_a_greatest_length(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 110)
    assert re.search(r"setting --uds: .* longer than the 107 bytes", refused({"uds": long}))


def test_a_runtime_folder_that_others_can_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    assert str(tmp_path / "run") in refused()


def test_settings_cannot_be_changed() -> None:
    found = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        found.max_cores = 3


def test_every_setting_is_documented() -> None:
    text = Settings.__doc__ or ""
    listed = set(Limits.__dataclass_fields__)  # "max_local_jobs, ..., users"
    assert [name for name in Settings.model_fields if name not in text and name not in listed] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_several_errors_are_one_line() -> None:
    text = refused({"max_cores": -1, "retention_days": -2})
    assert "--max-cores" in text
    assert "--retention-days" in text


def test_the_http_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings()
    assert (found.web, found.public_url, found.allowed_hosts, found.trusted_proxies) == (
        ("127.0.0.1", 8080),
        "",
        [],
        [],
    )
    monkeypatch.setenv("EDBJOBS_ALLOWED_HOSTS", "jobs.example.com, Other")
    given = {"public_url": "HTTPS://Jobs.example.com:8443/", "trusted_proxies": ["10.0.0.7/8", "::1"]}
    found = load_settings(given)
    assert found.public_url == "https://jobs.example.com:8443"
    assert found.allowed_hosts == ["jobs.example.com", "other"]
    assert found.trusted_proxies == ["10.0.0.0/8", "::1/128"]
    for url in ("jobs.example.com", "ftp://x", "https://x/path", "https://x/?q", "https://"):
        assert "public-url" in refused({"public_url": url})
    assert "host name" in refused({"allowed_hosts": ["jobs.example.com:8080"]})
    assert "network" in refused({"trusted_proxies": ["nginx"]})
    assert "leave one out" in refused({"transport_mode": "uds", "http": "127.0.0.1:1"})
    assert load_settings({"transport_mode": "uds"}).web is None


def test_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings()
    assert (found.scheduler, found.shared_dir, found.shared_roots, found.cluster_poll_seconds) == ("auto", None, [], 30)
    assert (found.templates_dir, found.hpc_url, found.hpc_credentials, found.hpc_ca) == (None, "", None, None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDBJOBS_SHARED_DIR", "/runs")
    monkeypatch.setenv("EDBJOBS_SHARED_ROOTS", os.pathsep.join(["/a", "/b"]))
    assert (load_settings().shared_dir, load_settings().shared_roots) == (Path("/runs"), [Path("/a"), Path("/b")])
    assert load_settings({"shared_dir": ""}).shared_dir is None
    given: dict[str, Any] = {"shared_dir": "runs", "shared_roots": ["here", "~"], "scheduler": "slurm"}
    found = load_settings(given)
    assert (found.shared_dir, found.shared_roots) == (tmp_path / "runs", [tmp_path / "here", Path.home()])
    assert "setting --scheduler: 'Cray/1' is not allowed" in refused({"scheduler": "Cray/1"})
    for seconds in (0.5, 3601):
        assert "cluster-poll-seconds" in refused({"cluster_poll_seconds": seconds})
    assert "no such home folder" in refused({"shared_dir": "~nobody-of-this-name/runs"})


def test_own_batch_scripts_lie_beside_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = default_config_file().parent / "templates"
    assert f"there is no folder {folder}" in refused({"templates_dir": folder})
    folder.mkdir(parents=True)
    assert load_settings().templates_dir == folder
    file = toml(tmp_path, "")
    assert load_settings(config_file=file).templates_dir is None
    (tmp_path / "templates").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_settings(config_file=Path(file.name)).templates_dir == tmp_path / "templates"
    assert load_settings({"templates_dir": folder}, file).templates_dir == folder
    monkeypatch.setenv("EDBJOBS_TEMPLATES_DIR", str(folder))
    assert load_settings(config_file=file).templates_dir == folder


def test_windows_hpc_needs_a_head_node_and_a_private_password_file(tmp_path: Path) -> None:
    file = tmp_path / "hpc"
    file.write_text("DOMAIN\\ann\nsecret\n")
    file.chmod(0o600)
    assert credentials(file) == ("DOMAIN\\ann", "secret")
    given: dict[str, Any] = {"scheduler": "windows_hpc", "hpc_url": "https://head:443/", "hpc_credentials": file}
    assert load_settings({**given, "hpc_ca": file}).hpc_url == "https://head:443"
    assert "needs hpc_url" in refused({**given, "hpc_url": None})
    assert "needs hpc_credentials" in refused({**given, "hpc_credentials": None})
    for url in ("head", "ftp://head", "https://ann:secret@head", "https://head/?q"):
        assert "expected https://HOST[:PORT] of the head node" in refused({**given, "hpc_url": url})
    assert "expected https:" in refused({**given, "hpc_url": "http://head"})
    assert load_settings({**given, "hpc_url": "http://127.0.0.1:1"}).hpc_url == "http://127.0.0.1:1"
    assert "no file that can be read" in refused({**given, "hpc_ca": tmp_path})
    for text in ("", "ann\n", "ann\n\n", "ann\nsecret\nmore\n"):
        file.write_text(text)
        assert "user on its first line" in refused(given)
    file.write_bytes(b"ann\n\xff\n")
    assert "is not text in UTF-8" in refused(given)
    assert "cannot be read" in refused({**given, "hpc_credentials": tmp_path / "none"})
    file.write_text("ann\nsecret\n")
    if sys.platform != "win32":
        file.chmod(0o640)
        told = refused(given)
        assert "mode 0640" in told
        assert "secret" not in told
