"""Checks of an installation: what is wrong, and what to do. Nothing is changed but by `rebuild`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edbjobs_server.config.settings import Settings
from edbjobs_server.doctor import cluster, host, service, solver
from edbjobs_server.doctor.check import Check
from edbjobs_server.store.database import FILE
from edbjobs_server.store.errors import StoreError
from edbjobs_server.store.rebuild import RebuildReport
from edbjobs_server.store.rebuild import rebuild as rebuild_store

__all__ = ["Check", "RebuildReport", "StoreError", "rebuild", "run_checks"]

_CHECKS: dict[str, Callable[[Settings], Iterator[Check]]] = {
    "versions": service.versions,
    "account": service.account,
    "solver": solver.releases,
    "license": solver.license_variable,
    "TCP": service.tcp,
    "Unix socket": service.unix_socket,
    "who gets in": service.access,
    "state folder": service.state_folder,
    "disk": service.disk,
    "store": service.store,
    "projects": service.project_roots,
    "clusters": cluster.clusters,
    "sessions": host.sessions,
    "unit": host.unit,
    "container": host.container,
}


def run_checks(settings: Settings, *, network: bool = False) -> list[Check]:
    """Check an installation.

    Parameters
    ----------
    settings : Settings
        As the service would start with.
    network : bool, default False
        Connect to the license servers too, 2 s each.

    Returns
    -------
    list of Check
        Each with what to do about it. A check that cannot be made reports that, and stops no other.
    """
    found: list[Check] = []
    for name, check in _CHECKS.items():
        found += _made(name, check, settings)
    if network:
        found += solver.license_servers()
    return found


def _made(name: str, check: Callable[[Settings], Iterator[Check]], settings: Settings) -> list[Check]:
    try:
        return list(check(settings))
    except OSError as error:
        return [Check(name, "warn", f"could not be checked: {error}")]


def rebuild(settings: Settings) -> RebuildReport:
    """Make a new store from the records of the runs; the old one is kept under another name.

    Raises
    ------
    StoreError
        The store is whole, a service uses the state folder, or it cannot be written.
    """
    if (settings.state_dir / FILE).exists() and all(found.status == "ok" for found in service.store(settings)):
        raise StoreError(
            f"the store in {settings.state_dir} is whole, and has more than the records of the runs: nothing was "
            f"changed; to make a new one nevertheless, move {FILE} away first"
        )
    return rebuild_store(settings.state_dir, settings.state_dir / "runs")
