"""Commands that read the state of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edbjobs._text import limit_text
from edbjobs.cli import _options as o
from edbjobs.cli._cluster_options import Place
from edbjobs.cli._output import local_time, show_table, size, write_json

if TYPE_CHECKING:
    from edbjobs._models import ClusterJob, Partition

__all__ = ["cluster_jobs", "partitions"]

Scheduler = Annotated[
    Place | None, typer.Option("--scheduler", help="Scheduler of the cluster; default: the detected one.")
]


def partitions(scheduler: Scheduler = None, target: o.Target = None, json: o.Json = False) -> None:
    """List the partitions or queues of a cluster and their free resources."""
    with o.connect(target) as client:
        found = client.partitions(scheduler.value if scheduler else "")
    if json:
        write_json(list(found))
    else:
        titles = ("partition", "state", "nodes free", "cores free", "memory free", "time limit")
        show_table(titles, map(_partition, found))


def _partition(item: Partition) -> tuple[str, ...]:
    memory = f"{size(item.memory_total_bytes - item.memory_used_bytes)} of {size(item.memory_total_bytes)}"
    return (
        item.name + ("*" if item.default else ""),
        item.state,
        f"{item.nodes_free} of {item.nodes_total}",
        f"{item.cores_free} of {item.cores_total}",
        memory,
        limit_text(item.time_limit_seconds),
    )


def cluster_jobs(
    scheduler: Scheduler = None,
    partition: Annotated[
        str | None, typer.Option("--partition", "--queue", metavar="NAME", help="Only jobs in this partition or queue.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only jobs of this service.")] = False,
    target: o.Target = None,
    json: o.Json = False,
) -> None:
    """List the active jobs of a cluster, from this service and from others."""
    with o.connect(target) as client:
        found = client.cluster_jobs(scheduler.value if scheduler else "", partition=partition or "", user=user or "")
    shown = [job for job in found if job.job_uid or not mine]
    if json:
        write_json(shown)
    elif not shown:
        print("no jobs")
    else:
        titles = ("id", "name", "user", "partition", "state", "cores", "nodes", "started")
        show_table(titles, map(_job, shown))


def _job(job: ClusterJob) -> tuple[object, ...]:
    state = f"{job.state}: {job.reason}" if job.reason else job.state
    nodes = job.nodelist or job.nodes
    return job.scheduler_job_id, job.name, job.user, job.partition, state, job.cores, nodes, local_time(job.started)
