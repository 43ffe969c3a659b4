"""Checks of the solver: installed releases and licenses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from edbjobs_server.config.settings import Settings
from edbjobs_server.doctor.check import Check
from edbjobs_server.solver.releases import discover, on_windows_nodes

LICENSE_VARIABLE = "ANSYSLMD_LICENSE_FILE"
_DEFAULT_PORT = 1055  # of Ansys license servers
_CONNECT_SECONDS = 2.0


def releases(settings: Settings) -> Iterator[Check]:
    """Return the solvers that would be offered."""
    found = discover(os.environ, settings.solvers, settings.demo_solver)
    for release in on_windows_nodes(settings.hpc_solvers):
        text = f"AEDT {release.version} at {release.path} on the nodes of Windows HPC, as the settings say"
        yield Check("solver", "ok", text)
    if not found and not settings.hpc_solvers:
        yield Check(
            "solver",
            "fail",
            "no AEDT was found: submits are refused with SOLVER_NOT_FOUND",
            "set ANSYSEM_ROOTnnn (for example ANSYSEM_ROOT252) for the service, or --solver /path/to/ansysedt; "
            "to try the service without AEDT: --demo-solver",
        )
    for release in found:
        if release.demo:
            yield Check("solver", "warn", f"demo solver {release.path}: it solves nothing", "leave out --demo-solver")
        else:
            student = ", student version" if release.student else ""
            yield Check("solver", "ok", f"AEDT {release.version}{student} at {release.path} (from {release.source})")


def license_variable(settings: Settings) -> Iterator[Check]:
    """Check whether a solver would find a license server."""
    if not any(not release.demo for release in discover(os.environ, settings.solvers)):
        return
    value = os.environ.get(LICENSE_VARIABLE, "")
    if not value:
        yield Check(
            "license",
            "warn",
            f"{LICENSE_VARIABLE} is not set: without a license AEDT hangs for minutes without a message",
            f"set {LICENSE_VARIABLE}={_DEFAULT_PORT}@SERVER for the service, unless ansyslmd.ini names the server",
        )
        return
    for entry in _entries(value):
        server = _server(entry)
        if server is None and not os.path.exists(entry):
            yield Check(
                "license",
                "fail",
                f"{LICENSE_VARIABLE} names {entry!r}, which is neither PORT@SERVER nor a file",
                "correct it in the environment of the service",
            )
        else:
            yield Check("license", "ok", f"{LICENSE_VARIABLE}: {entry}")


def license_servers() -> Iterator[Check]:
    """Connect to each license server."""
    for entry in _entries(os.environ.get(LICENSE_VARIABLE, "")):
        server = _server(entry)
        if server is None:
            continue
        name = f"license server {server[0]}:{server[1]}"
        try:
            socket.create_connection(server, _CONNECT_SECONDS).close()
        except OSError as error:
            advice = "check name and port, the network from this host, and that the license manager is up"
            yield Check(name, "fail", f"does not answer: {error}", advice)
        else:
            yield Check(name, "ok", "answers")


def _entries(value: str) -> list[str]:
    return [entry for part in value.split(os.pathsep) for entry in part.split(",") if entry]


def _server(entry: str) -> tuple[str, int] | None:
    port, at, host = entry.partition("@")
    if not at or not host or not (port.isdigit() or not port):
        return None
    return host, int(port or _DEFAULT_PORT)
