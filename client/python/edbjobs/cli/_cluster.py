"""Commands that read the state of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edbjobs._text import limit_text
from edbjobs.cli import _options as o
from edbjobs.cli._errors import FAILED
from edbjobs.cli._output import local_time, show_table, size, write_json

if TYPE_CHECKING:
    from edbjobs._models import ClusterJob, Partition, SchedulerStatus

__all__ = ["cluster_jobs", "partitions"]

Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="NAME", help="Scheduler of the cluster; default: all.")
]


def partitions(scheduler: Scheduler = None, target: o.Target = None, json: o.Json = False) -> None:
    """List the partitions or queues of a cluster and their free resources."""
    with o.connect(target) as client:
        found = client.partitions(scheduler or "")
        _warn(() if scheduler else client.status().schedulers)
    if json:
        write_json(list(found))
    else:
        titles = ("scheduler", "partition", "state", "nodes free", "cores free", "memory free", "time limit")
        show_table(titles, map(_partition, found))


def _partition(item: Partition) -> tuple[str, ...]:
    return (
        item.scheduler,
        item.name + ("*" if item.is_default else ""),
        item.state,
        f"{known(item.nodes_free)} of {known(item.nodes_total)}",
        f"{known(item.cores_free)} of {known(item.cores_total)}",
        _memory(item),
        limit_text(int(item.time_limit.total_seconds()) if item.time_limit is not None else 0),
    )


def _memory(item: Partition) -> str:
    if item.memory_total_bytes is None:
        return "?"
    free = "?" if item.memory_used_bytes is None else size(item.memory_total_bytes - item.memory_used_bytes)
    return f"{free} of {size(item.memory_total_bytes)}"


def known(number: int | None) -> str:
    """Return a number as text, or a question mark."""
    return "?" if number is None else str(number)


def _warn(schedulers: Sequence[SchedulerStatus]) -> None:
    """Report schedulers whose partitions and jobs are missing; fail if that is so of all."""
    clusters = [item for item in schedulers if item.name != "local"]
    missing = [item for item in clusters if not item.responding]
    for item in missing:
        print(f"{item.name} does not respond: {item.error}", file=sys.stderr)
    if clusters and len(missing) == len(clusters):
        raise typer.Exit(FAILED)


def cluster_jobs(
    scheduler: Scheduler = None,
    partition: Annotated[
        str | None, typer.Option("--partition", metavar="NAME", help="Only jobs in this partition or queue.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only jobs of this service.")] = False,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """List the active jobs of a cluster, from this service and from others."""
    with o.connect(target) as client:
        found = client.cluster_jobs(scheduler or "", partition=partition or "", user=user or "")
        _warn(() if scheduler else client.status().schedulers)
    shown = [job for job in found if job.job_uid or not mine]
    if json:
        write_json(shown)
    elif not shown:
        print("no jobs")
    else:
        titles = ("scheduler", "id", "name", "user", "partition", "state", "cores", "nodes", "started")
        show_table(titles, map(_job, shown))


def _job(job: ClusterJob) -> tuple[object, ...]:
    state = f"{job.state}: {job.reason}" if job.reason else job.state
    nodes = ",".join(job.nodes) or job.node_count
    return (
        *(job.scheduler, job.scheduler_job_id, job.name, job.user, job.partition, state, job.core_count),
        *(nodes, local_time(job.start_time)),
    )
