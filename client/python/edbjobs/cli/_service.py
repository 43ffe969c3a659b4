"""Commands that run and check a service."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from edbjobs.cli import _options as o
from edbjobs.cli._errors import FAILED, fail
from edbjobs.cli._output import show_pairs, write_json
from edbjobs.cli._status import license_counts

__all__ = ["demo", "doctor", "down", "serve", "up"]

_LIMITS = "Limits (default: those in the store)"
_SAFETY = "Access, solvers and projects"
_CLUSTER = "Clusters"
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", help="Folder of the store, logs and runs; on a local disk.")
]
SettingsFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.", exists=True)
]


def server_module(name: str) -> ModuleType:
    """Import a module of the service, which is an optional extra."""
    import importlib

    try:
        return importlib.import_module(f"edbjobs_server.{name}")
    except ImportError as error:
        if error.name and error.name.startswith("edbjobs"):
            raise
        fail(f'running a service needs the package {error.name}: pip install "edbjobs[cli,server]"')


def serve(
    state_dir: StateDir = None,
    grpc: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help='IP address and port of gRPC; port 0: a free port; "": off.')
    ] = None,
    uds: Annotated[str | None, typer.Option(metavar="PATH", help='Unix socket of gRPC; "": off.')] = None,
    http: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help='IP address and port of REST and Socket.IO; "": off.')
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write when the service is ready.")
    ] = None,
    config: SettingsFile = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    retention_days: Annotated[
        float | None, typer.Option(help="Delete ended jobs after so many days; 0: never.")
    ] = None,
    retention_jobs: Annotated[int | None, typer.Option(help="Ended jobs to keep; 0: all.")] = None,
    max_local_jobs: Annotated[
        int | None, typer.Option(help="Local runs at once; 0: start none.", rich_help_panel=_LIMITS)
    ] = None,
    max_cores: Annotated[
        int | None, typer.Option(help="Cores reserved at once; 0: start none.", rich_help_panel=_LIMITS)
    ] = None,
    max_memory_bytes: Annotated[
        int | None, typer.Option(help="Memory reserved at once; 0: start none.", rich_help_panel=_LIMITS)
    ] = None,
    max_cluster_jobs: Annotated[
        int | None, typer.Option(help="Jobs in clusters at once; 0: start none.", rich_help_panel=_LIMITS)
    ] = None,
    licenses: Annotated[
        list[str] | None,
        typer.Option("--license", metavar="FEATURE=N", help="License tokens by feature.", rich_help_panel=_LIMITS),
    ] = None,
    max_cpu_percent: Annotated[
        float | None, typer.Option(help="Start no job above this CPU usage; 0: start none.", rich_help_panel=_LIMITS)
    ] = None,
    min_free_memory_bytes: Annotated[
        int | None, typer.Option(help="Start no job with less free memory.", rich_help_panel=_LIMITS)
    ] = None,
    min_free_disk_bytes: Annotated[
        int | None, typer.Option(help="Start no job with less free disk space.", rich_help_panel=_LIMITS)
    ] = None,
    solver: Annotated[
        list[Path] | None,
        typer.Option(help="Solver to offer in addition to the installed ones.", rich_help_panel=_SAFETY),
    ] = None,
    demo_solver: Annotated[
        bool | None,
        typer.Option("--demo-solver", help="Offer the demo solver, which solves nothing.", rich_help_panel=_SAFETY),
    ] = None,
    project_root: Annotated[
        list[Path] | None, typer.Option(help="Folder; projects must be inside.", rich_help_panel=_SAFETY)
    ] = None,
    environment_allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Further environment variables that jobs may set.", rich_help_panel=_SAFETY
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="auto, none, slurm, lsf, pbs or windows_hpc.", rich_help_panel=_CLUSTER),
    ] = None,
    shared_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help='Folder for cluster runs, with the same path on the nodes; "": none.',
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    shared_root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder; projects of cluster jobs must be inside.", rich_help_panel=_CLUSTER),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="URL of the HTTP endpoint behind a reverse proxy.", rich_help_panel=_SAFETY),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Further host name that HTTP requests may use.", rich_help_panel=_SAFETY),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address or network whose X-Forwarded-For is trusted.", rich_help_panel=_SAFETY),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages that may call with the token.", rich_help_panel=_SAFETY),
    ] = None,
    transport_mode: Annotated[str | None, typer.Option(help="insecure, uds or mtls.", rich_help_panel=_SAFETY)] = None,
    certificates: Annotated[
        Path | None,
        typer.Option(help="Folder with ca.crt, server.crt and server.key.", rich_help_panel=_SAFETY),
    ] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C; running solves continue after it.

    Options override EDBJOBS_* variables (such as EDBJOBS_STATE_DIR), which override the settings file.
    """
    given = dict(locals())
    given["licenses"] = license_counts(licenses) if licenses else None
    for option, setting in _RENAMED.items():
        given[setting] = given.pop(option)
    values = {name: value for name, value in given.items() if value is not None and name != "config"}
    raise typer.Exit(server_module("service.app").main(values, config))


_RENAMED = {
    "solver": "solvers",
    "project_root": "project_roots",
    "shared_root": "shared_roots",
    "allowed_host": "allowed_hosts",
    "trusted_proxy": "trusted_proxies",
    "cors_origin": "cors_origins",
}


def up(
    context: typer.Context,
    timeout: Annotated[float, typer.Option(help="Maximum wait until it answers, seconds.")] = 30.0,
    json: o.Json = False,
) -> None:
    """Start this user's service unless it is running, and show its address. Other options are passed to `serve`."""
    from edbjobs.cli import _daemon

    endpoint, started = _daemon.up(context.args, timeout)
    if json:
        write_json(endpoint)
        return
    print(f"edbjobs {endpoint.version} {'started' if started else 'is already running'}", file=sys.stderr)
    show_pairs({"grpc": endpoint.grpc, "uds": endpoint.uds, "http": endpoint.http, "pid": endpoint.pid})


def down(
    timeout: Annotated[float, typer.Option(help="Maximum wait until it has ended, seconds.")] = 60.0,
    json: o.Json = False,
) -> None:
    """Stop this user's service; running solves continue."""
    from edbjobs.cli import _daemon

    pid = _daemon.down(timeout)
    if json:
        write_json({"pid": pid})
    else:
        print(f"stopped pid {pid}; running solves continue" if pid else "no service of this user is running")


def doctor(
    state_dir: StateDir = None,
    config: SettingsFile = None,
    network: Annotated[bool, typer.Option("--network", help="Also connect to the license servers.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rebuild the store from the records of the runs; the old one is kept.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Check AEDT, licenses, ports, disk, store and session settings, and suggest fixes."""
    from edbjobs.cli import _doctor

    settings, server = server_module("config.settings"), server_module("doctor")
    loaded = _doctor.load(settings, {"state_dir": state_dir}, config)
    if rebuild:
        _doctor.rebuild(server, loaded, json)
    elif _doctor.run(server, loaded, network, json):
        raise typer.Exit(FAILED)


def demo(
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to use and keep; default: a temporary one.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Demonstrate with a demo solver that a solve survives a killed service."""
    from edbjobs.cli import _demo

    server_module("service.app")
    if not _demo.run(state_dir, json):
        raise typer.Exit(FAILED)
