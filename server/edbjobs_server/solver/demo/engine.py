"""One solve of the demo solver: files, log, time and failure as of AEDT."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from edbjobs_server.solver.demo import passes
from edbjobs_server.solver.demo.behavior import Behavior
from edbjobs_server.solver.demo.journal import LABEL, Journal, Witness, clock, day_time, duration, emit, host_name
from edbjobs_server.solver.demo.options import Command
from edbjobs_server.solver.demo.tree import Engines
from edbjobs_server.solver.setups import Setup, read_setups, select

VERSION = "2025.2.0"
_DEFAULT_SETUP = Setup("", "Setup1", "5GHz", 6, 0.02)
_EXIT_CODES = {"license": 1, "mpi": 1, "exit": 3}


class Aborted(BaseException):
    """TERM was received; not an Exception, so that no handler on the way catches it."""


class Failed(Exception):
    """The solve ends here, with the lines it has written."""


class Solve:
    """Runs one command line.

    Parameters
    ----------
    command : Command
        The parsed command line.
    behavior : Behavior
        How the solve behaves.
    witness : str
        Folder of the witness files; empty: none.
    """

    def __init__(self, command: Command, behavior: Behavior, witness: str) -> None:
        self._command = command
        self._behavior = behavior
        self._witness = Witness(witness, command.job_id)
        self._engines = Engines(behavior.children, behavior.linger)
        self._project = command.project
        self._lock = Path(f"{command.project}.lock")
        self._journal: Journal | None = None
        self._host = host_name()
        self._locked = False

    def run(self) -> int:
        """Solve and return the exit code."""
        self._witness.note("start")
        if not self._take_lock():
            self._witness.note("end")
            return 1
        self._mark_running()
        self._noise()
        with suppress(Failed):  # its lines are in the log; AEDT too goes on to its footer
            self._solve()
        self._close()
        return _EXIT_CODES.get(self._behavior.fail, 0) if self._behavior.exit_code is None else self._behavior.exit_code

    def abort(self) -> int:
        """Stop as AEDT does on request: two lines in the log, engines ended, files tidied."""
        self._witness.note("sigterm")
        if self._journal is not None:
            self._journal.message(f"Simulation was aborted by user on server: {self._host}.", "error")
            name = f"{self._journal.project} : {self._journal.design}"
            text = f"Script macro error: The simulation for {name} has been stopped on user request"
            self._journal.message(text, "error")
        self._close()
        return 1

    def _take_lock(self) -> bool:
        try:
            file = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            emit(f"[error] {self._project} is locked: {self._lock.name} exists\n".encode())
            return False
        os.write(file, f"{os.getpid()}@{self._host}\n".encode())
        os.close(file)
        self._locked = True
        return True

    def _mark_running(self) -> None:
        Path(f"{self._project}.q").write_text(f"JobID='{self._command.job_id}'\n", encoding="utf-8")
        if self._project.suffix.lower() == ".aedb":
            generated = self._project.with_suffix(".aedt")
            if not generated.exists():
                generated.write_text(f"$begin 'AnsoftProject'\n\tCreated='{LABEL}'\n$end 'AnsoftProject'\n")

    def _noise(self) -> None:
        line = b"edbjobs demo solver: output of the requested size" + b"." * 70 + b"\n"
        left = int(self._behavior.output_mib * 1024 * 1024)
        while left > 0 and emit(line * 512):
            left -= len(line) * 512

    def _solve(self) -> None:
        setups = self._setups()
        if self._behavior.fail == "nolog":
            self._pause(self._behavior.seconds)
            return
        self._journal = journal = self._open_journal(setups)
        self._header(journal)
        self._license(journal)
        if self._behavior.fail == "nothing" or not setups or self._command.option("ValidateOnly") == "1":
            self._pause(self._behavior.seconds)
            return
        self._engines.start(self._command.tasks)
        if self._behavior.fail == "mpi":
            journal.message("The attempted launch of solvers via MPI failed while connecting to them.", "error")
            raise Failed
        share = self._behavior.seconds / len(setups)
        for setup in setups:
            self._setup(journal, setup, share)

    def _setups(self) -> tuple[Setup, ...]:
        design, _, rest = self._command.selector.partition(":")
        name = rest.rpartition(":")[2] if ":" in rest or rest not in ("Nominal", "Optimetrics") else ""
        return select(read_setups(self._project) or (_DEFAULT_SETUP,), design, name)

    def _open_journal(self, setups: tuple[Setup, ...]) -> Journal:
        stem = self._project.stem
        design = self._command.selector.partition(":")[0] or next((s.design for s in setups if s.design), stem)
        name = f"{stem}-{self._command.job_id}.log" if self._command.job_id else f"{stem}.log"
        paths = [Path(f"{self._project}.batchinfo") / name]
        if self._command.logfile:
            paths.append(Path(self._command.logfile))
        return Journal(tuple(paths), stem, design, self._command.monitor)

    def _header(self, journal: Journal) -> None:
        command = self._command
        journal.raw(" ")
        journal.raw(f"Ansys Electronics Desktop Version {VERSION}, Build: {LABEL}")
        journal.raw(f"Location: {sys.argv[0]}")
        journal.raw(f"Batch Solve/Save: {self._project}")
        journal.raw(f"Starting Batch Run: {clock(time.time())}")
        journal.raw(f"Temp directory: {command.option('TempDirectory') or os.environ.get('TMPDIR', '/tmp')}")  # noqa: S108 - printed only
        journal.raw(f"Project directory: {self._project.parent}")
        journal.raw("[info] Using automatic settings" if command.automatic else "[info] Using manual settings")
        journal.raw("Machines:")
        for machine in command.machines:
            tasks = max(1, machine.tasks)
            each = ", ".join(f"task{n}:{max(1, machine.cores // tasks)} cores" for n in range(tasks))
            journal.raw(f"[info] {machine.host} RAM: {machine.ram_percent}%, {each}")
        journal.raw(f'[info] Using command line: "{" ".join(sys.argv)}".')
        if command.ignored_selector:
            journal.message(f"An option after -batchsolve: {command.ignored_selector} is ignored", "warning")

    def _license(self, journal: Journal) -> None:
        self._pause(self._behavior.license_wait)
        if self._behavior.fail != "license":
            return
        if self._command.wait_for_license:
            self._silence()
        journal.message(
            "Request name elec_solve_hfss does not exist in the licensing pool. "
            "Cannot connect to license server system.\nFeature:       elec_solve_hfss\n"
            "FlexNet Licensing error:-15,10.",
            "error",
        )
        journal.message("Simulation was terminated by license error.", "error")
        raise Failed

    def _setup(self, journal: Journal, setup: Setup, seconds: float) -> None:
        started = time.time()
        name, behavior = setup.name, self._behavior
        stamp = f"Start Time: {day_time(started)}, Host: {self._host}, Product: HFSS {VERSION}"
        journal.profile(name, f"Solution Process : {stamp}")
        journal.profile(name, "HPC : Type: Manual, Distribution Types: Variations, Frequencies, Mesh Assembly")
        if behavior.fail == "model":
            journal.message("Port refinement, process hf3d error: Terminal on port 1 touches no conductor.", "error")
            self._execution_error(journal)
        adaptive_only = self._command.option("SolveAdaptiveOnly") == "1"
        sweeps = () if adaptive_only else setup.sweeps
        steps = [
            *passes.adaptive(setup, behavior.fail != "convergence"),
            *passes.sweeps(setup, sweeps, self._host),
        ]
        for number, step in enumerate(steps):
            if number == (len(steps) + 1) // 2:
                self._middle(journal)
            step.start(journal)
            self._pause(seconds / len(steps))
            step.end(journal)
        if behavior.fail == "sweep":
            journal.message(f"Sweep {setup.sweeps[0].name if setup.sweeps else 'Sweep1'} failed", "error")
            self._execution_error(journal)
        self._finish(journal, name, started)

    def _finish(self, journal: Journal, name: str, started: float) -> None:
        now = time.time()
        self._results(journal.design, name)
        journal.profile(name, f"Solution Process : Stop Time: {day_time(now)}, Status: Normal Completion")
        journal.profile(name, f"Stop : Elapsed Time: {duration(now - started)}, ComEngine Memory: 96.3 M")
        journal.message(f"Normal completion of simulation on server: {self._host}.")

    def _middle(self, journal: Journal) -> None:
        if self._behavior.fail == "hang":
            self._silence()
        elif self._behavior.fail == "killed":
            os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        elif self._behavior.fail == "engine":
            journal.message("Solving adaptive frequency ..., process hf3d exited with code -1073741819.", "error")
            self._execution_error(journal)
        elif self._behavior.fail == "exit":
            raise Failed
        elif self._behavior.fail == "cut":
            self._journal = None
            raise Failed

    def _execution_error(self, journal: Journal) -> None:
        journal.message(f"Simulation completed with execution error on server: {self._host}.", "error")
        raise Failed

    def _results(self, design: str, setup: str) -> None:
        folder = self._project.with_suffix(".aedtresults") / f"{design}.results"
        folder.mkdir(parents=True, exist_ok=True)
        text = f"$begin 'Profile'\n\tNote='{LABEL}'\n\tWritten='{day_time(time.time())}'\n$end 'Profile'\n"
        for suffix in ("asol", "profile"):
            (folder / f"{setup}.{suffix}").write_text(text, encoding="utf-8")

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)

    def _silence(self) -> None:
        while True:
            time.sleep(3600)

    def _close(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on there is nothing left to abort
        self._engines.stop()
        if self._journal is not None:
            self._journal.raw(f"Stopping Batch Run: {clock(time.time())}")
        if self._locked:
            self._lock.unlink(missing_ok=True)
            Path(f"{self._project}.q").replace(f"{self._project}.q.completed")
        self._witness.note("end")
