"""`python -m edbjobs_server`: the same as `edbjobs serve`."""

from __future__ import annotations

import sys

from edbjobs.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
