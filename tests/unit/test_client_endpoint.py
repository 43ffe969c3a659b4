from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from edbjobs import Endpoint, TargetError, read_endpoint, runtime_dir, write_endpoint
from edbjobs._endpoint import process_start, remove_endpoint, resolve_target

VARIABLES = ("EDBJOBS_RUNTIME_DIR", "EDBJOBS_TARGET", "EDBJOBS_TOKEN", "XDG_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def here(**fields: str | int) -> Endpoint:
    return Endpoint(host=socket.gethostname(), **fields)  # type: ignore[arg-type]


def test_the_runtime_folder_is_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_dir() == tmp_path / f"edbjobs-{os.geteuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_dir() == tmp_path / "edbjobs"
    monkeypatch.setenv("EDBJOBS_RUNTIME_DIR", str(tmp_path / "own"))
    assert runtime_dir() == tmp_path / "own"
    assert not runtime_dir().exists()
    assert stat.S_IMODE(runtime_dir(create=True).stat().st_mode) == 0o700


@pytest.mark.parametrize("attack", ["link", "file", "open", "foreign"])
def test_a_runtime_folder_that_others_could_have_made_is_refused(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"edbjobs-{os.geteuid()}"
    if attack == "link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    elif attack == "file":
        folder.touch()
    else:
        folder.mkdir(mode=0o700)
    if attack == "open":
        folder.chmod(0o777)
    if attack == "foreign":
        if os.geteuid() != 0:
            pytest.skip("needs root, to give a folder to another account")
        os.chown(folder, 12345, 12345)
    with pytest.raises(TargetError, match="EDBJOBS_RUNTIME_DIR"):
        resolve_target()


@pytest.mark.needs_root
def test_a_runtime_folder_of_another_account_in_the_environment_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a folder to another account")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    assert runtime_dir() == tmp_path / "edbjobs-0"


def test_the_file_is_written_whole_and_for_this_account_only() -> None:
    endpoint = here(grpc="127.0.0.1:4711", pid=os.getpid(), pid_start=process_start(os.getpid()))
    path = write_endpoint(endpoint)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_endpoint() == endpoint
    assert [item.name for item in path.parent.iterdir()] == ["endpoint.json"]


def test_a_ready_file_is_written_at_the_given_path(tmp_path: Path) -> None:
    assert write_endpoint(here(grpc="127.0.0.1:1"), tmp_path / "ready.json") == tmp_path / "ready.json"
    assert read_endpoint(tmp_path / "ready.json") == here(grpc="127.0.0.1:1")


def test_only_its_own_file_is_removed() -> None:
    mine, other = here(grpc="127.0.0.1:1"), here(grpc="127.0.0.1:2")
    write_endpoint(other)
    remove_endpoint(mine)
    assert read_endpoint() == other
    remove_endpoint(other)
    assert read_endpoint() is None
    remove_endpoint(other)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_a_malformed_file_is_reported(text: str) -> None:
    (runtime_dir(create=True) / "endpoint.json").write_text(text)
    with pytest.raises(TargetError, match="not what a service writes"):
        read_endpoint()


def test_keys_of_a_newer_service_are_passed_over() -> None:
    (runtime_dir(create=True) / "endpoint.json").write_text('{"grpc": "127.0.0.1:5", "uds": null, "quic": 1}')
    assert read_endpoint() == Endpoint(grpc="127.0.0.1:5")


def test_the_address_is_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_target().address == "127.0.0.1:18080"
    token = tmp_path / "token"
    token.write_text("t1\n")
    write_endpoint(here(grpc="127.0.0.1:5", uds=str(tmp_path / "socket"), token_file=str(token)))
    # The socket is preferred, but only if it is there.
    assert (resolve_target().address, resolve_target().token) == ("127.0.0.1:5", "t1")
    (tmp_path / "socket").touch()
    assert resolve_target().address == f"unix:{tmp_path}/socket"
    monkeypatch.setenv("EDBJOBS_TARGET", "host:6")
    assert (resolve_target().address, resolve_target().token) == ("host:6", "")
    monkeypatch.setenv("EDBJOBS_TOKEN", "t2")
    assert resolve_target("unix:/x").address == "unix:/x"
    assert resolve_target("host:7").token == "t2"
    assert resolve_target("host:7", "t3").token == "t3"


def test_an_address_of_another_hosts_loopback_is_not_used() -> None:
    write_endpoint(Endpoint(grpc="127.0.0.1:5", host="some-other-host"))
    assert resolve_target().address == "127.0.0.1:18080"


def test_a_token_that_cannot_be_read_is_left_out() -> None:
    write_endpoint(here(grpc="127.0.0.1:5", token_file="/not/there"))
    assert resolve_target().token == ""


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:x", "host:0", "host:70000", "http://host:1", "unix:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="host:port"):
        resolve_target(text)


def test_a_process_is_distinguished_from_a_later_one_with_its_pid() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid()) > 0
    assert process_start(2**22 + 1) == 0
