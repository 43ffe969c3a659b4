"""A demo solver in place of ``ansysedt``, for trying the service where no AEDT is installed. It solves nothing.

It takes AEDT's batch command line, reads the setups of the project and behaves as the real program does
towards everything around it: process tree, log, lock and result files, and the ways in which a solve fails.
"""

from __future__ import annotations

from edbjobs_server.solver.demo.examples import example_names, example_project
from edbjobs_server.solver.demo.program import main

__all__ = ["example_names", "example_project", "main"]
