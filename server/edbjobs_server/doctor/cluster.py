"""Checks of the clusters that jobs could be handed to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from edbjobs_server.config.settings import Settings, SettingsError
from edbjobs_server.config.site_policy import SitePolicy, load_site_policy
from edbjobs_server.doctor.check import Check
from edbjobs_server.executors.schedulers.base import Scheduler, Unreachable
from edbjobs_server.service.cluster_factory import installed, make_scheduler
from edbjobs_server.solver.environment import inherited
from edbjobs_server.store.state_folder import network_file_system


def clusters(settings: Settings) -> Iterator[Check]:
    """Check which schedulers answer here, and whether runs have a folder that the nodes see."""
    environ = inherited(os.environ)
    try:
        site = load_site_policy()
        found = {name: make_scheduler(name, settings, site, environ) for name in installed(settings, environ)}
    except SettingsError as error:
        yield Check("clusters", "fail", str(error), "the service does not start so; correct it")
        return
    if not found:
        text = "off" if settings.scheduler == "none" else "no scheduler's commands are installed"
        yield Check("clusters", "ok", f"{text}: jobs run on this host")
        return
    for name, scheduler in found.items():
        yield asyncio.run(_answers(name, scheduler))
    yield from _shared_dir(settings, site)


async def _answers(name: str, scheduler: Scheduler) -> Check:
    try:
        return Check(name, "ok", f"{name} {await scheduler.probe()} answers")
    except Unreachable as error:
        advice = "until it answers, jobs for it wait; --scheduler none leaves it out"
        return Check(name, "warn", f"{name} does not answer: {error}", advice)
    finally:
        await scheduler.close()


def _shared_dir(settings: Settings, site: SitePolicy) -> Iterator[Check]:
    folder = site.shared_dir_of(settings)
    if folder is None:
        yield Check(
            "shared folder",
            "warn",
            "there is no folder for runs on a cluster: jobs for it are refused with NO_SHARED_DIR",
            "set one that the nodes see at the same path: --shared-dir DIR, or shared_dir in the settings file",
        )
        return
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "give it to this account, or choose another with --shared-dir"
        yield Check("shared folder", "fail", f"{place} cannot be written", advice)
        return
    kind = network_file_system(place)
    where = f"on {kind}" if kind else "on a local file system: the nodes must see it all the same"
    yield Check("shared folder", "ok", f"{folder}: {where}")
