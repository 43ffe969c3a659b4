"""Commands that read the host, the queue and the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edbjobs._text import age
from edbjobs.cli import _options as o
from edbjobs.cli._errors import fail
from edbjobs.cli._output import counted, local_time, show_pairs, show_table, size, write_json

if TYPE_CHECKING:
    from edbjobs._models import HostResources, Limits, QueueStatus, SchedulerStatus, Solver

__all__ = ["limits", "queue", "resources", "solvers", "status"]

_PANEL = "New limits"


def status(target: o.Target = None, json: o.Json = False) -> None:
    """Show the service's version and health, and who you are to it."""
    with o.connect(target) as client:
        found = client.status()
    if json:
        write_json(found)
        return
    caller, details = found.caller, found.details
    process = f", pid {details.pid} on {found.host}" if details else f" on {found.host}"
    unavailable = "not writable!" if found.store_unavailable else ""
    show_pairs(
        {
            "service": f"edbjobs {found.version}, API level {found.api_level}{process}",
            "up": f"{age(found.start_time)}, since {local_time(found.start_time)}",
            "state": "draining: starts no new jobs" if found.draining else "serving",
            "account": details.account if details else "",
            "you": f"{caller.name} ({caller.role}, by {caller.authentication})" if caller else "",
            "store": " ".join(filter(None, (details.state_directory if details else "", unavailable))),
            "revision": found.position.revision if found.position else "",
            "schedulers": [_scheduler_line(item) for item in found.schedulers],
            "queue": _queue_line(found.queue, found.limits),
            "warnings": details.warnings if details else [],
        }
    )


def _scheduler_line(item: SchedulerStatus) -> str:
    name = f"{item.name} {item.version}".rstrip()
    since = f"since {local_time(item.since_time)}" if item.since_time is not None else ""
    if item.responding:
        return f"{name} answers {since}".rstrip()
    return f"{name} does not answer {since}".rstrip() + (f": {item.error}" if item.error else "")


def _queue_line(queue: QueueStatus | None, limits: Limits | None) -> str:
    if queue is None:
        return ""
    words = f"{_local_runs(queue, limits)} running, {queue.queued - queue.starting} waiting"
    words += f", {queue.scheduled} in a cluster" if queue.scheduled else ""
    return words + (f", {queue.blocked_message}" if queue.blocked_message else "")


def _local_runs(queue: QueueStatus, limits: Limits | None) -> str:
    most = limits.max_local_jobs if limits is not None else None
    return f"{queue.local_runs}" if most is None else f"{queue.local_runs} of {most}"


def resources(target: o.Target = None, json: o.Json = False) -> None:
    """Show the resource usage of the service's host."""
    with o.connect(target) as client:
        found = client.resources()
    if json:
        write_json(found)
    else:
        show_pairs(_resources(found))


def _resources(found: HostResources) -> dict[str, object]:
    memory = 100 * found.memory_used_bytes / (found.memory_total_bytes or 1)
    return {
        "at": local_time(found.sample_time),
        "processors": f"{found.cpu_percent:.0f} % of {found.cpu_count}, {found.foreign_cpu_percent:.0f} % by others",
        "memory": f"{memory:.0f} % of {size(found.memory_total_bytes)}, {size(found.memory_available_bytes)} free",
        "volumes": [
            f"{volume.path}: {size(volume.free_bytes)} of {size(volume.total_bytes)} free"
            + (", does not respond" if volume.unreachable else "")
            for volume in found.volumes
        ],
    }


def queue(
    pause: Annotated[bool, typer.Option("--pause", help="Start no more jobs; running jobs continue.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Start jobs again.")] = False,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Show the queue, or pause or resume it."""
    if pause and resume:
        fail("--pause and --resume exclude each other")
    with o.connect(target) as client:
        found = client.pause_queue() if pause else client.resume_queue() if resume else client.queue()
        if json:
            write_json(found)
            return
        limits = client.limits()
    from edbjobs._models import Reservation

    state = "paused" if found.paused else "open"
    reserved = found.reserved or Reservation()
    show_pairs(
        {
            "queue": f"{state}: {found.blocked_message}" if found.blocked_message else state,
            "running here": _local_runs(found, limits),
            "running": found.running,
            "starting": found.starting,
            "waiting": f"{found.queued - found.starting}" + (f", {found.held} of them held" if found.held else ""),
            "by priority": [f"{p}: {n}" for p, n in sorted(found.queued_by_priority.items(), reverse=True)],
            "in a cluster": found.scheduled,
            "reserved": f"{counted(reserved.cores, 'core')}, {size(reserved.memory_bytes)}",
            "licenses": [f"{feature}: {number}" for feature, number in reserved.licenses.items()],
        }
    )


def limits(
    max_local_jobs: Annotated[
        int | None, typer.Option(help="Local runs at once; 0: start none.", rich_help_panel=_PANEL)
    ] = None,
    max_cores: Annotated[
        int | None, typer.Option(help="Cores reserved at once; 0: start none.", rich_help_panel=_PANEL)
    ] = None,
    max_memory_bytes: Annotated[
        int | None, typer.Option(help="Memory reserved at once; 0: start none.", rich_help_panel=_PANEL)
    ] = None,
    max_cluster_jobs: Annotated[
        int | None, typer.Option(help="Jobs in clusters at once; 0: start none.", rich_help_panel=_PANEL)
    ] = None,
    licenses: Annotated[
        list[str] | None,
        typer.Option("--license", metavar="FEATURE=N", help="License tokens of a feature.", rich_help_panel=_PANEL),
    ] = None,
    max_cpu_percent: Annotated[
        float | None, typer.Option(help="Start no job above this CPU usage; 0: start none.", rich_help_panel=_PANEL)
    ] = None,
    min_free_memory_bytes: Annotated[
        int | None, typer.Option(help="Start no job with less free memory.", rich_help_panel=_PANEL)
    ] = None,
    min_free_disk_bytes: Annotated[
        int | None, typer.Option(help="Start no job with less free disk space.", rich_help_panel=_PANEL)
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Remove a limit, such as max_cores.", rich_help_panel=_PANEL),
    ] = None,
    remove_license: Annotated[
        list[str] | None,
        typer.Option(metavar="FEATURE", help="Remove the limit of a feature.", rich_help_panel=_PANEL),
    ] = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Show the limits, or change the given ones, all or none. Running jobs continue."""
    values: dict[str, Any] = {
        "max_local_jobs": max_local_jobs,
        "max_cores": max_cores,
        "max_memory_bytes": max_memory_bytes,
        "max_cluster_jobs": max_cluster_jobs,
        "licenses": license_counts(licenses) if licenses else None,
        "max_cpu_percent": max_cpu_percent,
        "min_free_memory_bytes": min_free_memory_bytes,
        "min_free_disk_bytes": min_free_disk_bytes,
    }
    new = {name: value for name, value in values.items() if value is not None}
    for name in remove or ():
        _remove(new, name.replace("-", "_"))
    for feature in remove_license or ():
        _remove(new.setdefault("licenses", {}), feature)
    with o.connect(target) as client:
        found = client.update_limits(**new) if new else client.limits()
    if json:
        write_json(found)
    else:
        show_pairs(_limits(found))


def _remove(values: dict[str, Any], name: str) -> None:
    if name in values:
        fail(f"{name} is set and removed")
    values[name] = None


def license_counts(texts: list[str]) -> dict[str, int]:
    """Parse license tokens of the form FEATURE=N."""
    found = {}
    for feature, number in o.pairs(texts, "--license").items():
        if not number.isdigit():
            fail(f"--license {feature}={number}: expected a number of tokens")
        found[feature] = int(number)
    return found


def _limits(found: Limits) -> dict[str, object]:
    memory, cpu = found.max_memory_bytes, found.max_cpu_percent
    users = {"": found.default_user, **found.users}
    return {
        "local runs": _or(found.max_local_jobs, "no limit"),
        "cores": _or(found.max_cores, "the host's"),
        "reserved memory": size(memory) if memory is not None else "the host's",
        "jobs in clusters": _or(found.max_cluster_jobs, "no limit"),
        "license tokens": [f"{feature}: {number}" for feature, number in found.licenses.items()],
        "CPU gate": f"closed above {cpu:g} %" if cpu is not None else "off",
        "memory gate": _least(found.min_free_memory_bytes),
        "disk gate": _least(found.min_free_disk_bytes),
        "users": [
            f"{name or 'everyone else'}: {_or(user.max_running_jobs, 'any')} jobs, {_or(user.max_cores, 'any')} cores"
            + ("" if user.max_priority is None else f", priority at most {user.max_priority}")
            for name, user in users.items()
            if user is not None
        ],
    }


def _least(free: int | None) -> str:
    return f"closed below {size(free)} free" if free else "off"


def _or(value: int | None, word: str) -> str:
    return word if value is None else str(value)


def solvers(target: o.Target = None, json: o.Json = False) -> None:
    """List the installed solvers, newest first."""
    with o.connect(target) as client:
        found = client.solvers()
    if json:
        write_json(list(found))
    elif not found:
        print("no solver is installed; set one with 'edbjobs serve --solver', or try --demo-solver")
    else:
        show_table(
            ("release", "program", "found by", "runs on"),
            (
                (
                    item.version,
                    item.path,
                    _found_by(item),
                    item.scheduler or "this host",
                )
                for item in found
            ),
        )


def _found_by(item: Solver) -> str:
    words = (item.source_name or str(item.source), "student" * item.student, "demo solver" * item.demo)
    return ", ".join(filter(None, words))
