"""What is asked of HPC Pack: a job's properties, its one task, and paths as its Windows nodes see them.

Names of properties are those that the web service's reference lists as settable with "Create Job" and "Add Task"
(Microsoft Learn, HPC Web Service API Reference; the specification of the newer routes refers to the same
properties). What that list does not have is refused, because its effect would be unknown.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from edbjobs.config import SchedulerPriority

from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import ERRORS, Submission
from edbjobs_server.executors.schedulers.directives import TIME_LIMIT, Taker, collect, limit_seconds

_MAX_INT = 2**31 - 1
_MAX_TEXT = 80  # characters of a job's, a task's and a project's name (ISchedulerJob.Name, .Project)

# JobPriority: Lowest 0 to Highest 4. The sample client of the newer routes writes enumerations as numbers.
_PRIORITIES = {
    SchedulerPriority.LOWEST: 0,
    SchedulerPriority.LOW: 1,
    SchedulerPriority.BELOW_NORMAL: 1,
    SchedulerPriority.NORMAL: 2,
    SchedulerPriority.ABOVE_NORMAL: 3,
    SchedulerPriority.HIGH: 3,
    SchedulerPriority.HIGHEST: 4,
}
_CORE, _NODE = 0, 2  # JobUnitType

_GROUP = "name a node group that has them as the partition"
_UNSUPPORTED = {
    "reservation": "HPC Pack has no reservations; name a node group as the partition",
    "qos": "HPC Pack has no qualities of service; use priority, or extra with JobTemplate",
    "constraint": "HPC Pack has no node features; name a node group as the partition",
    "gpus_per_node": f"HPC Pack's REST service cannot be asked for GPUs; {_GROUP}",
    "gpu_type": f"HPC Pack's REST service cannot be asked for GPUs; {_GROUP}",
    "wckey": "HPC Pack has no workload keys; use account, which becomes the job's project",
    "exclude_nodes": "HPC Pack's REST service cannot be asked to leave nodes out; use include_nodes or a node group",
    "run_as_administrator": "HPC Pack's REST service cannot be asked to run elevated; it follows the account's role",
}
# Further properties that can be set; ours are not among them, nor who the job runs as.
_EXTRA = frozenset({
    "EstimatedProcessMemory", "JobTemplate", "MaxCoresPerNode", "MaxMemory", "NodeGroupOp", "NotifyOnStart", "OrderBy",
    "Pool", "Preemptable",
})  # fmt: skip
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", re.ASCII)
# No file of Windows can bear these; "%" would be taken for a variable on the way to the program, and what is no text
# here (surrogates stand for it) has no name there.
_NOT_IN_WINDOWS = re.compile(r'[<>:"|?*\\%\x00-\x1f\x7f\ud800-\udfff]')
_TARGET = re.compile(r'(\\\\[^\\<>:"|?*/%]+\\|[A-Za-z]:)[^<>:"|?*/%]*')  # a share, or a drive of the nodes
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_MAX_PATH = 259  # characters, without \\?\ (Windows: MAX_PATH with its final NUL)


def job_properties(allocation: Allocation) -> dict[str, str]:
    """Return the job's properties.

    Raises
    ------
    Refused
        INVALID_JOB, by field: HPC Pack has no counterpart for it.
    """
    return {
        "Name": allocation.name,
        "ClientSource": "edbjobs",
        **_size(allocation),
        "AutoCalculateMin": "false",  # else the sizes are ignored (ISchedulerJob.MinimumNumberOfNodes)
        "AutoCalculateMax": "false",
        "FailOnTaskFailure": "true",
        "RunUntilCanceled": "false",
        **dict(collect("Windows HPC", allocation, _TAKERS, _UNSUPPORTED, _extra)),
    }


def _extra(name: str, value: str) -> Iterable[tuple[str, str]]:
    if name not in _EXTRA or not _is_plain(value):
        raise ValueError(f"is not a property HPC Pack can be given here; {', '.join(sorted(_EXTRA))} are")
    yield name, value


def _size(allocation: Allocation) -> dict[str, str]:
    """Return the size.

    Cores may come from several nodes, and nodes may have any number of cores; so a job that shares a node asks for
    cores on a single one, and any other for whole nodes with at least so many cores.
    """
    cores, nodes = str(allocation.known_cores), str(allocation.nodes)
    if allocation.nodes == 1 and not allocation.options.exclusive:
        return {"UnitType": str(_CORE), "MinCores": cores, "MaxCores": cores, "SingleNode": "true"}
    return {"UnitType": str(_NODE), "MinNodes": nodes, "MaxNodes": nodes, "MinCoresPerNode": cores}


def _run_time(allocation: Allocation) -> dict[str, str]:
    limit = limit_seconds(allocation)
    return {} if limit is None else {"RuntimeSeconds": str(limit)}


def _node_group(allocation: Allocation) -> dict[str, str]:
    if not allocation.partition:
        return {}
    if "," in allocation.partition or not _is_plain(allocation.partition):
        raise ValueError("must be one node group's name, without a comma")
    return {"NodeGroups": allocation.partition}


def _requested_nodes(allocation: Allocation) -> dict[str, str]:
    names = allocation.options.include_nodes
    for name in names:
        if not _NODE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a node's name; ranges are not possible")
    return {"RequestedNodes": ",".join(names)} if names else {}


def _memory(allocation: Allocation) -> dict[str, str]:
    # What a node must have, not a limit (ISchedulerJob.MinMemory); 28672 of a node's MemorySize are 28 GiB.
    if allocation.memory_mib > _MAX_INT:
        raise ValueError(f"must be at most {_MAX_INT} MiB")
    return {"MinMemory": str(allocation.memory_mib)} if allocation.memory_mib else {}


def _project(allocation: Allocation) -> dict[str, str]:
    if len(allocation.account) > _MAX_TEXT or not _is_plain(allocation.account):
        raise ValueError(f"must be at most {_MAX_TEXT} printable characters")
    return {"Project": allocation.account} if allocation.account else {}


def _mail(allocation: Allocation) -> dict[str, str]:
    address = allocation.options.email
    return {"EmailAddress": address, "NotifyOnCompletion": "true"} if address else {}


def _licenses(allocation: Allocation) -> dict[str, str]:
    named = [f"{name}:{count}" for name, count in sorted(allocation.options.licenses.items())]
    return {"SoftwareLicense": ",".join(named)} if named else {}


def _exclusive(allocation: Allocation) -> dict[str, str]:
    exclusive = allocation.options.exclusive
    return {} if exclusive is None else {"IsExclusive": _bool(exclusive)}


def _priority(allocation: Allocation) -> dict[str, str]:
    priority = allocation.options.priority
    return {} if priority is None else {"Priority": str(_PRIORITIES[priority])}


def _items(take: Callable[[Allocation], Mapping[str, str]]) -> Taker[tuple[str, str]]:
    return lambda allocation: take(allocation).items()


_TAKERS: Mapping[str, Taker[tuple[str, str]]] = {
    TIME_LIMIT: _items(_run_time),
    "partition": _items(_node_group),
    "include_nodes": _items(_requested_nodes),
    "memory_bytes_per_node": _items(_memory),
    "account": _items(_project),
    "email": _items(_mail),
    "exclusive": _items(_exclusive),
    "priority": _items(_priority),
    "licenses": _items(_licenses),
}


def _is_plain(text: str) -> bool:
    return text.isprintable()


def _bool(value: bool) -> str:
    return "true" if value else "false"


class PathMap:
    r"""Where the nodes see the shared file systems of this host.

    Parameters
    ----------
    prefixes : mapping of str to str
        Folder on this host to the same folder on the nodes, ``{"/shared": r"\\server\share"}``.
    """

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        self._prefixes = sorted(_checked(prefixes), key=lambda pair: len(pair[0]), reverse=True)

    def translate(self, path: str) -> str:
        """Return the path as the nodes see it; longest mapped folder first.

        A path with a drive or a share is Windows' own, as those of a service on Windows and of `hpc_solvers` are,
        and means the same on the nodes.

        Raises
        ------
        Refused
            PROJECT_NOT_SHARED: it is below no mapped folder, or Windows cannot have such a path.
        """
        if _WINDOWS.match(path):
            place, rest = ntpath.splitdrive(ntpath.normpath(path))
            return _joined(path, place, rest.split("\\"))
        text = posixpath.normpath(path)
        for prefix, target in self._prefixes:
            if text == prefix or text.startswith(prefix.rstrip("/") + "/"):
                return _joined(text, target, text[len(prefix) :].split("/"))
        known = ", ".join(prefix for prefix, _ in self._prefixes) or "none"
        raise _not_there(
            text, f"it is below no folder that the nodes see as well ({known}); move it, or map its folder"
        )


def _joined(path: str, place: str, parts: Sequence[str]) -> str:
    names = [part for part in parts if part]
    bad = [name for name in names if _NOT_IN_WINDOWS.search(name) or name[-1] in ". "]
    if bad or not _TARGET.fullmatch(place):
        raise _not_there(path, f"Windows can have no file named {(bad or [place])[0]!r}; rename it")
    found = "\\".join([place, *names])
    if len(found) > _MAX_PATH:
        raise _not_there(path, f"{found} is longer than the {_MAX_PATH} characters Windows allows")
    return found


def _not_there(path: str, why: str) -> Refused:
    text = f"{path} cannot be used on the Windows nodes: {why}"
    return Refused("PROJECT_NOT_SHARED", text, fields={"config.project_path": text})


def _checked(prefixes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for prefix, target in prefixes.items():
        if not prefix.startswith("/") or not _TARGET.fullmatch(target):
            raise ValueError(
                f"windows_hpc: {prefix!r} = {target!r} must map an absolute folder of this host to a share or a "
                r"folder of the nodes, for example /shared = \\server\share"
            )
        yield posixpath.normpath(prefix), target.rstrip("\\")


def task_properties(submission: Submission, paths: PathMap) -> dict[str, str]:
    """Return the properties of the job's one task, which runs the script.

    Raises
    ------
    Refused
        PROJECT_NOT_SHARED, as `PathMap.translate`.
    """
    size = _size(submission.allocation)
    output = paths.translate(str(submission.output))
    return {
        "Name": submission.allocation.comment[:_MAX_TEXT],
        "CommandLine": command_line(paths.translate(str(submission.script))),
        "WorkDirectory": paths.translate(str(submission.cwd)),
        # One file for both would be opened twice.
        "StdOutFilePath": output,
        "StdErrFilePath": output + ERRORS,
        **{name: size[name] for name in ("MinCores", "MaxCores", "MinNodes", "MaxNodes") if name in size},
        "IsRerunnable": "false",
        "FailJobOnFailure": "true",
    }


def command_line(script: str) -> str:
    """Return the command that runs a script; `script` is a translated path, so it has no double quotes.

    The script's own ``exit`` is the task's exit code.
    """
    return f'powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "{script}"'


def rest_properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Write properties in the form of the service."""
    return [{"Name": name, "Value": value} for name, value in values.items()]
