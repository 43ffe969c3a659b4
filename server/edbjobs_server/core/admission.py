"""Admission: what is reserved, what still fits, and what can never fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import LOCAL, Job
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.states import Waiting

_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Block:
    """Why a job does not start now. `own`: it waits for something of its own and stops no other job."""

    reason: Waiting
    detail: str
    own: bool = False


class Need(NamedTuple):
    """What a job takes while it runs, as counted against limits and host.

    `cores` of a cluster job count against its user's limit only.

    It is a tuple because it is a key of the queue: each job that is queued has it hashed several times.
    """

    local: bool
    user: str
    cores: int
    memory_bytes: int
    licenses: tuple[tuple[str, int], ...]


def need_of(job: Job, host: Host) -> Need:
    """Return a job's needs: more cores or memory than the host has count as all of them."""
    spec = job.spec
    local = spec.scheduler == LOCAL
    return Need(
        local=local,
        user=job.user,
        cores=min(spec.cores, host.cores) if local else spec.cores,
        memory_bytes=min(spec.memory_bytes, host.memory_bytes) if local else 0,
        licenses=spec.licenses,
    )


class Usage:
    """Sums of what is reserved."""

    def __init__(self) -> None:
        self.jobs = 0
        self.cluster_jobs = 0
        self.cores = 0
        self.memory_bytes = 0
        self.licenses: Counter[str] = Counter()
        self.user_jobs: Counter[str] = Counter()
        self.user_cores: Counter[str] = Counter()

    def add(self, need: Need, sign: int = 1) -> None:
        """Add a reservation, or take one back with `sign` -1."""
        if need.local:
            self.jobs += sign
            self.cores += sign * need.cores
            self.memory_bytes += sign * need.memory_bytes
        else:
            self.cluster_jobs += sign
        for feature, count in need.licenses:
            self.licenses[feature] += sign * count
        self._add_user(need, sign)

    def _add_user(self, need: Need, sign: int) -> None:
        self.user_jobs[need.user] += sign
        self.user_cores[need.user] += sign * need.cores
        if not self.user_jobs[need.user]:
            del self.user_jobs[need.user], self.user_cores[need.user]


def user_block(need: Need, usage: Usage, limits: Limits) -> Block | None:
    """Return the limit of the user that keeps a job waiting; it stops no other job."""
    own = limits.of_user(need.user)
    jobs, cores = usage.user_jobs.get(need.user, 0), usage.user_cores.get(need.user, 0)
    if own.max_running_jobs is not None and jobs + 1 > own.max_running_jobs:
        return Block(Waiting.USER_JOBS, f"{jobs} of {own.max_running_jobs} jobs of {need.user} are running", own=True)
    if own.max_cores is not None and cores + need.cores > own.max_cores:
        detail = f"needs {need.cores} cores; {need.user} uses {cores} of {own.max_cores}"
        return Block(Waiting.USER_CORES, detail, own=True)
    return None


def fit_block(need: Need, usage: Usage, limits: Limits, host: Host) -> Block | None:
    """Return what a job waits for: a limit that it can never meet, or a shared resource, as later jobs do."""
    never = _never_block(need, limits, host)
    if never is not None:
        return never
    if not need.local:
        both = (limits.max_cluster_jobs, host.max_cluster_jobs)
        most = min((limit for limit in both if limit is not None), default=None)
        if most is not None and usage.cluster_jobs + 1 > most:
            detail = f"{usage.cluster_jobs} of {most} jobs are with the cluster"
            return Block(Waiting.CLUSTER_JOB_LIMIT, detail)
        return _license_block(need, usage, limits)
    if limits.max_local_jobs is not None and usage.jobs + 1 > limits.max_local_jobs:
        return Block(Waiting.JOB_LIMIT, f"{usage.jobs} of {limits.max_local_jobs} jobs are running")
    cores, memory = _capacity(limits, host)
    if usage.cores + need.cores > cores:
        return Block(Waiting.CORES, f"needs {need.cores} cores; {usage.cores} of {cores} are reserved")
    if usage.memory_bytes + need.memory_bytes > memory:
        used = f"{_mib(usage.memory_bytes)} of {_mib(memory)} MiB"
        detail = f"needs {_mib(need.memory_bytes)} MiB; {used} are reserved"
        return Block(Waiting.MEMORY, detail)
    return _license_block(need, usage, limits)


def _capacity(limits: Limits, host: Host) -> tuple[int, int]:
    cores, memory = limits.max_cores, limits.max_memory_bytes
    return host.cores if cores is None else cores, host.memory_bytes if memory is None else memory


def _never_block(need: Need, limits: Limits, host: Host) -> Block | None:
    """Return the limit, lowered after the job was accepted, that it can never meet."""
    cores, memory = _capacity(limits, host)
    if need.local and need.cores > cores:
        return Block(Waiting.CORES, f"needs {need.cores} cores; the limit is {cores}", own=True)
    if need.local and (need.memory_bytes > memory or limits.max_memory_bytes == 0):
        return Block(Waiting.MEMORY, f"needs {_mib(need.memory_bytes)} MiB; the limit is {_mib(memory)}", own=True)
    for feature, count in need.licenses:
        total = limits.licenses.get(feature)
        if total is not None and count > total:
            return Block(Waiting.LICENSES, f"needs {count} of license {feature}; the limit is {total}", own=True)
    return None


def _license_block(need: Need, usage: Usage, limits: Limits) -> Block | None:
    for feature, count in need.licenses:
        total = limits.licenses.get(feature)
        used = usage.licenses.get(feature, 0)
        if total is not None and used + count > total:
            return Block(Waiting.LICENSES, f"needs {count} of license {feature}; {used} of {total} are reserved")
    return None


def claim_block(need: Need, claims: Mapping[str, str]) -> Block | None:
    """Return the license that is kept for a job that comes before, with another executor.

    Parameters
    ----------
    need : Need
        Of the job to start.
    claims : mapping of str to str
        Feature to the id of the job that it is kept for.
    """
    for feature, _ in need.licenses:
        if feature in claims:
            return Block(Waiting.LICENSES, f"license {feature} is kept for job {claims[feature]}, which comes before")
    return None


def refuse_infeasible(job: Job, limits: Limits, host: Host) -> None:
    """Refuse a job that is larger than a limit. It waits for a limit of 0, which is a pause.

    Raises
    ------
    Refused
        INFEASIBLE or INVALID_PRIORITY.
    """
    refuse_priority(job.priority, job.user, limits)
    wrong: dict[str, str] = {}
    for field, text in _excesses(job, limits, host):
        wrong[field] = f"{wrong[field]}; {text}" if field in wrong else text
    if wrong:
        text = "; ".join(wrong.values())
        raise Refused("INFEASIBLE", f"can never run here: {text}; ask for less or raise the limit", fields=wrong)


def _excesses(job: Job, limits: Limits, host: Host) -> Iterator[tuple[str, str]]:
    spec, own, cores = job.spec, limits.of_user(job.user), need_of(job, host).cores
    memory = spec.memory_bytes
    if spec.scheduler == LOCAL:
        if limits.max_cores and spec.cores > limits.max_cores:
            yield "config.cores", f"{spec.cores} cores asked for, the limit is {limits.max_cores}"
        if limits.max_memory_bytes and memory > limits.max_memory_bytes:
            most = limits.max_memory_bytes
            yield "config.memory_bytes", f"{_mib(memory)} MiB asked for, the limit is {_mib(most)}"
    if own.max_cores and cores > own.max_cores:
        yield "config.cores", f"{cores} cores asked for, the limit of user {job.user} is {own.max_cores}"
    for feature, count in spec.licenses:
        total = limits.licenses.get(feature)
        if total and count > total:
            yield "config.licenses", f"{count} of license {feature} asked for, the limit is {total}"


def zero_limit_text(limits: Limits) -> str:
    """Return which limit of 0 keeps every local job from starting, as a sentence; empty: none does."""
    for name in ("max_local_jobs", "max_cores", "max_memory_bytes"):
        if getattr(limits, name) == 0:
            return f"the limit {name} is 0"
    return ""


def _mib(size: int) -> int:
    return -(-size // _MIB)


def refuse_priority(priority: int, user: str, limits: Limits) -> None:
    """Refuse a priority out of range or above the user's ceiling."""
    ceiling = limits.of_user(user).max_priority
    if not -1_000_000 <= priority <= 1_000_000:
        text = f"priority {priority} is not between -1,000,000 and 1,000,000"
    elif ceiling is not None and priority > ceiling:
        text = f"priority {priority} is above the ceiling {ceiling} of user {user}"
    else:
        return
    raise Refused("INVALID_PRIORITY", text, fields={"priority": text})
