from __future__ import annotations

import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs._endpoint import Endpoint, process_start, write_endpoint
from edbjobs_server import doctor
from edbjobs_server.config.settings import Settings, load_settings
from edbjobs_server.doctor import Check, host, service, solver
from edbjobs_server.store.database import FILE, migrations

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the paths are those of Unix")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("EDBJOBS_", "ANSYS", "AWP_ROOT")):
            monkeypatch.delenv(name)
    (tmp_path / "run").mkdir(0o700)
    monkeypatch.setenv("EDBJOBS_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    return folder


def settings(state: Path, **values: Any) -> Settings:
    return load_settings({"state_dir": state, "grpc": "127.0.0.1:0", **values})


def program(tmp_path: Path) -> Path:
    file = tmp_path / "v252" / "AnsysEM" / "ansysedt"
    file.parent.mkdir(parents=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o700)
    return file


def one(found: Iterator[Check]) -> Check:
    (check,) = found
    return check


def shown(check: Check) -> str:
    return f"{check.status}: {check.text}"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_every_finding_is_one_line_and_what_is_not_ok_has_advice(state: Path) -> None:
    found = doctor.run_checks(settings(state))
    names = {check.name for check in found}
    assert {"versions", "account", "solver", "TCP", "Unix socket", "state folder", "disk", "store"} <= names
    for check in found:
        assert "\n" not in check.text + check.advice
        assert check.status == "ok" or check.advice


def test_a_check_that_cannot_be_made_stops_no_other(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> Iterator[Check]:
        raise PermissionError(13, "Permission denied")
        yield

    monkeypatch.setitem(doctor._CHECKS, "disk", broken)
    found = {check.name: check for check in doctor.run_checks(settings(state))}
    assert shown(found["disk"]).startswith("warn: could not be checked: ")
    assert found["store"].status == "ok"


# Solver and licenses -------------------------------------------------------------------------------------


def test_without_aedt_the_solver_is_missing(state: Path) -> None:
    check = one(solver.releases(settings(state)))
    assert check.status == "fail"
    assert "--demo-solver" in check.advice


def test_an_installed_aedt_is_shown_and_the_stand_in_is_named_as_such(state: Path, tmp_path: Path) -> None:
    found = list(solver.releases(settings(state, solvers=[program(tmp_path)], demo_solver=True)))
    assert shown(found[0]).startswith("ok: AEDT 2025.2 at ")
    assert "solves nothing" in found[-1].text


def test_licenses(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(solver.license_variable(settings(state))) == []  # no AEDT, no license
    with_aedt = settings(state, solvers=[program(tmp_path)])
    assert "is not set" in one(solver.license_variable(with_aedt)).text
    monkeypatch.setenv("ANSYSLMD_LICENSE_FILE", os.pathsep.join(["1055@one", "@two", str(tmp_path), "1055"]))
    found = list(solver.license_variable(with_aedt))
    assert [check.status for check in found] == ["ok", "ok", "ok", "fail"]
    assert "neither PORT@SERVER nor a file" in found[-1].text


def test_license_servers_are_asked_on_wish_only(
    state: Path, monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    free = free_port()
    value = f"{listening.getsockname()[1]}@127.0.0.1,{free}@127.0.0.1"
    monkeypatch.setenv("ANSYSLMD_LICENSE_FILE", value)
    names = [check.name for check in doctor.run_checks(settings(state))]
    assert not any(name.startswith("license server") for name in names)
    found = [item for item in doctor.run_checks(settings(state), network=True) if "license server" in item.name]
    assert [shown(check).split(" (")[0][:25] for check in found] == ["ok: answers", "fail: does not answer: [E"]


# Endpoints ---------------------------------------------------------------------------------------------------


def test_a_port_is_free_ours_or_taken(state: Path, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    free = settings(state, grpc=f"127.0.0.1:{free_port()}")
    assert shown(one(service.tcp(free))).endswith(": free")
    assert one(service.tcp(settings(state))).status == "ok"
    taken = settings(state, grpc=f"127.0.0.1:{port}")
    assert shown(one(service.tcp(taken))) == f"fail: 127.0.0.1:{port}: another program has it"
    me = os.getpid()
    write_endpoint(Endpoint(grpc=f"127.0.0.1:{port}", pid=me, pid_start=process_start(me)))
    assert "this account's service" in one(service.tcp(taken)).text
    write_endpoint(Endpoint(grpc=f"127.0.0.1:{port}", pid=me, pid_start=1))  # another process of that number
    assert one(service.tcp(taken)).status == "fail"


def test_an_address_of_another_host_and_an_open_door_are_told(state: Path) -> None:
    found = list(service.tcp(settings(state, grpc="192.0.2.1:1")))
    assert "no address of this host" in found[0].text
    assert "unencrypted" in found[1].text
    assert one(service.tcp(settings(state, grpc=""))).text == "off"


def test_unix_sockets(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "edbjobs.sock"
    assert one(service.unix_socket(settings(state))).text == f"{path}: free"
    assert one(service.unix_socket(settings(state, uds="none"))).text == "off"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert one(service.unix_socket(settings(state))).status == "ok"  # left behind, nobody listens
        server.listen()
        assert "another service answers" in one(service.unix_socket(settings(state))).text
        write_endpoint(Endpoint(uds=str(path), pid=os.getpid()))
        assert "this account's service" in one(service.unix_socket(settings(state))).text
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert "others" in one(service.unix_socket(settings(state, uds=shared / "s"))).text


def test_a_token_that_others_can_read_is_reported(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "token").write_text("x" * 43)
    (state / "token").chmod(0o644)
    found = list(service.access(settings(state)))
    assert [check.status for check in found] == ["fail", "ok"]
    (state / "token").unlink()
    monkeypatch.setattr(service, "open_peer_sockets", lambda: None)
    assert "every caller needs the token" in one(service.access(settings(state))).text
    assert not (state / "token").exists()


# State folder and store ----------------------------------------------------------------------------------


def test_the_state_folder(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(service.state_folder(settings(state))).status == "ok"
    assert "made at the first start" in one(service.state_folder(settings(state / "a" / "b"))).text
    state.chmod(0o755)
    assert "mode 0755" in one(service.state_folder(settings(state))).text
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written" in one(service.state_folder(settings(state))).text
    monkeypatch.setattr(service, "network_file_system", lambda path: "nfs4")
    assert "network file system (nfs4)" in one(service.state_folder(settings(state))).text


def test_disk(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(service.disk(settings(state, min_free_disk_bytes=2**60))).status == "fail"
    monkeypatch.setattr(service, "_LOW_GIB", 1e9)
    assert one(service.disk(settings(state))).status == "warn"
    monkeypatch.setattr(service, "_LOW_GIB", 0)
    assert one(service.disk(settings(state / "not" / "yet"))).status == "ok"


def make_store(state: Path, schema: int) -> Path:
    file = state / FILE
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE jobs (uid TEXT)")
    connection.executemany("INSERT INTO jobs VALUES (?)", [("x" * 500,)] * 100)
    connection.execute(f"PRAGMA user_version={schema}")
    connection.commit()
    connection.close()
    return file


def test_the_store_is_read_and_left_as_it_is(state: Path) -> None:
    assert "none yet" in one(service.store(settings(state))).text
    file = make_store(state, max(migrations()))
    before = file.read_bytes()
    assert "whole" in one(service.store(settings(state))).text
    assert [item.name for item in state.iterdir()] == [FILE]
    assert file.read_bytes() == before


def test_a_newer_an_older_or_a_broken_store_is_told(state: Path) -> None:
    file = make_store(state, 2)
    assert "before edbjobs had its contract" in one(service.store(settings(state))).text
    file.unlink()
    file = make_store(state, max(migrations()) + 1)
    assert "newer edbjobs" in one(service.store(settings(state))).text
    data = bytearray(file.read_bytes())
    data[5000:9000] = os.urandom(4000)
    file.write_bytes(data)
    assert "--rebuild" in one(service.store(settings(state))).advice
    file.write_bytes(b"no store at all" * 1000)
    assert "cannot be read" in one(service.store(settings(state))).text
    file.rename(state / f"{FILE}.corrupt-20260101T000000Z")
    assert "kept as" in one(service.store(settings(state))).text


def test_project_roots(state: Path, tmp_path: Path) -> None:
    found = list(service.project_roots(settings(state, project_roots=[tmp_path, tmp_path / "none"])))
    assert [check.status for check in found] == ["ok", "warn"]


def test_rebuild_makes_a_store_but_replaces_none_that_is_whole(state: Path) -> None:
    assert doctor.rebuild(settings(state)).jobs == 0
    assert "whole" in one(service.store(settings(state))).text
    with pytest.raises(doctor.StoreError, match="is whole"):
        doctor.rebuild(settings(state))
    (state / FILE).write_bytes(b"no store at all" * 1000)
    report = doctor.rebuild(settings(state))
    assert Path(report.kept).read_bytes().startswith(b"no store")
    assert "whole" in one(service.store(settings(state))).text


# Host ----------------------------------------------------------------------------------------------------


def test_sessions(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "account_name", lambda: "alice")
    here = settings(state)
    assert "no systemd" in one(host.sessions(here, tmp_path)).text
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert one(host.sessions(here, tmp_path)).status == "warn"
    folder = tmp_path / "etc/systemd/logind.conf.d"
    folder.mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf").write_text("[Login]\n#KillUserProcesses=no\nKillUserProcesses=yes\n")
    assert one(host.sessions(here, tmp_path)).status == "fail"
    (folder / "10-site.conf").write_text("[Login]\nKillUserProcesses=no\n")
    assert one(host.sessions(here, tmp_path)).status == "warn"
    (folder / "20-broken.conf").write_text("KillUserProcesses\n[Login\n")
    assert one(host.sessions(here, tmp_path)).status == "warn"
    (folder / "30-last.conf").write_text("[Login]\nKillUserProcesses=1\n")
    assert one(host.sessions(here, tmp_path)).status == "fail"
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/alice").touch()
    assert one(host.sessions(here, tmp_path)).status == "ok"


@pytest.mark.parametrize(
    ("cgroup", "wanted"),
    [
        ("0::/system.slice/edbjobs.service\n", ("edbjobs.service", False)),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/edbjobs.service\n", ("edbjobs.service", True)),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ("", False)),
        ("0::/user.slice/user-1000.slice/user@1000.service\n", ("", False)),
        ("2:cpu:/x.service\n1:name=systemd:/system.slice/a.service\n0::/\n", ("a.service", False)),
        ("", ("", False)),
    ],
)
def test_the_unit_of_a_process(tmp_path: Path, cgroup: str, wanted: tuple[str, bool]) -> None:
    (tmp_path / "cgroup").write_text(cgroup)
    assert host.unit_of(tmp_path / "cgroup") == wanted
    assert host.unit_of(tmp_path / "none") == ("", False)


@pytest.mark.parametrize(("mode", "status"), [("process", "ok"), ("control-group", "fail"), ("mixed", "fail")])
def test_the_kill_mode_of_the_unit(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, status: str
) -> None:
    assert list(host.unit(settings(state))) == []
    write_endpoint(Endpoint(grpc="127.0.0.1:1", pid=os.getpid()))
    monkeypatch.setattr(host, "unit_of", lambda cgroup: ("edbjobs.service", True))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "is unknown" in one(host.unit(settings(state))).text
    script = tmp_path / "systemctl"
    script.write_text(f'#!/bin/sh\n[ "$*" = "--user show -p KillMode --value edbjobs.service" ] && echo {mode}\n')
    script.chmod(0o700)
    check = one(host.unit(settings(state)))
    assert check.status == status
    assert f"KillMode={mode}" in check.text


def test_containers(state: Path, tmp_path: Path) -> None:
    assert list(host.container(settings(state), tmp_path)) == []
    (tmp_path / ".dockerenv").touch()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/1").mkdir()
    (tmp_path / "proc/1/comm").write_text("tini\n")
    mounts = tmp_path / "proc/self/mountinfo"
    mounts.write_text("1 1 0:1 / / rw - overlay overlay rw\n")
    found = list(host.container(settings(state), tmp_path))
    assert [check.status for check in found] == ["warn", "ok"]
    assert "-v edbjobs:" in found[0].advice
    mounts.write_text(f"1 1 0:1 / / rw - overlay overlay rw\n2 1 0:2 / {state} rw - ext4 /dev/x rw\n")
    (tmp_path / "proc/1/comm").write_text("python3\n")
    assert "--init" in one(host.container(settings(state), tmp_path)).advice


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
