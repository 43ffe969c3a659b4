"""Named points at which a test can make a process die, to show that nothing is lost there."""

from __future__ import annotations

import os
import signal
import sys

VARIABLE = "EDBJOBS_FAULT"
if sys.platform == "win32":
    _KILL = signal.SIGTERM  # ends a process at once there
else:
    _KILL = signal.SIGKILL

_wanted, _, _number = os.environ.get(VARIABLE, "").partition(":")
_passed = 0


def point(name: str) -> None:
    """Kill this process if the environment variable ``EDBJOBS_FAULT`` named this point when it started.

    Its value is a name, or ``NAME:N`` to die at the Nth pass. The points are, in order of a job's way:
    ``submit.before_reply``; ``run.before_reserve``, ``run.after_reserve``, ``launcher.before_fork``,
    ``supervisor.before_claim``, ``supervisor.after_claim``, ``supervisor.after_start_line``,
    ``supervisor.after_go``, ``run.after_start``, ``supervisor.before_end``, ``supervisor.after_end``,
    ``run.before_end``, ``run.after_end``; and in each commit that changes something ``store.before_commit`` and
    ``store.after_commit``.
    """
    global _passed
    if name == _wanted:
        _passed += 1
        if _passed == int(_number or 1):
            os.kill(os.getpid(), _KILL)
