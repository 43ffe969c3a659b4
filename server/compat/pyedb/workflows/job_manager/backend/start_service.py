"""The command that runs the job manager: see `edbjobs_pyedb.start_service`."""

from __future__ import annotations

from edbjobs_pyedb.start_service import main, parse_cli

__all__ = [
    "main",
    "parse_cli",
]

if __name__ == "__main__":
    main()
