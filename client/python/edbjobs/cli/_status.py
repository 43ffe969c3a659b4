"""Commands that read the host, the queue and the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edbjobs._text import age
from edbjobs.cli import _options as o
from edbjobs.cli._errors import fail
from edbjobs.cli._output import counted, local_time, show_pairs, show_table, size, write_json

if TYPE_CHECKING:
    from edbjobs._models import Limits, QueueStatus, ResourceSnapshot, SchedulerStatus

__all__ = ["limits", "queue", "resources", "solvers", "status"]

_PANEL = "New limits"


def status(target: o.Target = None, json: o.Json = False) -> None:
    """Show the service's version and health, and who you are to it."""
    with o.connect(target) as client:
        found = client.status()
    if json:
        write_json(found)
        return
    caller = found.caller
    show_pairs(
        {
            "service": f"edbjobs {found.version}, API level {found.api_level}, pid {found.pid} on {found.host}",
            "up": f"{age(found.started)}, since {local_time(found.started)}",
            "state": "draining: starts no new jobs" if found.draining else "serving",
            "account": found.account,
            "you": f"{caller.name} ({caller.role}, by {caller.authentication})" if caller else "",
            "store": found.state_directory + ("" if found.store_writable else " (not writable!)"),
            "revision": found.revision,
            "schedulers": [_scheduler_line(item) for item in found.schedulers],
            "queue": _queue_line(found.queue),
            "warnings": found.warnings,
        }
    )


def _scheduler_line(item: SchedulerStatus) -> str:
    name = f"{item.name} {item.version}".rstrip()
    since = f"since {local_time(item.since)}" if item.since is not None else ""
    if item.answering:
        return f"{name} answers {since}".rstrip()
    return f"{name} does not answer {since}".rstrip() + (f": {item.error}" if item.error else "")


def _queue_line(queue: QueueStatus | None) -> str:
    if queue is None:
        return ""
    words = f"{queue.running} of {queue.max_concurrent_jobs} running, {queue.queued} waiting"
    words += f", {queue.scheduled} in a cluster" if queue.scheduled else ""
    return words + (", paused" if queue.paused else "") + (f", {queue.gate}" if queue.gate else "")


def resources(target: o.Target = None, json: o.Json = False) -> None:
    """Show the resource usage of the service's host."""
    with o.connect(target) as client:
        found = client.resources()
    if json:
        write_json(found)
    else:
        show_pairs(_resources(found))


def _resources(found: ResourceSnapshot) -> dict[str, object]:
    return {
        "at": local_time(found.time),
        "processors": f"{found.cpu_percent:.0f} % of {found.cpu_count}, {found.foreign_cpu_percent:.0f} % by others",
        "memory": f"{found.memory_percent:.0f} % of {size(found.memory_total_bytes)}, "
        f"{size(found.memory_available_bytes)} free",
        "disks": [f"{disk.path}: {size(disk.free_bytes)} of {size(disk.total_bytes)} free" for disk in found.disks],
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
    state = "draining" if found.draining else "paused" if found.paused else "open"
    show_pairs(
        {
            "queue": f"{state}, gate closed: {found.gate}" if found.gate else state,
            "running": f"{found.running} of {found.max_concurrent_jobs}",
            "waiting": f"{found.queued}" + (f", {found.held} of them held" if found.held else ""),
            "by priority": [f"{p}: {n}" for p, n in sorted(found.queued_by_priority.items(), reverse=True)],
            "in a cluster": found.scheduled,
            "reserved": f"{counted(found.cores_reserved, 'core')}, {found.memory_reserved_mib} MiB",
            "licenses": [f"{feature}: {number}" for feature, number in found.licenses_reserved.items()],
        }
    )


def limits(
    max_concurrent_jobs: Annotated[
        int | None, typer.Option(help="Concurrent local runs; 0: start no job.", rich_help_panel=_PANEL)
    ] = None,
    max_cores: Annotated[int | None, typer.Option(help="Cores; 0: all of the host.", rich_help_panel=_PANEL)] = None,
    max_memory_mib: Annotated[
        int | None, typer.Option(help="Reserved memory, MiB; 0: all of the host.", rich_help_panel=_PANEL)
    ] = None,
    max_cluster_jobs: Annotated[
        int | None, typer.Option(help="Active jobs in clusters; 0: no limit.", rich_help_panel=_PANEL)
    ] = None,
    licenses: Annotated[
        list[str] | None,
        typer.Option("--license", metavar="FEATURE=N", help="License tokens; replace all.", rich_help_panel=_PANEL),
    ] = None,
    max_cpu_percent: Annotated[
        float | None, typer.Option(help="Start no job above this CPU usage; 0: off.", rich_help_panel=_PANEL)
    ] = None,
    min_memory: Annotated[
        float | None, typer.Option(help="Start no job with less free memory, GiB; 0: off.", rich_help_panel=_PANEL)
    ] = None,
    min_disk: Annotated[
        float | None, typer.Option(help="Start no job with less free disk space, GiB; 0: off.", rich_help_panel=_PANEL)
    ] = None,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """Show the limits, or change the given ones, all or none. Running jobs continue."""
    values: dict[str, Any] = {
        "max_concurrent_jobs": max_concurrent_jobs,
        "max_cores": max_cores,
        "max_memory_mib": max_memory_mib,
        "max_cluster_jobs": max_cluster_jobs,
        "licenses": license_counts(licenses) if licenses else None,
        "max_cpu_percent": max_cpu_percent,
        "min_memory_gb": min_memory,
        "min_disk_gb": min_disk,
    }
    new = {name: value for name, value in values.items() if value is not None}
    with o.connect(target) as client:
        found = client.update_limits(**new) if new else client.limits()
    if json:
        write_json(found)
    else:
        show_pairs(_limits(found))


def license_counts(texts: list[str]) -> dict[str, int]:
    """Parse license tokens of the form FEATURE=N."""
    found = {}
    for feature, number in o.pairs(texts, "--license").items():
        if not number.isdigit():
            fail(f"--license {feature}={number}: expected a number of tokens")
        found[feature] = int(number)
    return found


def _limits(found: Limits) -> dict[str, object]:
    def or_word(value: float, word: str, unit: str = "") -> str:
        return f"{value:g}{unit}" if value else word

    users = {"": found.default_user, **found.users}
    return {
        "concurrent local runs": found.max_concurrent_jobs,
        "cores": or_word(found.max_cores, "the host's"),
        "reserved memory": or_word(found.max_memory_mib, "the host's", " MiB"),
        "active jobs in clusters": or_word(found.max_cluster_jobs, "no limit"),
        "license tokens": [f"{feature}: {number}" for feature, number in found.licenses.items()],
        "CPU gate": f"closed above {found.max_cpu_percent:g} %" if found.max_cpu_percent else "off",
        "memory gate": f"closed below {found.min_memory_gb:g} GiB free" if found.min_memory_gb else "off",
        "disk gate": f"closed below {found.min_disk_gb:g} GiB free" if found.min_disk_gb else "off",
        "users": [
            f"{name or 'everyone else'}: {or_word(user.max_running_jobs, 'any')} jobs, "
            f"{or_word(user.max_cores, 'any')} cores"
            + ("" if user.max_priority is None else f", priority at most {user.max_priority}")
            for name, user in users.items()
            if user is not None
        ],
    }


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
                    item.source + (", student" if item.student else "") + (", demo solver" if item.demo else ""),
                    item.scheduler or "this host",
                )
                for item in found
            ),
        )
