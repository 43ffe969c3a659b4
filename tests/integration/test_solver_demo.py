"""The demo solver, really run: what it leaves behind, how it fails, and what is made of that."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import JobConfig
from edbjobs_server.core.runs import Ending, RunEnded, RunKey
from edbjobs_server.core.states import Evidence, Reason, State
from edbjobs_server.solver import command_line, project, project_results
from edbjobs_server.solver.batch_log import find_log, read_log
from edbjobs_server.solver.demo import example_project
from edbjobs_server.solver.demo.behavior import FAILURES
from edbjobs_server.solver.environment import environment
from edbjobs_server.solver.releases import choose, discover
from edbjobs_server.solver.request import SolveRequest
from edbjobs_server.solver.verdict import Verdict, judge

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "aedb"
DEADLINE = 30.0
PROVEN = (State.COMPLETED, Reason.NORMAL, Evidence.SOLVER_LOG)
Solve = Callable[..., Verdict]


@pytest.fixture
def aedt(tmp_path: Path) -> Path:
    return example_project(tmp_path)


@pytest.fixture
def solve(tmp_path: Path) -> Solve:
    """Solve a project with the demo solver, from configuration to verdict."""

    def solved(path: Path, how: str = "seconds=0", witness: str = "", **fields: Any) -> Verdict:
        wish = JobConfig(project_path=str(path), environment={"ANS_EDBJOBS_DEMO": how}, **fields)
        added = {**wish.environment, **({"ANS_EDBJOBS_DEMO_WITNESS": witness} if witness else {})}
        started = time.time()
        outputs = [tmp_path / "stdout", tmp_path / "stderr"]
        argv = command_line.command_line(
            wish, choose(discover({}, demo=True), "", ""), "run-1", 2, project_path=str(path)
        )
        with outputs[0].open("wb") as out, outputs[1].open("wb") as err:
            done = subprocess.run(
                argv, env=environment(os.environ, added), stdout=out, stderr=err, timeout=DEADLINE, check=False
            )
        ended = RunEnded(RunKey(1, "u", 1), Ending.EXITED, time.time(), started, done.returncode)
        return judge(
            ended, project_path=path, job_name="run-1", stdout=outputs[0], stderr=outputs[1],
            request=SolveRequest.from_message(wish.to_message()),
        )  # fmt: skip

    return solved


def summary(verdict: Verdict) -> tuple[State, Reason, Evidence]:
    return verdict.reason.state, verdict.reason, verdict.evidence


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"stdout", "stderr"}


def run(*arguments: str, how: str = "seconds=0") -> subprocess.CompletedProcess[str]:
    program = choose(discover({}, demo=True), "", "").path
    env = {**os.environ, "ANS_EDBJOBS_DEMO": how}
    return subprocess.run([program, *arguments], env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_a_solve_leaves_what_aedt_leaves(aedt: Path, solve: Solve) -> None:
    verdict = solve(aedt, design="Patch", setup="Setup1")
    assert summary(verdict) == PROVEN
    assert verdict.log_path == find_log(aedt, "run-1")
    assert names(aedt.parent) == {
        aedt.name, f"{aedt.name}.batchinfo", f"{aedt.name}.q.completed", "patch_antenna.aedtresults",
    }  # fmt: skip
    assert Path(f"{aedt}.q.completed").read_text() == "JobID='run-1'\n"
    assert list((aedt.parent / "patch_antenna.aedtresults").rglob("Setup1.asol"))
    assert "demo solver" in (aedt.parent / "stdout").read_text().splitlines()[0]
    assert "demo solver" in verdict.log_path.read_text().splitlines()[1]


def test_what_is_printed_with_monitor_is_the_log(aedt: Path, solve: Solve) -> None:
    path = solve(aedt).log_path
    assert path is not None
    assert path.read_text() in (aedt.parent / "stdout").read_text()
    solve(aedt, monitor=False)
    assert len((aedt.parent / "stdout").read_text().splitlines()) == 1


def test_all_setups_or_the_requested_one(tmp_path: Path, solve: Solve) -> None:
    path = example_project(tmp_path, "via_transition")
    assert summary(solve(path)) == PROVEN
    assert set(read_log(find_log(path, "run-1")).setups) == {"Coarse", "Fine"}
    assert summary(solve(path, design="Via", setup="Coarse")) == PROVEN
    assert set(read_log(find_log(path, "run-1")).setups) == {"Coarse"}
    verdict = solve(path, design="Via", setup="Absent")
    assert verdict.reason is Reason.NOTHING_SOLVED
    found = read_log(find_log(path, "run-1"))
    assert found.finished


def test_batch_options_count(tmp_path: Path, solve: Solve) -> None:
    path = example_project(tmp_path, "via_transition")
    assert summary(solve(path, layout_options={"solve_adaptive_only": True})) == PROVEN
    assert "Discrete" not in find_log(path, "run-1").read_text()
    assert summary(solve(path, layout_options={"validate_only": True})) == PROVEN
    assert read_log(find_log(path, "run-1")).setups == {}


EXPECTED = {
    "license": (Reason.LICENSE, 1, "licensing pool"),
    "engine": (Reason.SOLVER_ERROR, 0, "process hf3d exited with code -1073741819"),
    "mpi": (Reason.SOLVER_ERROR, 1, "via MPI failed"),
    "model": (Reason.SOLVER_ERROR, 0, "process hf3d error"),
    "sweep": (Reason.SOLVER_ERROR, 0, "Sweep Sweep1 failed"),
    "convergence": (Reason.NORMAL, 0, "not converged"),
    "killed": (Reason.EXIT_CODE, 137, "signal 9"),
    "cut": (Reason.UNVERIFIED, 0, "has no normal end"),
    "nothing": (Reason.NOTHING_SOLVED, 0, "nothing was solved"),
    "nolog": (Reason.NORMAL, 0, "left no log"),
    "exit": (Reason.EXIT_CODE, 3, "exit code 3"),
}


def test_every_failure_is_tried() -> None:
    assert EXPECTED.keys() == FAILURES.keys() - {"hang"}


@pytest.mark.parametrize("fail", EXPECTED)
def test_failures_are_distinguished(aedt: Path, solve: Solve, fail: str) -> None:
    reason, code, text = EXPECTED[fail]
    verdict = solve(aedt, f"seconds=0,fail={fail}")
    assert (verdict.reason, verdict.exit_code) == (reason, code)
    assert verdict.reason.state is (State.COMPLETED if reason is Reason.NORMAL else State.FAILED)
    assert text in verdict.message
    assert Path(f"{aedt}.lock").exists() is (fail == "killed")
    assert solve(aedt, "seconds=0,exit=9").exit_code == (1 if fail == "killed" else 9)


def test_the_project_can_contain_the_options(aedt: Path, solve: Solve) -> None:
    text = aedt.read_text()
    aedt.write_text(text.replace("seconds=4", "seconds=0\n\t\tfail=license"))
    assert solve(aedt, "").reason is Reason.LICENSE
    assert summary(solve(aedt, "fail=")) == PROVEN, "the variable has the last word"


def test_an_old_log_proves_nothing(aedt: Path, solve: Solve) -> None:
    assert summary(solve(aedt)) == PROVEN
    path = find_log(aedt, "run-1")
    path.write_text(
        path.read_text().replace("Starting Batch Run: ", "Starting Batch Run: 1:00:00 AM  Jan 01, 2020 was ")
    )
    verdict = solve(aedt, "seconds=0,fail=nolog")
    assert summary(verdict) == (State.FAILED, Reason.UNVERIFIED, Evidence.EXIT_CODE)


def test_runs_are_appended_and_the_last_one_counts(aedt: Path, solve: Solve) -> None:
    assert solve(aedt, "seconds=0,fail=engine").reason is Reason.SOLVER_ERROR
    assert summary(solve(aedt)) == PROVEN
    assert find_log(aedt, "run-1").read_text().count("Starting Batch Run") == 2


def test_a_project_that_another_has_open_is_not_touched(aedt: Path, solve: Solve) -> None:
    lock = Path(f"{aedt}.lock")
    lock.write_text("another")
    verdict = solve(aedt)
    assert (verdict.reason.state, verdict.exit_code) == (State.FAILED, 1)
    assert lock.read_text() == "another"
    assert names(aedt.parent) == {aedt.name, lock.name}


def test_large_output_fills_stdout_not_the_log(aedt: Path, solve: Solve) -> None:
    assert summary(solve(aedt, "seconds=0,output=20")) == PROVEN
    assert (aedt.parent / "stdout").stat().st_size > 20 * 1024 * 1024
    assert find_log(aedt, "run-1").stat().st_size < 100_000


def test_a_closed_stdout_does_not_stop_the_solve(aedt: Path) -> None:
    program = choose(discover({}, demo=True), "", "").path
    env = {**os.environ, "ANS_EDBJOBS_DEMO": "seconds=0.5"}
    with subprocess.Popen(
        [program, "-monitor", "-jobid", "run-1", "-batchsolve", aedt], env=env, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(DEADLINE) == 0
    assert read_log(find_log(aedt, "run-1")).setups["Setup1"].normal


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("how", ["seconds=0", "seconds=0,output=1"])
def test_a_full_disk_under_stdout_does_not_stop_the_solve(aedt: Path, how: str) -> None:
    program = choose(discover({}, demo=True), "", "").path
    env = {**os.environ, "ANS_EDBJOBS_DEMO": how}
    argv = [str(program), "-monitor", "-jobid", "run-1", "-batchsolve", str(aedt)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, env=env, stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_log(find_log(aedt, "run-1")).setups["Setup1"].normal


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample projects are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "setup"),
    [("test_project_for_job_manager", "HFSS_Solution"), ("test_107", "Setup1"), ("edge_ports", "Setup1")],
)
def test_real_aedb_folders_are_taken(tmp_path: Path, solve: Solve, name: str, setup: str) -> None:
    path = tmp_path / f"{name}.aedb"
    shutil.copytree(SAMPLES / path.name, path, copy_function=shutil.copyfile)
    path.chmod(0o755)
    assert summary(solve(path)) == PROVEN
    found = read_log(find_log(path, "run-1"))
    assert list(found.setups) == [setup]
    if name == "test_project_for_job_manager":
        assert (found.setups[setup].passes_done, found.setups[setup].points) == (2, 41)
    assert "demo solver" in path.with_suffix(".aedt").read_text()
    assert project_results.results_exist(project.inspect(str(path))) == (tmp_path / f"{name}.aedtresults",)


def test_a_run_is_witnessed(aedt: Path, solve: Solve, tmp_path: Path) -> None:
    folder = tmp_path / "witness"
    folder.mkdir()
    solve(aedt, witness=str(folder))
    solve(aedt, "seconds=0,fail=killed", witness=str(folder))
    lines = [line.split() for line in (folder / "run-1").read_text().splitlines()]
    assert [line[0] for line in lines] == ["start", "end", "start"]
    assert all(len(line) == 6 and line[1] == "run-1" for line in lines)
    assert lines[0][2:5] == lines[1][2:5] != lines[2][2:5]
    assert int(lines[0][5]) < int(lines[1][5]) < int(lines[2][5])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "-batchsolve"),
        (["-batchsolve"], "-batchsolve"),
        (["-batchsolve", "a", "b", "c"], "selector"),
        (["-quick", "-batchsolve", "a.aedt"], "unknown option '-quick'"),
        (["-abort", "-batchsolve", "a.aedt"], "unknown option"),
        (["stray", "-batchsolve", "a.aedt"], "no option"),
        (["-machinelist", "list=h:1", "-batchsolve", "a.aedt"], "host:tasks:cores"),
        (["-machinelist", "8", "-batchsolve", "a.aedt"], "list="),
        (["-machinelist", "num=0", "-batchsolve", "a.aedt"], "positive"),
        (["-batchoptions", "'A'='1' junk", "-batchsolve", "a.aedt"], "junk"),
        (["-batchoptions", "/no/file", "-batchsolve", "a.aedt"], "No such file"),
        (["-batchsolve", "a.aedt", "-jobid"], "needs a value"),
        (["-jobid", "../x", "-batchsolve", "a.aedt"], "slash"),
    ],
)
def test_a_wrong_command_line_is_an_error(arguments: list[str], word: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert word in done.stderr


@pytest.mark.parametrize(
    "how", ["fail=maybe", "seconds=soon", "seconds=-1", "speed=2", "seconds", "children=wild", "term=x"]
)
def test_a_wrong_wish_is_an_error(aedt: Path, how: str) -> None:
    done = run("-batchsolve", str(aedt), how=how)
    assert done.returncode == 2
    assert "ANS_EDBJOBS_DEMO" in done.stderr
    assert names(aedt.parent) == {aedt.name}


def test_a_project_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = run("-batchsolve", str(tmp_path / "gone.aedt"))
    assert done.returncode == 1
    assert "gone.aedt" in done.stderr


# Real command lines: an LSF and a PBS site, a single host with options after -batchsolve, and single flags.
@pytest.mark.parametrize(
    "words",
    [
        "-distributed -machinelist numcores=48 -auto -monitor -useelectronicsppe=1 -ng"
        "|-batchoptions|'HFSS 3D Layout Design/RAMLimitPercent'=90|-batchsolve",
        "-ng -BatchSolve -machinelist list=localhost:1:48:90%:1 -Monitor",
        "-monitor -UseElectronicsPPE -ng -distributed -machinelist list=localhost:1:8"
        "|-batchoptions|TempDirectory=/tmp HPCLicenseType=pool HFSS/EnableGPU=0|-batchsolve",
        "-Distributed includetypes=default maxlevels=1 -MachineList num=4 -batchoptions 'HPCLicenseType'='pool'"
        " -auto NumDistributedVariations=2 -WaitForLicense -iconic -local -batchsolve Patch:Setup1",
    ],
)
def test_real_command_lines_are_taken(aedt: Path, words: str) -> None:
    first, *rest = words.split("|")
    done = run(*first.split(), *rest, str(aedt))
    assert (done.returncode, done.stderr) == (0, "")
    assert read_log(aedt.parent / f"{aedt.name}.batchinfo" / "patch_antenna.log").setups["Setup1"].normal


def test_an_option_after_batchsolve_voids_the_selector(tmp_path: Path) -> None:
    path = example_project(tmp_path, "via_transition")
    log = tmp_path / "own.log"
    assert run("-batchsolve", "Via:Nominal:Coarse", str(path), "-logfile", str(log)).returncode == 0
    assert set(read_log(log).setups) == {"Coarse", "Fine"}


def test_it_starts_fast(aedt: Path) -> None:
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("-batchsolve", str(aedt)).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.25, "seconds of processor time, which does not depend on the machine's load as much"


def test_it_needs_nothing_but_python_and_itself() -> None:
    code = (
        "import sys; import edbjobs_server.solver.demo as d; "
        "print([m for m in sys.modules if m.split('.')[0] in ('pydantic', 'grpc', 'google', 'edbjobs', 'dataclasses')"
        " or m.startswith('edbjobs_server') and not m.startswith('edbjobs_server.solver')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout.strip() == "['edbjobs_server', 'edbjobs_server.util', 'edbjobs_server.util.files']"


def test_it_runs_as_a_module_too(aedt: Path) -> None:
    argv = [sys.executable, "-m", "edbjobs_server.solver.demo", "-jobid", "run-1", "-batchsolve", str(aedt)]
    env = {**os.environ, "ANS_EDBJOBS_DEMO": "seconds=0"}
    done = subprocess.run(argv, env=env, capture_output=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_log(find_log(aedt, "run-1")).setups["Setup1"].normal
