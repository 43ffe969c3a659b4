"""The tests of the core are tried themselves: each of these faults in a copy of it must turn them red.

The tables and the state machine are tried apart, so that neither leans on the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "server" / "edbjobs_server"
TABLES = [
    f"tests/unit/test_core_{name}.py"
    for name in ("admission", "transitions", "order", "planning", "explain", "troubles")
]

# One process tries both, for importing takes longer than testing. Nothing is shrunk: a fault that is found is enough.
TRIAL = f"""
import contextlib, io, sys
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from unit.test_core_machine import World

examples = int(sys.argv[1])
quick = settings(
    max_examples=max(examples, 1), stateful_step_count=30, deadline=None, phases=[Phase.generate], database=None,
    report_multiple_bugs=False, derandomize=True,
)
output = io.StringIO()
with contextlib.redirect_stdout(output):
    machine = "green"
    if examples:
        try:
            run_state_machine_as_test(World, settings=quick)
        except Exception:
            machine = "red"
    options = ["-c", {os.devnull!r}, "--rootdir=.", "--import-mode=importlib", "--assert=plain", "--tb=line", "-xq"]
    code = pytest.main([*options, "-p", "no:cacheprovider", *{TABLES!r}])
print(machine, {{0: "green", 1: "red"}}.get(int(code), output.getvalue()))
"""


@dataclass(frozen=True)
class Mutant:
    """A fault: `old` in a file of the core becomes `new`. `machine`: the state machine finds it as well, and soon."""

    file: str
    old: str
    new: str
    machine: bool = True


MUTANTS = [
    Mutant("admission.py", "if usage.jobs + 1 > limits.max_concurrent_jobs:", "if False:"),
    Mutant("admission.py", "if usage.cores + need.cores > cores:", "if False:"),
    Mutant("admission.py", "if usage.memory_mib + need.memory_mib > memory:", "if False:"),
    Mutant("admission.py", "used + count > total:", "False:"),
    Mutant("admission.py", "usage.cluster_jobs + 1 > most:", "False:"),
    Mutant("admission.py", "jobs + 1 > caps.max_running_jobs:", "jobs > caps.max_running_jobs:"),
    Mutant("admission.py", "if caps.max_cores and cores + need.cores > caps.max_cores:", "if False:"),
    Mutant("admission.py", "min(spec.cores, host.cores) if local", "spec.cores if local"),
    Mutant("admission.py", "    if never is not None:\n        return never\n", "", False),
    Mutant(
        "admission.py", "if limits.max_cores and spec.cores > limits.max_cores:", "if spec.cores > host.cores:", False
    ),
    Mutant("job.py", "return (-self.priority, self.seq)", "return (self.priority, self.seq)"),
    Mutant(
        "queue.py",
        "wanted = entries[0] if entries and key not in self._busy else None",
        "wanted = entries[0] if entries else None",
    ),
    Mutant("queue.py", "lane not in stopped and ", ""),
    Mutant("queue.py", "fronts[index] < best", "fronts[index] > best"),
    Mutant(
        "planner.py",
        "                stopped.add(job.spec.executor)\n        return chosen",
        "                pass\n        return chosen",
    ),
    Mutant("planner.py", "claims.setdefault(feature, job.id)", "pass", False),
    Mutant(
        "planner.py",
        "if self.paused or self.draining or self.store_error:\n            return chosen",
        "if self.draining or self.store_error:\n            return chosen",
    ),
    Mutant("planner.py", "known[0] == version and known[1] is self.limits", "known[1] is self.limits"),
    Mutant("planner.py", "known[0] == version and known[1] is self.limits", "known[0] == version"),
    Mutant(
        "planner.py",
        "            self._settling.discard(uid)\n            self.usage.add(need, -1)\n        key",
        "            self._settling.discard(uid)\n        key",
    ),
    Mutant("planner.py", "            self._gone.add(uid)\n", "", False),
    Mutant("planner.py", "        if job.uid in self._gone:\n            return\n", "", False),
    Mutant("planner.py", "eligible=not job.held and not until", "eligible=not job.held"),
    Mutant(
        "planner.py",
        "            if not self.jobs[uid].held:\n                self._queue",
        "            if True:\n                self._queue",
    ),
    Mutant(
        "planner.py",
        "            self._settling.discard(uid)\n            self.usage.add(need, -1)\n        key",
        "            self.usage.add(need, -1)\n        key",
        False,
    ),
    Mutant("planner.py", "        elif uid not in self._planned:", "        else:", False),
    Mutant("deadlines.py", "began + SETTLING_SECONDS", "began", False),
    Mutant("transitions.py", " or outcome.state is State.COMPLETED", ""),
    Mutant(
        "transitions.py",
        "    if outcome.before_cancel and outcome.state.terminal:\n        return outcome\n",
        "",
        False,
    ),
    Mutant("transitions.py", "return wanted and job.cancel_time is None", "return wanted", False),
    Mutant("transitions.py", "ran < policy.max_attempts", "job.attempt < policy.max_attempts", False),
    Mutant(
        "transitions.py",
        "    if attempt is None or attempt.number != number:\n        return None\n    start =",
        "    if attempt is None:\n        return None\n    start =",
    ),
    Mutant("transitions.py", "or job.held or job.open_attempt", "or job.open_attempt", False),
]


def copy_of_core(folder: Path, mutant: Mutant | None) -> Path:
    """Make a package that holds nothing but the core, with the fault in it."""
    package = folder / "edbjobs_server"
    shutil.copytree(PACKAGE / "core", package / "core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE / "__init__.py", package)
    if mutant is not None:
        file = package / "core" / mutant.file
        text = file.read_text()
        assert text.count(mutant.old) == 1, f"the fault has no place, or several: {mutant}"
        file.write_text(text.replace(mutant.old, mutant.new))
    return folder


def verdicts(folder: Path, mutant: Mutant | None) -> tuple[str, str]:
    """Try the machine and the tables on a core with a fault: green or red."""
    examples = 20 if mutant is None else 300 * mutant.machine
    path = os.pathsep.join([str(copy_of_core(folder, mutant)), str(ROOT / "tests")])
    result = subprocess.run(
        [sys.executable, "-c", TRIAL, str(examples)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, f"{mutant}\n{result.stdout}{result.stderr}"
    machine, tables = result.stdout.split(maxsplit=1)
    return machine, tables.strip()


def test_each_fault_in_the_core_is_found(tmp_path: Path) -> None:
    tried = [None, *MUTANTS]
    folders = [tmp_path / str(number) for number in range(len(tried))]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(tried, pool.map(verdicts, folders, tried), strict=True))
    assert found.pop(None) == ("green", "green"), "without a fault nothing is found"
    wrong = {
        mutant: verdict
        for mutant, verdict in found.items()
        if mutant is not None and verdict != ("red" if mutant.machine else "green", "red")
    }
    assert not wrong, "\n".join(
        f"machine {verdict[0]}, tables {verdict[1]}: {mutant}" for mutant, verdict in wrong.items()
    )
