"""`python -m edbjobs`: the same as the command `edbjobs`."""

from __future__ import annotations

from edbjobs.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
