"""The command's frame: what stands before the commands, and what they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edbjobs.cli import _batch, _cluster, _control, _jobs, _service, _status, _submit, _watch
from edbjobs.cli._errors import readable_errors
from edbjobs.cli._options import SHARED

__all__ = ["make_app", "name_of", "run"]

EXIT_CODES = (
    "Exit codes: 0 done; 1 the job or the solve failed, or the service refused; "
    "2 wrong usage, or the service cannot be reached; 130 interrupted."
)
PANELS = {
    "Service": (_service.serve, _service.up, _service.down, _service.doctor, _service.demo),
    "Jobs": (
        _submit.submit,
        _batch.batch,
        _submit.preview,
        _jobs.list_jobs,
        _jobs.show,
        _watch.watch,
        _jobs.logs,
    ),
    "Changing jobs": (
        _control.cancel,
        _control.hold,
        _control.release,
        _control.priority,
        _control.retry,
        _control.delete,
    ),
    "Host and queue": (_status.status, _status.resources, _status.queue, _status.limits, _status.solvers),
    "Cluster": (_cluster.partitions, _cluster.cluster_jobs),
}
# The rest of the line of `up` is for `serve`; a priority such as -5 looks like an option.
CONTEXTS: dict[object, dict[str, bool]] = {
    _service.up: {"allow_extra_args": True, "ignore_unknown_options": True},
    _control.priority: {"ignore_unknown_options": True},
}


def _version(wanted: bool) -> None:
    if wanted:
        from edbjobs._version import __version__

        typer.echo(f"edbjobs {__version__}")
        raise typer.Exit


def _before(
    certificates: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with ca.crt, client.crt and client.key, for mutual TLS."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Tell the release.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    SHARED.certificates = certificates


def make_app(*, overview: bool = False) -> typer.Typer:
    """Make the command.

    Parameters
    ----------
    overview : bool
        Leave the commands' own options out, which takes a quarter of the time and is all that ``--help`` shows.
    """
    app = typer.Typer(
        name="edbjobs",
        help="Queue, run and watch Ansys HFSS and HFSS 3D Layout solves.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_before)
    for panel, commands in PANELS.items():
        for command in commands:
            app.command(
                name_of(command),
                help=command.__doc__,
                epilog=EXIT_CODES,
                rich_help_panel=panel,
                context_settings=CONTEXTS.get(command),
            )(_nothing if overview else command)
    return app


def name_of(command: Callable[..., None]) -> str:
    """Tell what a command is called on the command line."""
    return "list" if command is _jobs.list_jobs else command.__name__.replace("_", "-")


def _nothing() -> None:
    pass


def run() -> None:
    """Run the command and exit."""
    # grpc's core writes lines of its own to standard error, also for what is told here in a sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with readable_errors():
        make_app(overview=sys.argv[1:] in ([], ["-h"], ["--help"]))()
