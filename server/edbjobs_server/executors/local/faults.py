"""Named points at which a test can make a process die, to show that nothing is lost there."""

from __future__ import annotations

import os
import signal
import sys

assert sys.platform != "win32"

VARIABLE = "EDBJOBS_FAULT"


def point(name: str) -> None:
    """Kill this process if the environment variable ``EDBJOBS_FAULT`` names this point.

    The points are, in order: ``launcher.before_fork``, ``supervisor.before_claim``, ``supervisor.after_claim``,
    ``supervisor.after_start_line``, ``supervisor.after_go``, ``supervisor.before_end``, ``supervisor.after_end``.
    """
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
