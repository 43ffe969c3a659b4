"""AEDT's messages about why a solve could not continue; they are those of real logs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class FatalKind(Enum):
    """What kind of thing ended the solve."""

    LICENSE = "license"
    SOLVER = "solver"
    ABORT = "abort"


_LICENSE = re.compile(
    r"FlexNet Licensing error|terminated by license error|does not exist in the licensing pool"
    r"|Cannot connect to license server",
    re.IGNORECASE,
)
_ABORT = re.compile(r"was aborted by user|stopped on user request", re.IGNORECASE)
_SOLVER = re.compile(
    r"process \S+ exited with code (?!0\b)|process \S+ error:|solver is hanging"
    r"|engine terminated unexpectedly|terminated abnormally|unable to create child process"
    r"|launch of solvers via MPI failed|completed with execution error|has failed with execution error",
    re.IGNORECASE,
)
_SWEEP_NAME = re.compile(r"(?:^|, )Sweep \S", re.IGNORECASE)


def _says_solver_failed(text: str) -> bool:
    if _SOLVER.search(text):
        return True
    sweep = _SWEEP_NAME.search(text)
    return sweep is not None and " failed" in text[sweep.end() :].lower()


_FATAL: tuple[tuple[FatalKind, Callable[[str], object]], ...] = (
    (FatalKind.LICENSE, _LICENSE.search),
    (FatalKind.ABORT, _ABORT.search),
    (FatalKind.SOLVER, _says_solver_failed),
)


@dataclass(frozen=True, slots=True)
class Fatal:
    """The first line with the reason why the solve could not continue."""

    kind: FatalKind
    text: str


def kind_of(text: str) -> FatalKind | None:
    """Return the kind of end that a message reports; None: it is not fatal."""
    return next((kind for kind, says_so in _FATAL if says_so(text)), None)
