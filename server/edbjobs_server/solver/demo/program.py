"""The demo solver's entry point: from command line to exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from edbjobs_server.solver.demo import behavior, tree
from edbjobs_server.solver.demo.engine import Aborted, Solve
from edbjobs_server.solver.demo.journal import LABEL, emit
from edbjobs_server.solver.demo.options import Command, CommandError, parse

BAD_COMMAND = 2
FAILED = 1


def main() -> int:
    """Run as ``ansysedt`` would with this process's arguments; gives the exit code."""
    emit(f"{LABEL}\n".encode())
    try:
        command = parse(sys.argv[1:])
    except CommandError as error:
        print(f"edbjobs-demo-solver: {error}", file=sys.stderr)
        return BAD_COMMAND
    return tree.run_wrapped(lambda: _program(command))


def _program(command: Command) -> int:
    try:
        options = behavior.read(command.project, os.environ)
    except ValueError as error:
        print(f"edbjobs-demo-solver: {behavior.VARIABLE}: {error}", file=sys.stderr)
        return BAD_COMMAND
    except OSError as error:
        print(f"edbjobs-demo-solver: {command.project}: {error.strerror}", file=sys.stderr)
        return FAILED
    signal.signal(signal.SIGINT, _abort)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.term == "ignore" else _abort)
    solve = Solve(command, options, os.environ.get(behavior.WITNESS, ""))
    try:
        return solve.run()
    except Aborted:
        return solve.abort()
    except OSError as error:
        print(f"edbjobs-demo-solver: {error}", file=sys.stderr)
        return FAILED


def _abort(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):  # a second one must not cut the clean-up short
        signal.signal(again, signal.SIG_IGN)
    raise Aborted
