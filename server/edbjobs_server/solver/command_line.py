"""The command line of a solve.

Form and order are those read in real logs and scripts: every option precedes ``-batchsolve``, because one
after it was seen to make AEDT ignore the selector and solve the whole project.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from edbjobs.config import DesignMode, JobConfig

from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.releases import Release

WINDOWS = "win32"
# Placeholders in a cluster's command line for what only the nodes know; the batch script replaces them.
MACHINES = "@edbjobs:machines@"  # the whole value of -machinelist
SPAWN = "@edbjobs:spawn@"  # in -batchoptions: SSH or Scheduler
SCRATCH = "@edbjobs:scratch@"  # in -batchoptions: the run's own folder on the node
_LAYOUT = "HFSS 3D Layout Design"
_SPAWN_OPTIONS = (f"{_LAYOUT}/RemoteSpawnCommand", "HFSS/RemoteSpawnCommand")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# AEDT's Linux program is a shell script that passes its arguments on: nothing a shell could act on may be in a name.
_NAME = re.compile(r"[^-:'\"`$\\;|&<>][^:'\"`$\\;|&<>]*")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OPTION = re.compile(r"[^-'\"`$=\\][^'\"`$=\\]*")
_OPTION_VALUE = re.compile(r"[^'\"`$]*")
_MODES = {DesignMode.NOMINAL: "Nominal", DesignMode.OPTIMETRICS: "Optimetrics"}
_WHOLE_NUMBER = re.compile(r"-?\d{1,9}")


def command_line(
    config: JobConfig,
    release: Release,
    job_id: str,
    cores: int,
    batch_options_file: Path | None = None,
    *,
    project_path: str,
    cluster: bool = False,
    scratch: bool = False,
    map_path: Callable[[str], str] = str,
) -> list[str]:
    """Make the command line of a run; it is executed without a shell.

    Parameters
    ----------
    config : JobConfig
        What to solve.
    release : Release
        With what.
    job_id : str
        ``-jobid``; also part of the log's name, so it should be of this run only.
    cores : int
        Cores of the run where `config` names no hosts.
    batch_options_file : Path, optional
        A file with `batch_options_text`, named in place of the options themselves.
    project_path : str
        Real path of the project, so that lock, log and results lie beside the project itself, whatever link led to
        it. It replaces the path of `config`.
    cluster : bool
        For a batch script: `MACHINES` and `SPAWN` stand for what the allocation decides. Hosts and cores are not
        used.
    scratch : bool
        For a batch script: AEDT's temporary folder is `SCRATCH` unless `config` names one.
    map_path : callable
    Maps a path of this host to the path under which a cluster's nodes see it.

    Returns
    -------
    list of str
        Program and arguments.

    Raises
    ------
    Refused
        INVALID_JOB: a text that could be parsed as something else; or as `map_path`.
    """
    command = [map_path(str(release.path)), "-jobid", _checked(_JOB_ID, "job_id", job_id)]
    if _distributed(config):
        command.append("-distributed")
    command += ["-machinelist", MACHINES if cluster else "list=" + _machines(config, cores)]
    if config.auto_settings:
        command.append("-auto")
    if config.non_graphical is not False:
        command.append("-ng")
    if config.monitor is not False:
        command.append("-monitor")
    if config.wait_for_license:
        command.append("-waitforlicense")
    options = batch_options(config)
    if cluster:
        _complete(options, scratch)
    if options:
        inline = " ".join(f"'{key}'='{value}'" for key, value in options.items())
        command += ["-batchoptions", str(batch_options_file) if batch_options_file else inline]
    return [*command, "-batchsolve", *_selector(config), map_path(_project(project_path))]


def batch_options(config: JobConfig) -> dict[str, str]:
    """Return the batch options by AEDT's names: those of `layout_options`, then `batch_options`.

    Backslashes of a value become slashes, which AEDT takes in paths: before a quote they would escape it.

    Raises
    ------
    Refused
        INVALID_JOB: a name or value that would end its quotes.
    """
    made: dict[str, str] = {}
    for key, value in [*config.layout_options.batch_options().items(), *config.batch_options.items()]:
        if value:
            field = f"config.batch_options[{key}]"
            made[_checked(_OPTION, field, key)] = _checked(_OPTION_VALUE, field, value.replace("\\", "/"))
    return made


def batch_options_text(config: JobConfig) -> str:
    """Return the batch options as the text of an options file: whole numbers are not quoted."""
    lines = ["$begin 'Config'"]
    for key, value in batch_options(config).items():
        number = _WHOLE_NUMBER.fullmatch(value)
        lines.append(f"\t'{key}'={value}" if number else f"\t'{key}'='{value}'")
    return "\n".join([*lines, "$end 'Config'", ""])


def shell_line(argv: list[str], platform: str = sys.platform, cmd_file: bool = False) -> str:
    """Write a command line for people to read or paste.

    Parameters
    ----------
    argv : list of str
        Program and arguments.
    platform : str
        ``sys.platform`` of the shell.
    cmd_file : bool
        For a Windows .cmd file, where a lone ``%`` is lost and the machine list with it: it is doubled.
    """
    if platform != WINDOWS:
        return shlex.join(argv)
    line = subprocess.list2cmdline(argv)
    return line.replace("%", "%%") if cmd_file else line


def _complete(options: dict[str, str], scratch: bool) -> None:
    """Add what a cluster's batch script decides, where the job has not decided it."""
    decided = {key.lower() for key in options}
    ours = {**dict.fromkeys(_SPAWN_OPTIONS, SPAWN), **({"TempDirectory": SCRATCH} if scratch else {})}
    options.update({key: value for key, value in ours.items() if key.lower() not in decided})


def _distributed(config: JobConfig) -> bool:
    if config.distributed is not None:
        return config.distributed
    if config.on_cluster:
        options = config.scheduler_options
        return (options.nodes or 1) * (options.tasks_per_node or 1) > 1
    return len(config.machines) > 1 or any(machine.tasks not in (None, 1) for machine in config.machines)


def _machines(config: JobConfig, cores: int) -> str:
    for machine in config.machines:
        if machine.hostname:
            _checked(_HOST, "config.machines", machine.hostname)
    return ",".join(machine.aedt() for machine in config.machines) or f"localhost:1:{max(1, cores)}:90%"


def _selector(config: JobConfig) -> list[str]:
    if not config.design:
        return []
    parts = [_checked(_NAME, "config.design", config.design)]
    if config.design_mode is not None or config.setup:
        parts.append(_MODES[config.design_mode or DesignMode.NOMINAL])
    if config.setup:
        parts.append(_checked(_NAME, "config.setup", config.setup))
    return [":".join(parts)]


def _project(path: str) -> str:
    if _CONTROL.search(path) or '"' in path or path.startswith("-"):
        raise _invalid("config.project_path", path)
    return path


def _checked(pattern: re.Pattern[str], field: str, text: str) -> str:
    if _CONTROL.search(text) or not pattern.fullmatch(text):
        raise _invalid(field, text)
    return text


def _invalid(field: str, text: str) -> Refused:
    advice = "has a character that a command line or AEDT would interpret, or starts with '-'"
    return Refused("INVALID_JOB", f"{field}: {text!r} {advice}", fields={field: advice})
