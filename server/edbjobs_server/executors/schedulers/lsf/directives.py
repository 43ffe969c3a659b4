"""What is asked of LSF: the directives of a batch script.

Options are those of ``bsub`` in IBM Spectrum LSF 10.1 (command reference); the few that OpenLava and LSF before
10.1.0.2 lack are left out or refused there. None of it was run against IBM's LSF.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from edbjobs.config import SchedulerPriority

from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.directives import (
    TIME_LIMIT,
    Taker,
    checked,
    collect,
    extra_option,
    hosts,
    licenses,
    limit_seconds,
    naming,
)

# Of 1 to MAX_USER_PRIORITY, which a site sets (IBM's example: 100); half of it is what a job has without asking.
_PRIORITIES = {
    SchedulerPriority.LOWEST: 1,
    SchedulerPriority.LOW: 20,
    SchedulerPriority.BELOW_NORMAL: 35,
    SchedulerPriority.ABOVE_NORMAL: 65,
    SchedulerPriority.HIGH: 80,
    SchedulerPriority.HIGHEST: 100,
}
_UNSUPPORTED = {
    "qos": "LSF has no qualities of service; name a queue, or a service class with extra",
    "wckey": "LSF has no workload keys; use account, which becomes the job's project",
    "run_as_administrator": "only Windows HPC has this",
}
_NOT_IN_OLD = {
    "gpus_per_node": "this LSF is older than 10.1.0.2 and cannot be asked for GPUs; name a queue that has them",
    "reservation": "this LSF is older than 10.1.0.2 and cannot be asked for a reservation",
}
# What decides where and how often the script runs, and where its output goes.
_OURS = frozenset({
    "J", "Jd", "n", "o", "oo", "e", "eo", "i", "is", "I", "Ip", "IS", "ISp", "ISs", "Is", "IX", "K", "r", "rn", "R",
    "H", "Zs", "L", "f", "k", "pack", "cwd", "outdir", "tty", "XF", "env", "h", "V", "json",
})  # fmt: skip
_VALUE = r"[A-Za-z0-9_.,:=+@/%^][A-Za-z0-9_.,:=+@/%^ -]{0,1023}"
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 _.,:=+@/()-]")


def directives_of(allocation: Allocation, *, old: bool) -> list[str]:
    """Return the directives of a request.

    Parameters
    ----------
    allocation : Allocation
        Says what.
    old : bool
        LSF before 10.1.0.2, or OpenLava.

    Raises
    ------
    Refused
        INVALID_JOB, by field: LSF does not accept it.
    """
    takers: Mapping[str, Taker[str]] = {**_TAKERS, "constraint": partial(_resources, old=old)}
    if allocation.memory_mib:
        takers = {**takers, "memory_bytes_per_node": partial(_memory_limit, old=old)}
    unsupported = {**_UNSUPPORTED, **_NOT_IN_OLD} if old else _UNSUPPORTED
    return [f"-J {allocation.name}", *collect("LSF", allocation, takers, unsupported, _extra)]


def command_options(allocation: Allocation, *, old: bool) -> list[str]:
    """Return options of the command itself: those that LSF may lack, which is certain only when it is run.

    A job is never to be run again; old releases do so only where a queue says it. The comment is for people:
    what could mean something to a shell becomes "_".
    """
    return [] if old else ["-rn", "-Jd", _NOT_PLAIN.sub("_", allocation.comment)]


def _account(allocation: Allocation) -> Iterable[str]:
    if allocation.account:
        yield f"-P {checked(allocation.account, r'[A-Za-z0-9_][A-Za-z0-9_.@/+-]{0,254}', 'a plain project name')}"


def _queue(allocation: Allocation) -> Iterable[str]:
    if allocation.partition:
        names = re.split(r"[,\s]+", allocation.partition)
        form = r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}"
        yield f'-q "{" ".join(checked(name, form, "names of queues with commas between") for name in names)}"'


def _slots(allocation: Allocation) -> Iterable[str]:
    yield f"-n {allocation.nodes * allocation.known_cores}"


def _resources(allocation: Allocation, *, old: bool) -> Iterable[str]:
    """Write the resource requirement, one string for all: OpenLava takes one only."""
    options = allocation.options
    with naming("exclude_nodes"):
        select = [f"hname!='{name}'" for name in hosts(options.exclude_nodes)]
    if options.constraint:
        form = r"[A-Za-z0-9_][A-Za-z0-9_ .=<>!&|()*-]{0,254}"
        select.insert(0, f"({checked(options.constraint, form, 'a selection such as bigmem && type==any')})")
    with naming("licenses"):
        usage = [f"{name}={count}" for name, count in licenses(allocation)]
    if allocation.memory_mib:
        # On each node, unless the site counts by task (RESOURCE_RESERVE_PER_TASK). Before 10.1.0.2 a number has no
        # unit: MB here and KB for -M, unless the site sets another (LSF_UNIT_FOR_LIMITS).
        usage.insert(0, f"mem={allocation.memory_mib}{'' if old else 'MB'}")
    words = [f"select[{' && '.join(select)}]"] if select else []
    words += [f"span[ptile={allocation.known_cores}]"]
    words += [f"rusage[{','.join(usage)}]"] if usage else []
    yield f'-R "{" ".join(words)}"'


def _memory_limit(allocation: Allocation, *, old: bool) -> Iterable[str]:
    # Of the whole job, where LSF counts by job.
    mib = allocation.memory_mib * allocation.nodes
    yield f"-M {mib * 1024}" if old else f"-M {mib}MB"


def _run_limit(allocation: Allocation) -> Iterable[str]:
    seconds = limit_seconds(allocation)
    if seconds is not None:
        minutes = -(-seconds // 60)
        yield f"-W {minutes // 60}:{minutes % 60:02d}"


def _exclusive(allocation: Allocation) -> Sequence[str]:
    return ["-x"] if allocation.options.exclusive else []


def _gpus(allocation: Allocation) -> Iterable[str]:
    if allocation.options.gpus_per_node:
        kind = allocation.options.gpu_type
        model = f":gmodel={checked(kind, r'[A-Za-z0-9][A-Za-z0-9_.-]{0,63}', 'the name of a GPU')}" if kind else ""
        yield f'-gpu "num={allocation.options.gpus_per_node}{model}"'


def _reservation(allocation: Allocation) -> Iterable[str]:
    name = allocation.options.reservation
    if name:
        yield f"-U {checked(name, r'[A-Za-z0-9_][A-Za-z0-9_.@#-]{0,127}', 'the name of a reservation')}"


def _include_nodes(allocation: Allocation) -> Iterable[str]:
    if allocation.options.include_nodes:
        yield f'-m "{" ".join(hosts(allocation.options.include_nodes))}"'


def _priority(allocation: Allocation) -> Iterable[str]:
    if allocation.options.priority in _PRIORITIES:
        yield f"-sp {_PRIORITIES[allocation.options.priority]}"


def _mail(allocation: Allocation) -> Sequence[str]:
    address = allocation.options.email
    return [f"-u {address}", "-N"] if address else []


def _extra(name: str, text: str) -> Iterable[str]:
    option = extra_option(name, text, _OURS, _VALUE)
    yield f'-{option} "{text}"' if text else f"-{option}"


_TAKERS: Mapping[str, Taker[str]] = {
    "account": _account,
    "partition": _queue,
    "nodes": _slots,
    "constraint": partial(_resources, old=False),
    TIME_LIMIT: _run_limit,
    "exclusive": _exclusive,
    "gpu_type": _gpus,
    "reservation": _reservation,
    "include_nodes": _include_nodes,
    "priority": _priority,
    "email": _mail,
}
