"""The demo solver's processes: as many, and as hard to end, as AEDT's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edbjobs_server.solver.batch_log import find_log, read_log
from edbjobs_server.solver.demo import example_project
from edbjobs_server.solver.fatal import FatalKind
from edbjobs_server.solver.progress import LogFollower, progress
from edbjobs_server.solver.releases import choose, discover
from edbjobs_server.solver.setups import read_setups

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
DEADLINE = 30.0


class Tree:
    """A run in a session of its own, and every process that bears its mark."""

    def __init__(self, project: Path, how: str, tasks: int) -> None:
        self.project = project
        self.mark = f"ANS_TEST_MARK={uuid.uuid4()}"
        self.witness = project.parent / "run-1"
        name, _, value = self.mark.partition("=")
        env = {**os.environ, "ANS_EDBJOBS_DEMO": how, "ANS_EDBJOBS_DEMO_WITNESS": str(project.parent), name: value}
        argv = [str(choose(discover({}, demo=True), "", "").path), "-jobid", "run-1"]
        argv += ["-machinelist", f"list=localhost:{tasks}:{tasks}:90%", "-batchsolve", str(project)]
        self.wrapper = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, start_new_session=True)

    def alive(self) -> dict[int, str]:
        """Processes of the run by pid, with their names; zombies do not count."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                    if rest.split()[0] != "Z":
                        found[int(folder.name)] = name
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def names(self) -> list[str]:
        return sorted(self.alive().values())

    def pid_of(self, name: str) -> int:
        return next(pid for pid, found in self.alive().items() if found == name)

    def until(self, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE
        while not true():
            assert time.monotonic() < end, f"{what}; alive: {self.alive()}"
            time.sleep(0.01)

    def until_solving(self, engines: int) -> None:
        log = find_log(self.project, "run-1")
        self.until(lambda: self.names().count("hf3d") == engines and log.exists(), "engines start")
        self.until(lambda: "Adaptive Pass 1" in log.read_text(), "the first pass starts")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Tree]]:
    trees: list[Tree] = []

    def started(how: str, tasks: int = 2) -> Tree:
        tree = Tree(example_project(tmp_path), how, tasks)
        trees.append(tree)
        return tree

    yield started
    for tree in trees:
        for pid in tree.alive():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        tree.wrapper.wait(DEADLINE)


Start = Callable[..., Tree]


def test_the_tree_is_that_of_aedt(start: Start) -> None:
    tree = start("seconds=60", tasks=3)
    tree.until_solving(3)
    assert tree.names() == ["ansysedt", "ansysedt.exe", "hf3d", "hf3d", "hf3d"]
    lock = Path(f"{tree.project}.lock").read_text()
    assert lock.startswith(f"{tree.pid_of('ansysedt.exe')}@")
    assert Path(f"{tree.project}.q").read_text() == "JobID='run-1'\n"
    assert not Path(f"{tree.project}.q.completed").exists()


def test_a_run_can_be_followed_while_it_goes_on(start: Start) -> None:
    tree = start("seconds=3")
    follower, setups = LogFollower(find_log(tree.project, "run-1")), read_setups(tree.project)
    seen: list[tuple[int, str]] = []
    while tree.wrapper.poll() is None:
        found = progress(follower.poll(), setups)
        number = found.current_pass or found.last_pass or 0
        if found.setup and (not seen or seen[-1] != (number, found.phase)):
            seen.append((number, found.phase))
        time.sleep(0.02)
    assert tree.wrapper.returncode == 0
    assert [number for number, phase in seen if phase == "adaptive"][-5:] == [2, 3, 4, 5, 6]
    assert "sweep" in {phase for _, phase in seen}
    assert progress(follower.poll(), setups).fraction == 1.0


def test_ending_only_the_script_leaves_the_solver_running(start: Start) -> None:
    tree = start("seconds=60")
    tree.until_solving(2)
    tree.wrapper.terminate()
    assert tree.wrapper.wait(DEADLINE) == -signal.SIGTERM
    assert tree.names() == ["ansysedt.exe", "hf3d", "hf3d"]


def test_term_to_the_group_aborts_the_solve(start: Start) -> None:
    tree = start("seconds=60,fail=hang")
    tree.until_solving(2)
    os.killpg(tree.wrapper.pid, signal.SIGTERM)
    tree.until(lambda: not tree.alive(), "everything ends")
    found = read_log(find_log(tree.project, "run-1"))
    assert found.finished
    assert found.fatal is not None
    assert found.fatal.kind is FatalKind.ABORT
    assert found.errors == 2
    assert not Path(f"{tree.project}.lock").exists()
    assert Path(f"{tree.project}.q.completed").exists()
    assert [line.split()[0] for line in tree.witness.read_text().splitlines()] == ["start", "sigterm", "end"]


def test_kill_leaves_the_lock(start: Start) -> None:
    tree = start("seconds=60")
    tree.until_solving(2)
    os.kill(tree.pid_of("ansysedt.exe"), signal.SIGKILL)
    assert tree.wrapper.wait(DEADLINE) == 128 + signal.SIGKILL
    tree.until(lambda: not tree.alive(), "the engines end with the program")
    assert Path(f"{tree.project}.lock").exists()
    assert not Path(f"{tree.project}.q.completed").exists()
    assert not read_log(find_log(tree.project, "run-1")).finished


def test_a_program_that_ignores_term(start: Start) -> None:
    tree = start("seconds=60,term=ignore,children=stubborn")
    tree.until_solving(2)
    before = tree.alive()
    os.killpg(tree.wrapper.pid, signal.SIGTERM)
    tree.wrapper.wait(DEADLINE)
    assert {pid: name for pid, name in before.items() if pid != tree.wrapper.pid} == tree.alive()
    os.killpg(tree.wrapper.pid, signal.SIGKILL)
    tree.until(lambda: not tree.alive(), "KILL ends all")


@pytest.mark.parametrize(
    ("children", "left", "same_session"),
    [("stubborn", ["hf3d", "hf3d"], True), ("daemon", ["hf3d", "hf3d"], False), ("ansyscl", ["ansyscl"], False)],
)
def test_what_outlives_the_program(start: Start, children: str, left: list[str], same_session: bool) -> None:
    tree = start(f"seconds=0.2,children={children}")
    assert tree.wrapper.wait(DEADLINE) == 0
    assert tree.names() == left
    for pid in tree.alive():
        assert (os.getsid(pid) == tree.wrapper.pid) is same_session
        os.kill(pid, signal.SIGTERM)
    if children == "stubborn":
        assert tree.names() == left
    else:
        tree.until(lambda: not tree.alive(), "TERM ends them")


def test_what_outlives_it_has_an_end_of_its_own(start: Start) -> None:
    tree = start("seconds=0,children=daemon,linger=0.3")
    assert tree.wrapper.wait(DEADLINE) == 0
    tree.until(lambda: not tree.alive(), "they end by themselves")


def test_waiting_for_a_license(start: Start) -> None:
    tree = start("seconds=0,license_wait=0.5")
    log = find_log(tree.project, "run-1")
    tree.until(lambda: log.exists() and "Using command line" in log.read_text(), "the header stands")
    assert "Adaptive" not in log.read_text()
    assert tree.wrapper.wait(DEADLINE) == 0
    assert read_log(log).setups["Setup1"].normal


def test_a_feature_that_does_not_exist_is_waited_for_for_ever(tmp_path: Path) -> None:
    path = example_project(tmp_path)
    program = choose(discover({}, demo=True), "", "").path
    env = {**os.environ, "ANS_EDBJOBS_DEMO": "seconds=0,fail=license"}
    argv = [str(program), "-waitforlicense", "-jobid", "run-1", "-batchsolve", str(path)]
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(1.0)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
    assert read_log(find_log(path, "run-1")).fatal is None
