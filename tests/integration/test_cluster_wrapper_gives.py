"""What a batch script gives to AEDT under plain bash: its machines, its launcher, scratch folders, the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.cluster.script import SiteLines
from edbjobs_server.solver.command_line import MACHINES, SCRATCH, SPAWN
from support.cluster_script import DEADLINE, SCHEDULERS, Bench, is_alive, members, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="batch scripts run on Linux nodes")

ARGUMENTS = ("-machinelist", MACHINES, "-batchoptions", f"'A'='it''s' 'S'='{SPAWN}' 'TempDirectory'='{SCRATCH}'")
SHOWS = 'printf "%s\\n" "$@"'


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(
    ("hosts", "auto", "gpus", "machines"),
    [
        (("n1",), True, 0, "list=localhost:-1:8:90%"),
        (("n1",), False, 2, "list=localhost:2:8:90%:2"),
        (("n1", "n2", "n3", "n4"), True, 0, "list=n1:-1:8:90%,n2:-1:8:90%,n3:-1:8:90%,n4:-1:8:90%"),
        (("n1", "n2", "n3", "n4"), False, 1, "list=n1:2:8:90%:1,n2:2:8:90%:1,n3:2:8:90%:1,n4:2:8:90%:1"),
    ],
)
def test_the_machine_list(
    tmp_path: Path, scheduler: str, hosts: tuple[str, ...], auto: bool, gpus: int, machines: str
) -> None:
    arguments = (*ARGUMENTS, *(["-auto"] if auto else []))
    bench = Bench(tmp_path, scheduler, SHOWS, arguments, hosts=hosts, gpus=gpus)
    lines = bench.shown()
    assert lines[:4] == ["-machinelist", machines, "-batchoptions", "'A'='it''s' 'S'='SSH' 'TempDirectory'=''"]
    start = bench.read().start
    assert start is not None
    assert start.nodes == hosts


def test_lsf_tells_the_cores_of_each_host(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "lsf", SHOWS, ARGUMENTS, hosts=("n1", "n2"))
    script = record.prepare(bench.folder, bench.text())
    env = {**bench.environment(), "LSB_MCPU_HOSTS": "n1 4 n2 8 n1 4 n3 2"}
    subprocess.run(["bash", str(script)], env=env, timeout=DEADLINE, check=True)
    lines = (bench.folder / "stdout").read_text().splitlines()
    assert lines[1] == "list=n1:2:8:90%,n2:2:8:90%,n3:2:2:90%"


@pytest.mark.parametrize(("auto", "machines"), [(True, "numcores=32"), (False, "num=8")])
def test_aedts_own_slurm_launcher(tmp_path: Path, auto: bool, machines: str) -> None:
    arguments = (*ARGUMENTS, *(["-auto"] if auto else []))
    bench = Bench(tmp_path, "slurm", SHOWS, arguments, hosts=("n1", "n2", "n3", "n4"))
    utils = bench.tools / "schedulers/scripts/utils"
    utils.mkdir(parents=True)
    seen = 'echo "$ANSYSEM_GENERIC_MPI_WRAPPER"; echo "$ANSYSEM_COMMON_PREFIX"; echo "$*" | sed "s/ -- .*//"'
    bench.tool("srun", seen + '; while [ "$1" != --overlap ]; do shift; done; shift; exec "$@"')
    bench.tool("schedulers/scripts/utils/ansysedt_launcher.sh", 'echo launched; exec "$@"')
    bench.tool("schedulers/scripts/utils/slurm_srun_wrapper.sh", "exit 9")
    lines = bench.shown()
    assert lines[:3] == ["launched", str(utils / "slurm_srun_wrapper.sh"), str(bench.tools / "common")]
    assert lines[3].startswith("--overcommit --export=ALL -n 1 -N 1 --cpu-bind=none --mem-per-cpu=0 --overlap ")
    assert lines[5] == machines
    assert "'S'='Scheduler'" in lines[7]


def test_many_nodes_that_cannot_be_told_are_no_reason_to_run_on_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, hosts=("n1", "n2"))
    bench.tool("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert bench.run()[0] == record.REFUSAL_CODE
    assert "nodes of job 41" in bench.read().refusal


def test_one_node_needs_no_telling(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program=SHOWS, arguments=ARGUMENTS)
    bench.tool("scontrol", "exit 1")
    assert bench.shown()[1] == "list=localhost:2:8:90%"


@pytest.mark.parametrize(("scheduler", "command"), [("slurm", "srun"), ("lsf", "blaunch"), ("pbs", "pbsdsh")])
def test_a_scratch_folder_of_its_own(tmp_path: Path, scheduler: str, command: str) -> None:
    site = SiteLines(scratch="$HOME/scr atch")
    bench = Bench(tmp_path, scheduler, f'{SHOWS}; stat -c %a "$HOME"/scr\\ atch/*', ARGUMENTS, site=site)
    expected = tmp_path / "scr atch" / "edb-j1-0123456789abcdef-1"
    lines = bench.shown()
    assert f"'TempDirectory'='{expected}'" in lines[3]
    assert lines[-1] == "700"
    assert not expected.exists()
    assert (tmp_path / "scr atch").exists()
    assert not (tmp_path / "everywhere").exists()


@pytest.mark.parametrize(("scheduler", "command"), [("slurm", "srun"), ("lsf", "blaunch"), ("pbs", "pbsdsh")])
def test_scratch_folders_of_many_nodes(tmp_path: Path, scheduler: str, command: str) -> None:
    bench = Bench(tmp_path, scheduler, hosts=("n1", "n2"), site=SiteLines(scratch="$HOME/scratch"))
    assert bench.run()[0] == 0
    made, removed = (tmp_path / "everywhere").read_text().splitlines()
    name = tmp_path / "scratch" / "edb-j1-0123456789abcdef-1"
    assert made.startswith(f"{command} ")
    assert made.endswith(f"mkdir -p -m 700 -- {name}")
    assert removed.endswith(f"rm -rf -- {name}")


@pytest.mark.parametrize("scratch", ["$NOWHERE", "relative", "/"])
def test_a_scratch_folder_that_is_none(tmp_path: Path, scratch: str) -> None:
    bench = Bench(tmp_path, site=SiteLines(scratch=scratch))
    assert bench.run()[0] == record.REFUSAL_CODE
    assert "scratch" in bench.read().refusal


def test_a_scratch_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bench = Bench(tmp_path, site=SiteLines(scratch="$HOME/file"))
    assert bench.run()[0] == record.REFUSAL_CODE
    assert "scratch" in bench.read().refusal


def test_lines_of_the_site_come_before_what_the_job_adds(tmp_path: Path) -> None:
    site = SiteLines(setup=("export ANS_A=site ANS_B=site", "set -eu", "umask 000", "# only a comment"))
    program = 'echo "$ANS_A $ANS_B $LANG ${LC_ALL-none}"'
    bench = Bench(tmp_path, program=program, site=site, additions={"ANS_A": "job's"}, env={"LANG": "de_DE", "X": "1"})
    assert bench.shown() == ["job's site de_DE none"]
    assert (bench.folder / "exit").stat().st_mode & 0o077 == 0


def test_what_the_sites_lines_leave_running_does_not_keep_the_heart_beating(tmp_path: Path) -> None:
    """A helper that a site starts may outlive the script; the pipe of the heartbeat must not be held open by it."""
    site = SiteLines(setup=('setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $! >"$HOME/helper"',))
    bench = Bench(tmp_path, site=site)
    try:
        with bench.started() as child:
            child.wait(DEADLINE)
            until(lambda: not members(child.pid), "the heartbeat has ended")
            assert is_alive(int((tmp_path / "helper").read_text()))
    finally:
        os.kill(int((tmp_path / "helper").read_text()), signal.SIGKILL)
