"""What a job asks a cluster's scheduler for, and whether the site lets it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edbjobs.config import JobConfig, SchedulerOptions

from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation

MAX_COMMENT = 200
_MAX_ID = 40
_RANDOM_DIGITS = 16  # of the uid's 20 random ones: 64 bits
_OPTIONS = "config.scheduler_options"


def allocation_of(
    config: JobConfig, *, uid: str, job_id: str, attempt: int, user: str, site: ClusterPolicy
) -> Allocation:
    """Return what a run requests of a scheduler.

    Parameters
    ----------
    config : JobConfig
        Of the job.
    uid, job_id, user : str
        Of the job; they name it at the scheduler.
    attempt : int
        Number of the run.
    site : ClusterPolicy
        Gives partition and account where the job names none. What it forbids is for `refuse`.
    """
    options = config.scheduler_options
    limit = config.time_limit
    return Allocation(
        name=job_name(uid, job_id, attempt),
        comment=_comment(uid, user, options.comment),
        nodes=options.nodes or 1,
        tasks_per_node=options.tasks_per_node or 1,
        cores_per_node=options.cores_per_node,
        memory_bytes_per_node=options.memory_bytes_per_node,
        time_limit=None if limit is None else limit.total_seconds(),
        partition=options.partition or _default(site.default_partition, site.partitions),
        account=options.account or _default(site.default_account, site.accounts),
        options=options,
    )


def refuse(config: JobConfig, project_path: Path, policy: ClusterPolicy) -> None:
    """Refuse a job that the site's policy does not allow on its cluster.

    Parameters
    ----------
    config : JobConfig
        Of the job.
    project_path : Path
        Real path of its project.
    policy : ClusterPolicy
        What the site lets it ask for.

    Raises
    ------
    Refused
        NO_SHARED_DIR: the service has no folder for runs on a cluster. PROJECT_NOT_SHARED: the nodes do not see the
        project. INVALID_JOB: a partition, an account or a further option that is not allowed.
    """
    if policy.shared_dir is None:
        raise Refused(
            "NO_SHARED_DIR",
            "this service has no folder that the cluster's nodes see as well, so it can run nothing there; start it "
            "with --shared-dir DIR, or set shared_dir in the settings file or in the site's policy",
        )
    wrong = dict(_not_allowed(config.scheduler_options, policy))
    if wrong:
        text = "; ".join(f"{field}: {what}" for field, what in wrong.items())
        raise Refused("INVALID_JOB", f"the site's policy does not allow the job: {text}", fields=wrong)
    roots = policy.shared_roots
    if roots and not any(project_path.is_relative_to(root) for root in roots):
        text = "projects of cluster jobs must be in one of " + ", ".join(str(root) for root in roots)
        raise Refused(
            "PROJECT_NOT_SHARED",
            f"{project_path}: {text}, which the nodes see as well; copy it there",
            fields={"config.project_path": text},
        )


def job_name(uid: str, job_id: str, attempt: int) -> str:
    """Name a run's job at the scheduler.

    Returns
    -------
    str
        ``edb-<job id>-<16 hex digits>-<attempt>`` in ``[A-Za-z0-9_-]``; the digits are of the uid's random part, so
        that no other job has the name.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", job_id)[:_MAX_ID]
    return f"edb-{readable}-{uid[-_RANDOM_DIGITS:]}-{attempt}"


def _comment(uid: str, user: str, words: str) -> str:
    text = f"edbjobs:{uid}:{user}" + (f": {words}" if words else "")
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_COMMENT]


def _default(wanted: str, allowed: tuple[str, ...]) -> str:
    # Where only some are allowed, the scheduler's own default could be one of the others.
    return wanted or (allowed[0] if allowed else "")


def _not_allowed(options: SchedulerOptions, policy: ClusterPolicy) -> Iterator[tuple[str, str]]:
    partitions = re.split(r"[,\s]+", options.partition)  # SLURM and LSF take several
    for field, asked, allowed in (
        ("partition", partitions, policy.partitions),
        ("account", [options.account], policy.accounts),
    ):
        bad = [name for name in asked if name and name not in allowed] if allowed else []
        if bad:
            yield f"{_OPTIONS}.{field}", f"{', '.join(bad)} is not allowed; one of {', '.join(allowed)} is"
    for name in options.extra:
        if name not in policy.extra_options:
            may = f"only {', '.join(policy.extra_options)}" if policy.extra_options else "no further options"
            yield f"{_OPTIONS}.extra.{name}", f"is not allowed here; {may} may be given"
