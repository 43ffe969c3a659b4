"""A solver's log as the documented route tells it: meshing, each adaptive pass, the sweep.

Only the last run in the log counts. A log that is still written is told as far as it goes.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

Json = dict[str, Any]

MAX_LINE = 16 * 1024
MAX_ITEMS = 10_000  # passes, or frequencies of a sweep
MAX_ERRORS = 100

_STAMP = re.compile(r"\((\d{1,2}:\d\d:\d\d [AP]M)\s+([A-Z][a-z]{2} \d{1,2}, \d{4})\)\s*$")
_PROFILE = re.compile(r"\[info\] Project:(.*?), ([^,]+?) : \[(?:PROFILE|CONVERGE)\]\s*(.*)")
# Each takes time in proportion to a line's length, whatever stands in it; numbers are bounded, as `int` refuses others.
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


class ParsedLog:
    """Takes a log piece by piece."""

    def __init__(self) -> None:
        self._rest = b""
        self._project: Json = {"name": "", "file": "", "design": "", "user": "", "cmd_line": ""}
        self._begin()

    def _begin(self) -> None:
        self._mesh: Json | None = None
        self._meshing = False
        self._passes: list[Json] = []
        self._pass: Json | None = None
        self._pass_began: datetime | None = None
        self._sweep: Json | None = None
        self._sweep_began: datetime | None = None
        self._errors: list[str] = []
        self._converged = False
        self._normal = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:MAX_LINE]
        for line in lines:
            self._line(line[:MAX_LINE].decode("utf-8", "replace").strip())

    def json(self) -> Json:
        """Tell what the log says."""
        passes = [*self._passes, *([self._pass] if self._pass else [])]
        return {
            "project": self._project,
            "init_mesh": self._mesh,
            "adaptive": passes,
            "sweep": self._sweep,
            "log_parser": {
                "is_converged": self._converged,
                "is_completed": self._normal,
                "errors": self._errors,
            },
        }

    def _line(self, line: str) -> None:
        profile = _PROFILE.match(line)
        if profile is not None:
            self._project["name"] = self._project["name"] or profile[1]
            stamp = _STAMP.search(line)
            self._profile(profile[2], profile[3], _time(stamp))
            return
        if "Normal completion" in line:
            self._normal = True
        if line.startswith("Starting Batch Run:"):
            self._begin()
        elif line.startswith("[error]") and len(self._errors) < MAX_ERRORS:
            self._errors.append(_STAMP.sub("", line.removeprefix("[error]")).strip())
        else:
            self._header(line)

    def _header(self, line: str) -> None:
        for begin, name in (
            ("Batch Solve/Save:", "file"),
            ("Running as user :", "user"),
            ("Using command line:", "cmd_line"),
        ):
            if line.startswith((begin, f"[info] {begin}")):
                self._project[name] = line.partition(begin)[2].strip()
        design = _DESIGN.search(line)
        if design is not None:
            self._project["name"], self._project["design"] = design[1].strip(), design[2].strip()

    def _profile(self, setup: str, text: str, time: datetime | None) -> None:
        if "Status:" in text and "ormal completion" in text.lower():
            self._normal = True
        if text.startswith("Initial Meshing"):
            self._meshing = True
            self._mesh = {"tetrahedra": 0, "memory_mb": 0.0, "real_time_sec": 0, "cpu_time_sec": 0}
        elif text.startswith("Adaptive Passes"):
            self._converged = "not" not in text
            if self._passes:
                self._passes[-1]["converged"] = self._converged
        elif match := _PASS.match(text):
            self._begin_pass(setup, match, time)
        elif match := _CONVERGE.match(text):
            self._end_pass(match, time)
        elif match := _SWEEP.match(text):
            self._meshing = False
            self._sweep = {"type": match[1], "frequencies": 0, "solved": [], "elapsed_sec": 0}
            self._sweep_began = time
        elif match := _POINTS.match(text):
            if self._sweep is not None:
                self._sweep["frequencies"] = int(match[1])
        elif match := _FREQUENCY.match(text):
            self._solved(match, text, time)
        else:
            self._cost(text)

    def _begin_pass(self, setup: str, match: re.Match[str], time: datetime | None) -> None:
        self._meshing = False
        self._pass_began = time
        self._pass = {
            "pass_nr": int(match[1]),
            "freq_hz": _hertz(match[2]),
            "tetrahedra": 0,
            "matrix_size": 0,
            "memory_mb": 0.0,
            "delta_s": None,
            "converged": False,
            "elapsed_sec": 0,
            "setup": setup,
        }

    def _end_pass(self, match: re.Match[str], time: datetime | None) -> None:
        if self._pass is None or len(self._passes) >= MAX_ITEMS:
            return
        self._pass["tetrahedra"] = int(match[2])
        self._pass["delta_s"] = _number(match[3])
        self._pass["elapsed_sec"] = _between(self._pass_began, time)
        self._passes.append(self._pass)
        self._pass = None

    def _solved(self, match: re.Match[str], text: str, time: datetime | None) -> None:
        # Each frequency has a line when it is begun and one with its time when it is solved.
        if self._sweep is None or _ELAPSED.search(text) is None:
            return
        if len(self._sweep["solved"]) < MAX_ITEMS:
            self._sweep["solved"].append(_hertz(match[1]))
        self._sweep["elapsed_sec"] = _between(self._sweep_began, time)

    def _cost(self, text: str) -> None:
        """Take the cost of a step: of the initial mesh, or of the pass that goes on."""
        mesh = self._mesh if self._meshing else None
        taker = mesh or self._pass
        if taker is None:
            return
        cost, tetrahedra, matrix = _COST.search(text), _TETRAHEDRA.search(text), _MATRIX.search(text)
        if cost is not None:
            taker["memory_mb"] = max(taker["memory_mb"], round((_number(cost[3]) or 0.0) * _MIB[cost[4]], 1))
            if mesh is not None:
                mesh["real_time_sec"] += _seconds(cost[1])
                mesh["cpu_time_sec"] += _seconds(cost[2])
        if tetrahedra is not None:
            taker["tetrahedra"] = int(tetrahedra[1])
        if matrix is not None and mesh is None:
            taker["matrix_size"] = int(matrix[1])
        if mesh is not None and text.startswith("Stop"):
            elapsed = _ELAPSED.search(text)
            mesh["real_time_sec"] = _seconds(elapsed[1]) if elapsed else mesh["real_time_sec"]
            self._meshing = self._meshing and elapsed is None


def _time(match: re.Match[str] | None) -> datetime | None:
    if match is None:
        return None
    try:
        return datetime.strptime(f"{match[1]} {match[2]}", "%I:%M:%S %p %b %d, %Y")
    except ValueError:
        return None


def _between(began: datetime | None, ended: datetime | None) -> int:
    return max(0, int((ended - began).total_seconds())) if began and ended else 0


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
