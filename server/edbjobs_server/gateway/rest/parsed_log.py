"""A solver's log as the documented JSON object: meshing, each adaptive pass, the sweep.

Only the last run in the log counts. A log that is still being written is parsed as far as it goes.
"""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import Field

from edbjobs_server.gateway.models import Count, Model

MAX_LINE = 16 * 1024
MAX_ITEMS = 10_000  # passes, or frequencies of a sweep
MAX_ERRORS = 100

_STAMP = re.compile(r"\((\d{1,2}:\d\d:\d\d [AP]M)\s+([A-Z][a-z]{2} \d{1,2}, \d{4})\)\s*$")
_PROFILE = re.compile(r"\[info\] Project:(.*?), ([^,]+?) : \[(?:PROFILE|CONVERGE)\]\s*(.*)")
# Each takes time in proportion to a line's length, whatever its content; numbers are bounded, as `int` refuses others.
_DESIGN = re.compile(r"Project:([^,]{1,255}), Design:([^,]{1,255}),")
_PASS = re.compile(r"Adaptive Pass (\d{1,9}) : Frequenc(?:y|ies)\s*:?\s*([\d.]+ ?[kMGT]?Hz)?", re.IGNORECASE)
_CONVERGE = re.compile(
    r"Pass Number:\s*(\d{1,9});\s*Solved Elements:\s*(\d{1,15})(?:;\s*Max Mag\. Delta S:\s*([\d.eE+-]{1,40}))?"
)
_COST = re.compile(r"Real Time (\d{1,9}:\d\d:\d\d) : CPU Time (\d{1,9}:\d\d:\d\d) : Memory ([\d.]{1,40}) ?([KMGT]?)")
_TETRAHEDRA = re.compile(r"Tetrahedra: (\d{1,15})")
_MATRIX = re.compile(r"Matrix size: (\d{1,15})")
_ELAPSED = re.compile(r"Elapsed time\s{0,8}: (\d{1,9}:\d\d:\d\d)", re.IGNORECASE)
_SWEEP = re.compile(r"Solution - .+? : (\w+) ")
_POINTS = re.compile(r"From .*?\b(\d{1,9}) Frequencies")
_FREQUENCY = re.compile(r"Frequency - ([\d.]+ ?[kMGT]?Hz) :")
_HERTZ = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_MIB = {"": 1 / 1024**2, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


class Project(Model):
    """The project that was solved."""

    name: str = ""
    file: str = ""
    design: str = ""
    user: str = ""
    cmd_line: str = ""


class InitialMesh(Model):
    """The initial mesh."""

    tetrahedra: Count = 0
    memory_mb: float = 0.0
    real_time_sec: int = 0
    cpu_time_sec: int = 0


class AdaptivePass(Model):
    """An adaptive pass."""

    pass_nr: Count
    freq_hz: float | None
    tetrahedra: Count = 0
    matrix_size: Count = 0
    memory_mb: float = 0.0
    delta_s: float | None = None
    converged: bool = False
    elapsed_sec: int = 0
    setup: str


class Sweep(Model):
    """A frequency sweep."""

    type: str
    frequencies: Count = 0
    solved: list[float | None] = Field(default_factory=list)
    elapsed_sec: int = 0


class Outcome(Model):
    """What the log reports of the run as a whole."""

    is_converged: bool = False
    is_completed: bool = False
    errors: list[str] = Field(default_factory=list)


class ParsedLog(Model):
    """The last run in a log."""

    project: Project
    init_mesh: InitialMesh | None
    adaptive: list[AdaptivePass]
    sweep: Sweep | None
    log_parser: Outcome
    attempt: Count = 0


class LogParser:
    """Parses a log piece by piece."""

    def __init__(self) -> None:
        self._rest = b""
        self._project = Project()
        self._start_run()

    def _start_run(self) -> None:
        self._mesh: InitialMesh | None = None
        self._meshing = False
        self._passes: list[AdaptivePass] = []
        self._pass: AdaptivePass | None = None
        self._pass_started: datetime | None = None
        self._sweep: Sweep | None = None
        self._sweep_started: datetime | None = None
        self._outcome = Outcome()

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:MAX_LINE]
        for line in lines:
            self._line(line[:MAX_LINE].decode("utf-8", "replace").strip())

    def result(self, attempt: int) -> ParsedLog:
        """Return what was parsed so far of the log of an attempt."""
        return ParsedLog(
            project=self._project,
            init_mesh=self._mesh,
            adaptive=[*self._passes, *([self._pass] if self._pass else [])],
            sweep=self._sweep,
            log_parser=self._outcome,
            attempt=attempt,
        )

    def _line(self, line: str) -> None:
        profile = _PROFILE.match(line)
        if profile is not None:
            self._project.name = self._project.name or profile[1]
            stamp = _STAMP.search(line)
            self._profile(profile[2], profile[3], _time(stamp))
            return
        if "Normal completion" in line:
            self._outcome.is_completed = True
        if line.startswith("Starting Batch Run:"):
            self._start_run()
        elif line.startswith("[error]") and len(self._outcome.errors) < MAX_ERRORS:
            self._outcome.errors.append(_STAMP.sub("", line.removeprefix("[error]")).strip())
        else:
            self._header(line)

    def _header(self, line: str) -> None:
        for label, name in (
            ("Batch Solve/Save:", "file"),
            ("Running as user :", "user"),
            ("Using command line:", "cmd_line"),
        ):
            if line.startswith((label, f"[info] {label}")):
                setattr(self._project, name, line.partition(label)[2].strip())
        design = _DESIGN.search(line)
        if design is not None:
            self._project.name, self._project.design = design[1].strip(), design[2].strip()

    def _profile(self, setup: str, text: str, time: datetime | None) -> None:
        if "Status:" in text and "ormal completion" in text.lower():
            self._outcome.is_completed = True
        if text.startswith("Initial Meshing"):
            self._meshing = True
            self._mesh = InitialMesh()
        elif text.startswith("Adaptive Passes"):
            self._outcome.is_converged = "not" not in text
            if self._passes:
                self._passes[-1].converged = self._outcome.is_converged
        elif match := _PASS.match(text):
            self._start_pass(setup, match, time)
        elif match := _CONVERGE.match(text):
            self._end_pass(match, time)
        elif match := _SWEEP.match(text):
            self._meshing = False
            self._sweep = Sweep(type=match[1])
            self._sweep_started = time
        elif match := _POINTS.match(text):
            if self._sweep is not None:
                self._sweep.frequencies = int(match[1])
        elif match := _FREQUENCY.match(text):
            self._solved(match, text, time)
        else:
            self._cost(text)

    def _start_pass(self, setup: str, match: re.Match[str], time: datetime | None) -> None:
        self._meshing = False
        self._pass_started = time
        self._pass = AdaptivePass(pass_nr=int(match[1]), freq_hz=_hertz(match[2]), setup=setup)

    def _end_pass(self, match: re.Match[str], time: datetime | None) -> None:
        if self._pass is None or len(self._passes) >= MAX_ITEMS:
            return
        self._pass.tetrahedra = int(match[2])
        self._pass.delta_s = _number(match[3])
        self._pass.elapsed_sec = _between(self._pass_started, time)
        self._passes.append(self._pass)
        self._pass = None

    def _solved(self, match: re.Match[str], text: str, time: datetime | None) -> None:
        # Each frequency has a line when it is started and one with its time when it is solved.
        if self._sweep is None or _ELAPSED.search(text) is None:
            return
        if len(self._sweep.solved) < MAX_ITEMS:
            self._sweep.solved.append(_hertz(match[1]))
        self._sweep.elapsed_sec = _between(self._sweep_started, time)

    def _cost(self, text: str) -> None:
        """Add the cost of a step to the initial mesh, or to the current pass."""
        mesh = self._mesh if self._meshing else None
        target = mesh or self._pass
        if target is None:
            return
        cost, tetrahedra, matrix = _COST.search(text), _TETRAHEDRA.search(text), _MATRIX.search(text)
        if cost is not None:
            target.memory_mb = max(target.memory_mb, round((_number(cost[3]) or 0.0) * _MIB[cost[4]], 1))
            if mesh is not None:
                mesh.real_time_sec += _seconds(cost[1])
                mesh.cpu_time_sec += _seconds(cost[2])
        if tetrahedra is not None:
            target.tetrahedra = int(tetrahedra[1])
        if matrix is not None and isinstance(target, AdaptivePass):
            target.matrix_size = int(matrix[1])
        if mesh is not None and text.startswith("Stop"):
            elapsed = _ELAPSED.search(text)
            mesh.real_time_sec = _seconds(elapsed[1]) if elapsed else mesh.real_time_sec
            self._meshing = self._meshing and elapsed is None


def _time(match: re.Match[str] | None) -> datetime | None:
    if match is None:
        return None
    try:
        return datetime.strptime(f"{match[1]} {match[2]}", "%I:%M:%S %p %b %d, %Y")
    except ValueError:
        return None


def _between(start: datetime | None, end: datetime | None) -> int:
    return max(0, int((end - start).total_seconds())) if start and end else 0


def _seconds(text: str) -> int:
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def _hertz(text: str | None) -> float | None:
    match = re.fullmatch(r"([\d.]+) ?([kMGT]?)Hz", text or "", re.IGNORECASE)
    value = _number(match[1]) if match else None
    return None if value is None or match is None else value * _HERTZ[match[2].lower()]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None
