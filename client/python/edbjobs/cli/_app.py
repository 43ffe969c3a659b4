"""The typer application: global options, and the commands with their help panels."""

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

__all__ = ["command_name", "make_app", "run"]

EXIT_CODES = (
    "Exit codes: 0 success; 1 the job failed, or the service refused the request; "
    "2 wrong usage, or the service is unreachable; 130 interrupted."
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
# `up` passes unknown options on to `serve`; a priority such as -5 looks like an option.
CONTEXTS: dict[object, dict[str, bool]] = {
    _service.up: {"allow_extra_args": True, "ignore_unknown_options": True},
    _control.priority: {"ignore_unknown_options": True},
}


def _version(show: bool) -> None:
    if show:
        from edbjobs._version import __version__

        typer.echo(f"edbjobs {__version__}")
        raise typer.Exit


def _global_options(
    certificates: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with ca.crt, client.crt and client.key for mutual TLS."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    SHARED.certificates = certificates


def make_app(*, overview: bool = False) -> typer.Typer:
    """Create the typer application.

    Parameters
    ----------
    overview : bool
        Omit the options of the commands: ``--help`` does not show them, and it takes a quarter of the time.
    """
    app = typer.Typer(
        name="edbjobs",
        help="Queue, run and watch Ansys HFSS and HFSS 3D Layout solves.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)
    for panel, commands in PANELS.items():
        for command in commands:
            app.command(
                command_name(command),
                help=command.__doc__,
                epilog=EXIT_CODES,
                rich_help_panel=panel,
                context_settings=CONTEXTS.get(command),
            )(_nothing if overview else command)
    return app


def command_name(command: Callable[..., None]) -> str:
    """Return the name of a command on the command line."""
    return "list" if command is _jobs.list_jobs else command.__name__.replace("_", "-")


def _nothing() -> None:
    pass


def run() -> None:
    """Run the application and exit."""
    # grpc's core logs to standard error, also for errors that this command reports itself.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with readable_errors():
        make_app(overview=sys.argv[1:] in ([], ["-h"], ["--help"]))()
