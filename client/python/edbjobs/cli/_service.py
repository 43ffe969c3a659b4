"""Commands that run a service."""

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

_LIMITS = "Limits; else those in force before"
_SAFETY = "Who gets in, and what may be run"
_CLUSTER = "Clusters"
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", help="Store, logs and runs; on a local disk.")
]
SettingsFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.", exists=True)
]


def server_module(name: str) -> ModuleType:
    """Import a module of the service, which is an extra."""
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
        str | None, typer.Option(metavar="ADDRESS", help='IP address and port; port 0: a free one; "": none.')
    ] = None,
    uds: Annotated[str | None, typer.Option(metavar="PATH", help='Unix socket; "": none.')] = None,
    http: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help='IP address and port of REST and Socket.IO; "": none.')
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Written when the service answers.")] = None,
    config: SettingsFile = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    retention_days: Annotated[float | None, typer.Option(help="Age of ended jobs; 0: no end.")] = None,
    retention_jobs: Annotated[int | None, typer.Option(help="Number of ended jobs; 0: no end.")] = None,
    max_concurrent_jobs: Annotated[
        int | None, typer.Option(help="Local runs at once.", rich_help_panel=_LIMITS)
    ] = None,
    max_cores: Annotated[int | None, typer.Option(help="Cores; 0: the host's.", rich_help_panel=_LIMITS)] = None,
    max_memory_mib: Annotated[
        int | None, typer.Option(help="Declared memory, MiB; 0: the host's.", rich_help_panel=_LIMITS)
    ] = None,
    max_cluster_jobs: Annotated[
        int | None, typer.Option(help="Jobs with a cluster; 0: no limit.", rich_help_panel=_LIMITS)
    ] = None,
    licenses: Annotated[
        list[str] | None,
        typer.Option("--license", metavar="FEATURE=N", help="Licence tokens.", rich_help_panel=_LIMITS),
    ] = None,
    max_cpu_percent: Annotated[
        float | None, typer.Option(help="Start nothing above this use.", rich_help_panel=_LIMITS)
    ] = None,
    min_memory: Annotated[
        float | None, typer.Option(help="Start nothing with less free, GiB.", rich_help_panel=_LIMITS)
    ] = None,
    min_disk: Annotated[
        float | None, typer.Option(help="Start nothing with less free, GiB.", rich_help_panel=_LIMITS)
    ] = None,
    solver: Annotated[
        list[Path] | None,
        typer.Option(help="A solver that may be run beside the installed ones.", rich_help_panel=_SAFETY),
    ] = None,
    demo_solver: Annotated[
        bool | None,
        typer.Option("--demo-solver", help="Offer the stand-in, which solves nothing.", rich_help_panel=_SAFETY),
    ] = None,
    project_root: Annotated[
        list[Path] | None, typer.Option(help="Projects must lie below it.", rich_help_panel=_SAFETY)
    ] = None,
    environment_allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Variables that jobs may set, too.", rich_help_panel=_SAFETY),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="auto, none, slurm, lsf, pbs or windows_hpc.", rich_help_panel=_CLUSTER),
    ] = None,
    shared_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help='Folder for cluster runs, which the nodes see at the same path; "": none.',
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    shared_root: Annotated[
        list[Path] | None,
        typer.Option(help="Projects of cluster jobs must lie below it.", rich_help_panel=_CLUSTER),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="Where a proxy in front makes the HTTP door reachable.", rich_help_panel=_SAFETY),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Host name that HTTP requests may be addressed to, too.", rich_help_panel=_SAFETY),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address or network whose X-Forwarded-For is believed.", rich_help_panel=_SAFETY),
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
    """Run the service until SIGTERM or Ctrl-C, which let running solves go on.

    Settings come from here, else from EDBJOBS_* (such as EDBJOBS_STATE_DIR), else from the settings file.
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
    "min_memory": "min_memory_gb",
    "min_disk": "min_disk_gb",
}


def up(
    context: typer.Context,
    timeout: Annotated[float, typer.Option(help="Longest wait until it answers, seconds.")] = 30.0,
    json: o.Json = False,
) -> None:
    """Start the service if none of this user answers, and tell its address; more options are those of `serve`."""
    from edbjobs.cli import _daemon

    endpoint, started = _daemon.up(context.args, timeout)
    if json:
        write_json(endpoint)
        return
    print(f"edbjobs {endpoint.version} {'started' if started else 'answers already'}", file=sys.stderr)
    show_pairs({"grpc": endpoint.grpc, "uds": endpoint.uds, "http": endpoint.http, "pid": endpoint.pid})


def down(
    timeout: Annotated[float, typer.Option(help="Longest wait until it has ended, seconds.")] = 60.0,
    json: o.Json = False,
) -> None:
    """Stop this user's service: it starts nothing new and ends; running solves go on."""
    from edbjobs.cli import _daemon

    pid = _daemon.down(timeout)
    if json:
        write_json({"pid": pid})
    else:
        print(f"stopped pid {pid}; running solves go on" if pid else "no service of this user is running")


def doctor(
    state_dir: StateDir = None,
    config: SettingsFile = None,
    network: Annotated[bool, typer.Option("--network", help="Connect to the licence servers too.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make a new store from the records of the runs; the old one is kept.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Check AEDT, licences, ports, disk, store and what ends sessions, and say what to do."""
    from edbjobs.cli import _doctor

    settings, server = server_module("config.settings"), server_module("doctor")
    loaded = _doctor.load(settings, {"state_dir": state_dir}, config)
    if rebuild:
        _doctor.rebuild(server, loaded, json)
    elif _doctor.run(server, loaded, network, json):
        raise typer.Exit(FAILED)


def demo(
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the service's folder there; else a temporary one.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Show the service at work with a stand-in solver: a solve that survives its service being killed."""
    from edbjobs.cli import _demo

    server_module("service.app")
    if not _demo.run(state_dir, json):
        raise typer.Exit(FAILED)
