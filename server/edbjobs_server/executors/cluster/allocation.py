"""What a job asks a cluster's scheduler for, and whether the site lets it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from edbjobs.config import HFSSSimulationConfig, SchedulerOptions, total_cores

from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation

MAX_COMMENT = 200
_MAX_ID = 40
_RANDOM_DIGITS = 16  # of the uid's 20 random ones: 64 bits
_OPTIONS = "config.scheduler_options"
_KIB = {"K": 1, "M": 2, "G": 3, "T": 4}


def allocation_of(
    config: HFSSSimulationConfig, *, uid: str, job_id: str, attempt: int, user: str, site: ClusterPolicy
) -> Allocation:
    """Return what a run requests of a scheduler.

    Parameters
    ----------
    config : HFSSSimulationConfig
        Of the job. The documented defaults that `SchedulerOptions` counts as not set are not requested.
    uid, job_id, user : str
        Of the job; they name it at the scheduler.
    attempt : int
        Number of the run.
    site : ClusterPolicy
        Gives partition and account where the job names none. What it forbids is for `refuse`.

    Returns
    -------
    Allocation
        Its memory is that of the options, else an equal share of the job's `memory_mib`; its cores are those of the
    options, else an equal share of those that the job requests.
    """
    options = config.scheduler_options
    limit = config.wall_clock_limit
    return Allocation(
        name=job_name(uid, job_id, attempt),
        comment=_comment(uid, user, options.comment),
        nodes=options.nodes,
        tasks_per_node=options.tasks_per_node,
        cores_per_node=max(options.tasks_per_node, options.cores_per_node or _cores_share(config)),
        memory_mib=_mib(_asked(options, "memory")) or _share(config.memory_mib, options.nodes),
        time=_asked(options, "time"),
        wall_clock_limit=None if limit is None else limit.total_seconds(),
        queue=_asked(options, "queue") or _default(site.default_partition, site.partitions),
        account=options.account or _default(site.default_account, site.accounts),
        options=options,
    )


def refuse(config: HFSSSimulationConfig, project_path: Path, policy: ClusterPolicy) -> None:
    """Refuse a job that the site's policy does not allow on its cluster.

    Parameters
    ----------
    config : HFSSSimulationConfig
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


def _asked(options: SchedulerOptions, name: str) -> str:
    value: str = getattr(options, name)
    return "" if value == SchedulerOptions.NOT_SET[name] else value


def _default(wanted: str, allowed: tuple[str, ...]) -> str:
    # Where only some are allowed, the scheduler's own default could be one of the others.
    return wanted or (allowed[0] if allowed else "")


def _cores_share(config: HFSSSimulationConfig) -> int:
    named = config.cores or config.machine_nodes
    return _share(total_cores(config), config.scheduler_options.nodes) if named else 1


def _share(whole: int, parts: int) -> int:
    return -(-whole // parts)


def _mib(text: str) -> int:
    """Read a size as `SchedulerOptions.memory` allows it; without a unit it is MiB, as SLURM's ``--mem`` has it."""
    number = text.upper().rstrip("IB ")
    power = _KIB.get(number[-1:])
    if power is not None:
        number = number[:-1]
    return math.ceil(Decimal(number.strip() or 0) * Decimal(1024) ** ((power or _KIB["M"]) - _KIB["M"]))


def _not_allowed(options: SchedulerOptions, policy: ClusterPolicy) -> Iterator[tuple[str, str]]:
    queues = re.split(r"[,\s]+", _asked(options, "queue"))  # SLURM and LSF take several
    for field, asked, allowed in (
        ("queue", queues, policy.partitions),
        ("account", [options.account or ""], policy.accounts),
    ):
        bad = [name for name in asked if name and name not in allowed] if allowed else []
        if bad:
            yield f"{_OPTIONS}.{field}", f"{', '.join(bad)} is not allowed; one of {', '.join(allowed)} is"
    for name in options.extra:
        if name not in policy.extra_options:
            may = f"only {', '.join(policy.extra_options)}" if policy.extra_options else "no further options"
            yield f"{_OPTIONS}.extra.{name}", f"is not allowed here; {may} may be given"
