"""What is asked of PBS: the directives of a batch script.

Options are those of ``qsub`` in OpenPBS 23.06 and PBS Professional (qsub(1B), pbs_resources(7B)). The run's comment
is not among them: PBS has none, and text given to ``-v`` makes ``qstat -F json`` print documents that are not JSON
(seen with 23.06.06). A job is found by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edbjobs.config import SchedulerPriority

from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.directives import (
    HOST,
    TIME_LIMIT,
    checked,
    collect,
    extra_option,
    hosts,
    licenses,
    limit_seconds,
)

_PRIORITIES = {
    SchedulerPriority.LOWEST: -1024,
    SchedulerPriority.LOW: -512,
    SchedulerPriority.BELOW_NORMAL: -256,
    SchedulerPriority.ABOVE_NORMAL: 256,
    SchedulerPriority.HIGH: 512,
    SchedulerPriority.HIGHEST: 1023,
}
_UNSUPPORTED = {
    "qos": "PBS has no qualities of service; name a queue that has what you want",
    "constraint": "PBS has no node features; name a queue, or ask for a resource of the site with extra",
    "gpu_type": "PBS has no option for a kind of GPU; name a queue, or ask for a resource of the site with extra",
    "exclude_nodes": "PBS cannot leave nodes out; use include_nodes or a queue",
    "wckey": "PBS has no workload keys; use account",
    "run_as_administrator": "only Windows HPC has this",
}
# What decides where and how often the script runs, and where its output goes.
_OURS = frozenset("NoejkJIXrVvSCzfRhGd")
_VALUE = r"[A-Za-z0-9_.,:=+@/%^][A-Za-z0-9_.,:=+@/%^-]{0,1023}"


def directives_of(allocation: Allocation) -> list[str]:
    """Return the directives of a request.

    Raises
    ------
    Refused
        INVALID_JOB, by field: PBS does not accept it.
    """
    fixed = [f"-N {allocation.name}", "-r n"]  # never an unrequested second run
    return fixed + collect("PBS", allocation, _TAKERS, _UNSUPPORTED, _extra)


def _account(allocation: Allocation) -> Iterable[str]:
    if allocation.account:
        yield f"-A {checked(allocation.account, r'[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}', 'a plain account name')}"


def _queue(allocation: Allocation) -> Iterable[str]:
    if allocation.partition and not allocation.options.reservation:
        yield f"-q {_destination(allocation.partition)}"


def _reservation(allocation: Allocation) -> Iterable[str]:
    # A reservation is a separate queue, named R123 or S123 (PBS User's Guide, "Submitting a job to a reservation").
    if allocation.options.reservation and allocation.partition:
        raise ValueError("in PBS a reservation is a queue: name the one or the other")
    if allocation.options.reservation:
        yield f"-q {_destination(allocation.options.reservation)}"


def _destination(text: str) -> str:
    return checked(text, rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}(@{HOST})?", "the name of one queue")


def _chunk(allocation: Allocation) -> str:
    chunk = f"mpiprocs={allocation.tasks_per_node}"
    if allocation.cores_per_node is not None or allocation.tasks_per_node > 1:
        chunk = f"ncpus={allocation.known_cores}:{chunk}"  # without it a chunk has the site's default, usually 1
    if allocation.memory_mib:
        chunk += f":mem={allocation.memory_mib}mb"  # PBS counts 1,024 kb to the mb
    return chunk + (f":ngpus={allocation.options.gpus_per_node}" if allocation.options.gpus_per_node else "")


def _nodes(allocation: Allocation) -> Iterable[str]:
    chunk = _chunk(allocation)
    if not allocation.options.include_nodes:
        yield f"-l select={allocation.nodes}:{chunk}"
        return
    names = hosts(allocation.options.include_nodes)
    if len(names) != allocation.nodes:
        raise ValueError(f"names {len(names)} nodes and nodes is {allocation.nodes}; PBS needs as many as it is to use")
    yield "-l select=" + "+".join(f"1:{chunk}:host={name}" for name in names)


def _place(allocation: Allocation) -> Iterable[str]:
    # Without scatter, PBS may put several chunks on one node.
    words = ["scatter"] if allocation.nodes > 1 else []
    if allocation.options.exclusive is not None:
        words.append("exclhost" if allocation.options.exclusive else "shared")
    if words:
        yield f"-l place={':'.join(words)}"


def _walltime(allocation: Allocation) -> Iterable[str]:
    seconds = limit_seconds(allocation)
    if seconds is not None:
        yield f"-l walltime={seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _licenses(allocation: Allocation) -> Iterable[str]:
    for name, count in licenses(allocation):
        yield f"-l {name}={count}"


def _priority(allocation: Allocation) -> Iterable[str]:
    if allocation.options.priority in _PRIORITIES:
        yield f"-p {_PRIORITIES[allocation.options.priority]}"


def _mail(allocation: Allocation) -> Sequence[str]:
    address = allocation.options.email
    return [f"-M {address}", "-m ae"] if address else []


def _extra(name: str, text: str) -> Iterable[str]:
    option = extra_option(name, text, _OURS, _VALUE)
    yield f"-{checked(option, r'[A-Za-z]', 'one of the letters that qsub has for options')} {text}".strip()


_TAKERS = {
    "account": _account,
    "partition": _queue,
    "reservation": _reservation,
    "include_nodes": _nodes,
    "exclusive": _place,
    TIME_LIMIT: _walltime,
    "licenses": _licenses,
    "priority": _priority,
    "email": _mail,
}
