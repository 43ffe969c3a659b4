"""``python -m edbjobs_server.solver.demo``."""

from __future__ import annotations

import sys

from edbjobs_server.solver.demo.program import main

sys.exit(main())
