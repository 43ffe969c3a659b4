"""One setup in AEDT's batch log: the state of its solve after the lines read so far."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PASS = re.compile(r"Adaptive Pass (\d{1,9})\b")
_CONVERGE = re.compile(
    r"Pass Number:\s*(\d{1,9});\s*Solved Elements:\s*(\d{1,15})"
    r"(?:;\s*Max Mag\. Delta S:\s*(\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,5})?|N/A))?"
)
_SWEEP = re.compile(r"Solution - (.+?) : (\w+) ")
_POINTS = re.compile(r"From .*?\b(\d{1,9}) Frequencies")
_STATUS = re.compile(r"Status: ([^,;]+)")


@dataclass(slots=True)
class SetupLog:
    """What the log contains about one setup.

    Attributes
    ----------
    status : str
        Text after "Status:" at its end; empty while it is running.
    normal : bool
        It ended with normal completion, and no further step was started.
    phase : str
        meshing, adaptive, sweep or done; empty before any of it.
    converged : bool or None
        Whether the adaptive passes converged; None: not logged yet.
    frequencies : int
        Frequencies solved in the present sweep.
    points : int
        Frequencies requested in the present sweep; only a discrete sweep solves them one by one.
    """

    name: str
    status: str = ""
    normal: bool = False
    phase: str = ""
    adaptive_pass: int = 0
    passes_done: int = 0
    delta_s: float | None = None
    elements: int = 0
    converged: bool | None = None
    sweep: str = ""
    sweep_kind: str = ""
    points: int = 0
    frequencies: int = 0


def read_line(setup: SetupLog, kind: str, text: str) -> None:
    """Update a setup from one of its lines; `kind` is PROFILE or CONVERGE, `text` follows it."""
    if kind == "CONVERGE":
        _read_convergence(setup, text)
    elif match := _PASS.match(text):
        _set_phase(setup, "adaptive")
        setup.adaptive_pass = int(match[1])
    elif text.startswith("Adaptive Passes"):
        setup.converged = "not" not in text
    elif text.startswith("Initial Meshing") or (text.startswith("Solution Process") and "Start Time" in text):
        _set_phase(setup, "meshing")
    elif match := _SWEEP.match(text):
        _set_phase(setup, "sweep")
        setup.sweep, setup.sweep_kind, setup.points, setup.frequencies = match[1], match[2].lower(), 0, 0
    elif match := _POINTS.match(text):
        setup.points = int(match[1])
    elif text.startswith("Frequency - "):
        if "Elapsed time" in text:
            setup.frequencies += 1
        else:
            _set_phase(setup, "sweep")
    elif match := _STATUS.search(text):
        setup.status = match[1].strip()
        setup.normal = setup.status.lower() == "normal completion"
        setup.phase = "done" if setup.normal else setup.phase


def _set_phase(setup: SetupLog, phase: str) -> None:
    setup.phase, setup.status, setup.normal = phase, "", False


def _read_convergence(setup: SetupLog, text: str) -> None:
    match = _CONVERGE.match(text)
    if match is None:
        return
    setup.adaptive_pass = setup.passes_done = int(match[1])
    setup.elements = int(match[2])
    setup.delta_s = float(match[3]) if match[3] not in (None, "N/A") else None
