"""The site's policy: who may write it, what it says, and that it outranks the settings."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from edbjobs_server.config.settings import EmbeddedSettings, Settings, SettingsError
from edbjobs_server.config.site_policy import SITE_FILE, SitePolicy, load_site_policy
from edbjobs_server.core.cluster_policy import ClusterPolicy


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("EDBJOBS_", "ANSYS_GRPC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EDBJOBS_RUNTIME_DIR", str(tmp_path / "run"))


def policy_file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "site.toml"
    file.write_text(text)
    file.chmod(0o644)
    return file


def refused(file: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_site_policy(file)
    text = str(caught.value)
    assert text.startswith(f"site policy {file}")
    assert "\n" not in text
    return text


def settings(**values: Any) -> Settings:
    return EmbeddedSettings(uds=None, **values)


def test_without_a_file_there_are_no_rules(tmp_path: Path) -> None:
    assert load_site_policy(tmp_path / "none" / "site.toml") == SitePolicy()
    if sys.platform != "win32":
        assert Path("/etc/edbjobs/site.toml") == SITE_FILE


def test_all_of_a_policy_is_read(tmp_path: Path) -> None:
    file = policy_file(
        tmp_path,
        r"""
        local_runs = false
        login_nodes = ["login*"]
        min_poll_seconds = 60
        max_cluster_jobs = 100
        partitions = ["short", "long"]
        default_partition = "long"
        accounts = ["em"]
        default_account = "em"
        setup = ["module load ansys-em/2025R2", "export X='a b'"]
        scratch = "$TMPDIR"
        shared_dir = "/shared/runs"
        shared_roots = ["/shared", "/home"]
        extra_options = ["switches"]
        [path_map]
        "/shared/" = '\\server\share'
        """,
    )
    assert load_site_policy(file) == SitePolicy(
        local_runs=False,
        login_nodes=("login*",),
        min_poll_seconds=60,
        max_cluster_jobs=100,
        partitions=("short", "long"),
        default_partition="long",
        accounts=("em",),
        default_account="em",
        setup=("module load ansys-em/2025R2", "export X='a b'"),
        scratch="$TMPDIR",
        shared_dir=Path("/shared/runs"),
        shared_roots=(Path("/shared"), Path("/home")),
        extra_options=("switches",),
        path_map={"/shared": "\\\\server\\share"},
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("locale_runs = true", "there is no key locale_runs; there are local_runs,"),
        ("local_runs = 1", "local_runs: 1 is not allowed"),
        ("min_poll_seconds = -1", "min_poll_seconds: -1 is not allowed"),
        ("min_poll_seconds = 4000", "min_poll_seconds: 4000 is not allowed"),
        ("max_cluster_jobs = true", "max_cluster_jobs: True is not allowed: expected a number"),
        ('partitions = ["a", "b c"]', "partitions.1: 'b c' is not allowed: expected a name without blanks"),
        ('partitions = ["a,b"]', "partitions.0"),
        ('extra_options = ["--wrap"]', "extra_options.0"),
        ('partitions = ["a"]\ndefault_partition = "b"', "default_partition: 'b' is not one of partitions"),
        ('accounts = ["a"]\ndefault_account = "b"', "default_account: 'b' is not one of accounts"),
        ('setup = ["module load x\\nrm -rf y"]', "setup.0"),
        ('setup = [""]', "setup.0"),
        ('setup = "module load x"', "setup"),
        ('scratch = "/a\\u2028b"', "scratch"),
        ("scratch = '/a\"'", "scratch"),
        ("scratch = '$(mktemp)'", "no quotes and commands"),
        ('shared_dir = "runs"', "shared_dir: 'runs' is not allowed: expected an absolute path"),
        ('shared_dir = "~nobody-of-this-name/runs"', "no such home folder"),
        ('shared_roots = ["/a\\u0001"]', "shared_roots.0"),
        ('path_map = { "shared" = "\\\\\\\\server\\\\share" }', "path_map.shared"),
        ('path_map = { "/shared" = "Z:" }', "path_map./shared: 'Z:' is not allowed"),
        ("a = ", "is not TOML"),
    ],
)
def test_what_is_not_allowed_is_named_with_file_and_key(tmp_path: Path, line: str, told: str) -> None:
    assert told in refused(policy_file(tmp_path, line))


def test_a_policy_that_cannot_be_read_keeps_the_service_from_starting(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "cannot be read" in refused(folder)
    assert "cannot be read" in refused(policy_file(tmp_path, "") / "site.toml")  # a file where a folder should be
    (tmp_path / "bytes.toml").write_bytes(b'a = "\xff"')
    assert "is not TOML" in refused(tmp_path / "bytes.toml")
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nowhere")
    assert "leads nowhere" in refused(link)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_a_policy_that_somebody_else_could_have_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = policy_file(tmp_path, "")
    assert load_site_policy(file) == SitePolicy()
    file.chmod(0o666)
    assert "can be written by everybody" in refused(file)
    file.chmod(0o644)
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in refused(tmp_path / "pipe")
    stranger = os.geteuid() + 1
    found = os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, stranger, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _: found)
    assert f"belongs to the account {stranger}" in refused(file)


@pytest.mark.parametrize(
    ("local_runs", "host", "answers", "allowed"),
    [
        (None, "login1", True, False),
        (None, "LOGIN1.example.com", True, False),
        (None, "login1", False, True),
        (None, "ws7", True, True),
        (None, "gate.example.com", True, False),
        (None, "gate.elsewhere.com", True, True),
        (True, "login1", True, True),
        (False, "ws7", False, False),
    ],
)
def test_where_solves_may_run(local_runs: bool | None, host: str, answers: bool, allowed: bool) -> None:
    site = SitePolicy(local_runs=local_runs, login_nodes=("Login?", "gate.example.com"))
    why = site.local_allowed(host, answers)
    assert (why == "") is allowed
    assert allowed or (host in why and "its scheduler" in why)
    assert SitePolicy().local_allowed(host, answers) == ""


def test_floor_and_ceiling() -> None:
    site = SitePolicy(min_poll_seconds=60, max_cluster_jobs=10)
    assert [site.poll_seconds(seconds) for seconds in (30, 90)] == [60, 90]
    assert [site.cluster_jobs(jobs) for jobs in (None, 0, 5, 20)] == [10, 0, 5, 10]
    assert [SitePolicy().cluster_jobs(jobs) for jobs in (None, 0, 5)] == [None, 0, 5]
    assert SitePolicy(max_cluster_jobs=0).cluster_jobs(5) == 0
    assert SitePolicy().poll_seconds(30) == 30


def test_the_policy_outranks_the_settings_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    mine = settings(
        shared_dir="/mine", shared_roots=["/mine"], cluster_poll_seconds=10, max_cluster_jobs=20, max_cores=1
    )
    site = SitePolicy(
        partitions=("a",),
        default_partition="a",
        accounts=("x",),
        default_account="x",
        extra_options=("o",),
        shared_dir=Path("/site"),
        shared_roots=(tmp_path / "link",),
        min_poll_seconds=60,
        max_cluster_jobs=10,
    )
    real = (tmp_path / "real").resolve()
    assert site.cluster_policy(mine) == ClusterPolicy(("a",), "a", ("x",), "x", ("o",), Path("/site"), (real,))
    assert site.warnings(mine) == [
        "setting shared_dir: the site's policy outranks /mine; /site holds",
        f"setting shared_roots: the site's policy outranks /mine; {tmp_path / 'link'} holds",
        "setting cluster_poll_seconds: the site's policy outranks 10.0; 60.0 holds",
        "setting max_cluster_jobs: the site's policy outranks 20; 10 holds",
    ]
    assert site.warnings(settings()) == []
    assert SitePolicy().warnings(mine) == []
    assert SitePolicy().cluster_policy(mine) == ClusterPolicy(shared_dir=Path("/mine"), shared_roots=(Path("/mine"),))
    assert SitePolicy().cluster_policy(settings()) == ClusterPolicy()


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SitePolicy().local_runs = True
