"""The command ``edbjobs``."""

from __future__ import annotations

import sys

__all__ = ["main"]

USAGE = 2


def main() -> None:
    """Run the command and exit with its code."""
    try:
        import rich  # noqa: F401 - only to check that it is installed
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f"edbjobs: the command line needs the package {error.name}, which is not installed:\n"
            '  pip install "edbjobs[cli]"           to use a service\n'
            '  pip install "edbjobs[cli,server]"    to run one',
            file=sys.stderr,
        )
        sys.exit(USAGE)
    from edbjobs.cli._app import run

    run()
