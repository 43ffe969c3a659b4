"""From a request to a job: everything that can be checked before a job is accepted."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from edbjobs.config import JobConfig, total_cores
from edbjobs.v1 import job_config_pb2, jobs_messages_pb2

from edbjobs_server.auth.roles import require_user
from edbjobs_server.contract.codec import seconds, spec_from_config, summary_of
from edbjobs_server.core.admission import refuse_infeasible
from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL, Job, Spec
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.principal import Principal
from edbjobs_server.executors.cluster.allocation import allocation_of
from edbjobs_server.executors.cluster.allocation import refuse as refuse_by_policy
from edbjobs_server.executors.schedulers.base import Scheduler
from edbjobs_server.manager.fingerprints import fingerprint
from edbjobs_server.manager.validation import Submission, validate
from edbjobs_server.solver import project
from edbjobs_server.solver.environment import refuse_environment
from edbjobs_server.solver.releases import Release, choose

_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1
RANDOM_BYTES = 14  # 10 of a uid, 4 of an id that is made here


@dataclass(frozen=True)
class Rules:
    """What requests are checked against; one is made at the start of the service.

    Attributes
    ----------
    releases : sequence of Release
        Solvers that may be run, newest first.
    schedulers : frozenset of str
        Where jobs can run: ``local`` and the clusters' schedulers, by name.
    host : Host
        What the host has.
    project_roots : sequence of Path
        Folders that projects must lie in; empty: anywhere.
    environment_allow : sequence of str
        Further patterns of variable names that a job may add.
    clusters : mapping of str to Scheduler
        Schedulers of the clusters, by name: what they can be asked for, and what their nodes see.
    node_releases : mapping of str to sequence of Release
        Solvers of clusters that cannot run those of this host, by scheduler.
    policy : ClusterPolicy
        What the site lets cluster jobs ask for.
    no_local : callable
        Returns why the site allows no runs on this host; empty: it does.
    umask : int or None
        File mode creation mask of solvers; None: that of the service's process.
    """

    releases: Sequence[Release]
    schedulers: frozenset[str]
    host: Host
    project_roots: Sequence[Path] = ()
    environment_allow: Sequence[str] = ()
    clusters: Mapping[str, Scheduler] = field(default_factory=dict)
    node_releases: Mapping[str, Sequence[Release]] = field(default_factory=dict)
    policy: ClusterPolicy = field(default_factory=ClusterPolicy)
    no_local: Callable[[], str] = str
    umask: int | None = None

    def solvers(self) -> Iterator[tuple[str, Release]]:
        """Yield all solvers, each with the scheduler whose nodes run it; empty: this host."""
        yield from (("", release) for release in self.releases)
        for scheduler, releases in self.node_releases.items():
            yield from ((scheduler, release) for release in releases)

    def solver(self, scheduler: str, config: JobConfig, version: str) -> Release:
        """Choose the solver of a job.

        Raises
        ------
        Refused
            SOLVER_NOT_ALLOWED or SOLVER_NOT_FOUND, as `edbjobs_server.solver.releases.choose`.
        """
        releases = self.node_releases.get(scheduler, self.releases)
        if not releases and scheduler in self.node_releases:
            text = (
                f"no solver on the nodes of {scheduler} is known to this service: name the program as the nodes see "
                r"it, such as C:\Program Files\ANSYS Inc\v252\AnsysEM\ansysedt.exe, in the setting hpc_solvers"
            )
            raise Refused("SOLVER_NOT_FOUND", text, metadata={"installed": ""})
        return choose(releases, version, config.aedt_path)


Look = Callable[[str], "tuple[project.Project, str]"]


def look_at(path: str, seen: project.InspectionCache | None = None) -> tuple[project.Project, str]:
    """Look at a project: what it is, and a warning if what AEDT would solve is stale; as `project.inspect`."""
    try:
        found = project.inspect(path, seen)
        return found, project.stale_sibling(found)
    except OSError as error:  # only a transient one; what is definite is refused with its reason
        raise project.unreachable(path, error) from error


def one_look() -> Look:
    """Make a `look_at` for requests of one moment: it looks at each project, and at each folder, once.

    Each look is some calls of the system, of which each gives the interpreter's lock away.
    """
    seen = project.InspectionCache()
    return cache(lambda path: look_at(path, seen))


def draft(
    given: jobs_messages_pb2.SubmitJobRequest | Submission,
    principal: Principal,
    rules: Rules,
    limits: Limits,
    look: Look = look_at,
    random: bytes = b"",
) -> Job:
    """Make a job of a request; blocks on the project's path.

    Parameters
    ----------
    given : SubmitJobRequest or Submission
        As it came, or validated already.
    principal : Principal
        The caller. The job is its user's unless the request names another one.
    rules : Rules
        What it is checked against.
    limits : Limits
        Limits in force.
    look : callable, default: `look_at`
        Looks at the project.
    random : bytes, optional
        `RANDOM_BYTES` of them, used once; default: made here.

    Returns
    -------
    Job
        Not accepted yet: its `seq` and `revision` are 0.

    Raises
    ------
    Refused
        INVALID_JOB, PROJECT_NOT_FOUND, SOLVER_NOT_FOUND, SOLVER_NOT_ALLOWED, NO_SCHEDULER,
        ENVIRONMENT_NOT_ALLOWED, INFEASIBLE, PATH_UNREACHABLE, PERMISSION_DENIED or INVALID_PRIORITY; of a cluster job
        also NO_SHARED_DIR and PROJECT_NOT_SHARED, of a local one LOCAL_NOT_ALLOWED.
    """
    valid = given if isinstance(given, Submission) else validate(given)
    request, config, path = valid.request, valid.config, valid.project_path
    user = request.user or principal.user
    require_user(principal, user, f"submit a job of user {user}")
    scheduler = _scheduler(config.scheduler or LOCAL, rules)
    release = rules.solver(scheduler, config, config.aedt_version)
    refuse_environment(config.environment, rules.environment_allow)
    found, stale = look(path)
    if rules.project_roots:
        refuse_outside(found.path, rules.project_roots)
    spec = spec_from_config(
        request.config,
        project_path=found.real,
        project_key=found.key,
        scheduler=scheduler,
        cores=total_cores(config),
        memory_bytes=request.config.memory_bytes,
    )
    random = random or os.urandom(RANDOM_BYTES)
    uid, job_id = _uid(random[:10]), request.job_id or _job_id(found.real, random[10:])
    if scheduler != LOCAL:
        config = config.model_copy(update={"project_path": path})
        spec = _for_cluster(config, spec, rules, uid, job_id, user)
    job = Job(
        uid=uid,
        seq=0,
        id=job_id,
        spec=spec,
        create_time=time.time(),
        config=valid.data,
        summary=summary_of(request.config),
        requested_by=principal.name if request.request_id else "",
        request_id=request.request_id,
        digest=fingerprint(request),
        priority=request.priority,
        user=user,
        held=request.hold,
        next_attempt_time=_not_before(request.config),
        warnings=_warnings(request.config, spec, rules.host, stale),
        aedt_version=release.version,
        demo=release.demo,
    )
    refuse_infeasible(job, limits, rules.host)
    return job


def draft_all(
    requests: Sequence[jobs_messages_pb2.SubmitJobRequest | Submission],
    principal: Principal,
    rules: Rules,
    limits: Limits,
    look: Look,
) -> list[Job | Refused]:
    """Make a job, or its refusal, of each request; parameters as of `draft`."""
    result: list[Job | Refused] = []
    random = os.urandom(RANDOM_BYTES * len(requests))  # each call of the system gives the interpreter's lock away
    for index, request in enumerate(requests):
        part = random[index * RANDOM_BYTES : (index + 1) * RANDOM_BYTES]
        try:
            result.append(draft(request, principal, rules, limits, look, part))
        except Refused as refused:
            result.append(refused)
    return result


def _scheduler(name: str, rules: Rules) -> str:
    forbidden = rules.no_local() if name == LOCAL else ""
    if forbidden:
        raise Refused("LOCAL_NOT_ALLOWED", forbidden, fields={"config.scheduler": forbidden})
    if name not in rules.schedulers:
        have = ", ".join(sorted(rules.schedulers))
        raise Refused(
            "NO_SCHEDULER",
            f"this service cannot hand jobs to {name}; it has: {have}",
            fields={"config.scheduler": f"one of {have}"},
        )
    return name


def _for_cluster(config: JobConfig, spec: Spec, rules: Rules, uid: str, job_id: str, user: str) -> Spec:
    """Check what a cluster's scheduler will be asked for; cores and memory are those of the whole allocation."""
    refuse_by_policy(config, Path(spec.project_path), rules.policy)
    allocation = allocation_of(config, uid=uid, job_id=job_id, attempt=1, user=user, site=rules.policy)
    scheduler = rules.clusters[spec.scheduler]
    scheduler.directives(allocation)
    scheduler.node_path(spec.project_path)
    return replace(
        spec,
        cores=min(allocation.nodes * allocation.known_cores, _INT32_MAX),
        memory_bytes=min(allocation.nodes * (allocation.memory_bytes_per_node or 0), _INT64_MAX),
    )


def refuse_outside(path: Path, roots: Sequence[Path]) -> None:
    """Refuse a project that lies in none of the folders that projects must lie in.

    Raises
    ------
    Refused
        PROJECT_NOT_ALLOWED.
    """
    if roots and not any(path.is_relative_to(root) for root in roots):
        text = "projects must lie in one of " + ", ".join(str(root) for root in roots)
        raise Refused("PROJECT_NOT_ALLOWED", f"{path}: {text}", fields={"config.project_path": text})


def _not_before(message: job_config_pb2.JobConfig) -> float:
    if not message.HasField("not_before_time"):
        return 0.0
    return seconds(message.not_before_time)


def _warnings(config: job_config_pb2.JobConfig, spec: Spec, host: Host, stale: str) -> tuple[str, ...]:
    warnings: list[str] = []
    if spec.scheduler == LOCAL and config.HasField("scheduler_options"):
        ignored = ", ".join(field.name for field, _ in config.scheduler_options.ListFields())
        if ignored:
            warnings.append(f"scheduler_options are ignored, because the job runs on the service's host: {ignored}")
    if spec.scheduler == LOCAL and spec.cores > host.cores:
        warnings.append(f"asks for {spec.cores} cores, the host has {host.cores}: it counts as all of them")
    if stale:
        warnings.append(stale)
    return tuple(warnings)


def _uid(random: bytes) -> str:
    """Make a uid: time first, so that the store's index grows at its end, then 80 random bits."""
    return f"{time.time_ns() // 1_000_000:012x}{random.hex()}"


def _job_id(path: str, random: bytes) -> str:
    """Name a job after its project, with a tail that does not repeat."""
    stem, _ = os.path.splitext(os.path.basename(path))
    stem = _OTHERS.sub("-", stem).strip("._-")[:48] or "job"
    return f"{stem}-{random.hex()}"


def info(job: Job) -> Mapping[str, str]:
    """Return what a run's record holds of its job, so that a lost store can be rebuilt."""
    return {
        "id": job.id,
        "user": job.user,
        "project": job.spec.project_path,
        "priority": str(job.priority),
        "requested_by": job.requested_by,
        "request_id": job.request_id,
        "retry_of": job.retry_of,
        "digest": job.digest.hex(),
        "aedt_version": job.aedt_version,
        "demo": "true" if job.demo else "",
        "create_time": repr(job.create_time),
        "config": job.config.hex(),
        "host": platform.node(),
    }
