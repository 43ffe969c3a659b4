"""Schedulers are plug-ins: another package's is found by its entry point, and a broken one harms nobody."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from edbjobs_server.config.settings import Settings, SettingsError
from edbjobs_server.config.site_policy import SitePolicy
from edbjobs_server.executors.schedulers.plugin import plugins
from edbjobs_server.service.cluster_factory import installed, make_clusters, make_scheduler

PACKAGE = '''
from edbjobs_server.executors.schedulers.base import SamePaths
from edbjobs_server.executors.schedulers.plugin import SchedulerPlugin

class Flux(SamePaths):
    """Another scheduler."""

    name, template = "flux", "flux.sh.j2"

    def __init__(self, environ):
        self.environ = environ

PLUGIN = SchedulerPlugin("flux", lambda context: Flux(context.environ), commands=("flux",))
OTHER = "no plug-in"
BROKEN = SchedulerPlugin("flux", lambda context: 1 / 0, commands=("flux",))
'''
BUILT_IN = ["slurm", "lsf", "pbs", "windows_hpc"]


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of packages that Python finds, with one that has a scheduler."""
    (tmp_path / "flux_for_edbjobs.py").write_text(PACKAGE)
    points(tmp_path, flux="flux_for_edbjobs:PLUGIN")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def points(folder: Path, **named: str) -> None:
    info = folder / "flux_for_edbjobs-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flux-for-edbjobs\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in named.items()]
    (info / "entry_points.txt").write_text("\n".join(["[edbjobs.schedulers]", *lines, ""]))


def settings(tmp_path: Path, scheduler: str = "auto") -> Settings:
    return Settings(state_dir=tmp_path / "state", scheduler=scheduler)


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    """Return an environment in which the command of Flux is installed, and no other scheduler's."""
    program = tmp_path / "bin" / "flux"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return {"PATH": str(program.parent)}


def test_the_built_in_schedulers_are_plug_ins() -> None:
    assert list(plugins()[0]) == BUILT_IN


def test_the_scheduler_of_another_package_is_found_and_made(
    site_packages: Path, tmp_path: Path, environ: Mapping[str, str]
) -> None:
    assert list(plugins()[0]) == [*BUILT_IN, "flux"]
    assert installed(settings(tmp_path), environ) == ["flux"]
    assert make_scheduler("flux", settings(tmp_path), SitePolicy(), environ).name == "flux"


def test_one_whose_commands_are_missing_says_which(site_packages: Path, tmp_path: Path) -> None:
    assert installed(settings(tmp_path), {"PATH": str(tmp_path / "nowhere")}) == []
    with pytest.raises(SettingsError, match="scheduler: flux needs flux on PATH"):
        installed(settings(tmp_path, "flux"), {"PATH": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("broken", ["flux_for_edbjobs:OTHER", "flux_for_edbjobs:MISSING", "no_such_module:PLUGIN"])
def test_a_broken_plug_in_is_logged_and_the_others_stay(
    site_packages: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    points(site_packages, flux=broken)
    with caplog.at_level(logging.WARNING):
        assert list(plugins()[0]) == BUILT_IN
    assert f"scheduler plug-in flux is left out: {broken}" in caplog.text
    with pytest.raises(SettingsError, match="plug-in flux cannot be used"):
        installed(settings(site_packages, "flux"), {})


def test_one_that_cannot_be_made_is_left_out_unless_it_is_named(
    site_packages: Path, tmp_path: Path, environ: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    points(site_packages, flux="flux_for_edbjobs:BROKEN")
    with caplog.at_level(logging.WARNING):
        assert make_clusters(settings(tmp_path), SitePolicy(), environ, "store") == {}
    assert "the plug-in flux failed: ZeroDivisionError" in caplog.text
    with pytest.raises(SettingsError, match="the plug-in flux failed"):
        make_clusters(settings(tmp_path, "flux"), SitePolicy(), environ, "store")


def test_a_name_without_a_plug_in_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no plug-in flux; installed are slurm, lsf, pbs, windows_hpc"):
        installed(settings(tmp_path, "flux"), {})
