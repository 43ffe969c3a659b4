"""Checks of what may end solves that should outlive the service: sessions, units, containers."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edbjobs_server.auth.authenticator import account_name
from edbjobs_server.config.settings import Settings
from edbjobs_server.doctor.check import Check
from edbjobs_server.doctor.service import running_service
from edbjobs_server.store.state_folder import file_system

_COMMAND_SECONDS = 5.0
# In order of precedence, the last one wins: logind.conf(5).
_LOGIND_FILES = (
    "usr/lib/systemd/logind.conf",
    "etc/systemd/logind.conf",
    "usr/lib/systemd/logind.conf.d/*.conf",
    "etc/systemd/logind.conf.d/*.conf",
    "run/systemd/logind.conf.d/*.conf",
)


def sessions(settings: Settings, root: Path = Path("/")) -> Iterator[Check]:
    """Check whether the end of a login session ends what runs in it (logind.conf(5), loginctl(1)).

    Parameters
    ----------
    settings : Settings
        Not needed.
    root : Path, default "/"
        Where the system's files lie.
    """
    user = account_name()
    if not (root / "run/systemd/system").is_dir():  # sd_booted(3)
        yield Check("sessions", "ok", "no systemd here: a log-out ends nothing")
        return
    if (root / "var/lib/systemd/linger" / user).exists():
        yield Check("sessions", "ok", f"linger is on for {user}: a log-out ends nothing")
    elif user != "root" and kill_user_processes(root):  # KillExcludeUsers=root is the default
        yield Check(
            "sessions",
            "fail",
            f"KillUserProcesses=yes without linger: when {user} logs out, service and solves are killed",
            f"loginctl enable-linger {user}, and start the service with `systemd-run --user` or as a unit",
        )
    else:
        yield Check(
            "sessions",
            "warn",
            f"linger is off for {user}: a service started as a user unit ends when {user} logs out",
            f"loginctl enable-linger {user}; started with `edbjobs up` it goes on as it is",
        )


def kill_user_processes(root: Path) -> bool:
    """Read KillUserProcesses; systemd's own default is no."""
    found = False
    for pattern in _LOGIND_FILES:
        for file in sorted(root.glob(pattern)):
            parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
            try:
                parser.read_string(file.read_text(encoding="utf-8", errors="replace"))
                found = parser.getboolean("Login", "KillUserProcesses", fallback=found)
            except (configparser.Error, ValueError, PermissionError):
                continue  # logind passes over what it cannot read too
    return found


def unit(settings: Settings) -> Iterator[Check]:
    """Check whether a stop of the running service's unit would kill the solves (systemd.kill(5))."""
    service = running_service()
    name, user = unit_of(Path(f"/proc/{service.pid}/cgroup")) if service is not None else ("", False)
    if not name:
        return
    command = ["systemctl", *(["--user"] if user else []), "show", "-p", "KillMode", "--value", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield Check("unit", "warn", f"KillMode of {name} is unknown: {error}", "it should be KillMode=process")
        return
    mode = done.stdout.strip()
    if mode in ("process", "none"):
        yield Check("unit", "ok", f"{name} has KillMode={mode}: solves outlive a restart")
    else:
        yield Check(
            "unit",
            "fail",
            f"{name} has KillMode={mode}: to stop or restart it kills the running solves",
            f"add KillMode=process to its [Service] section: systemctl {'--user ' if user else ''}edit {name}",
        )


def unit_of(cgroup: Path) -> tuple[str, bool]:
    """Return the service unit of a process, and whether it is a user unit; empty: none."""
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "", False
    for line in lines:
        number, controllers, path = line.split(":", 2)
        last = path.rpartition("/")[2]
        if (number == "0" or controllers == "name=systemd") and last.endswith(".service"):
            # user@1000.service is the user's manager, whatever was started outside of units stands in it.
            return ("", False) if last.startswith("user@") else (last, "/user@" in path)
    return "", False


def container(settings: Settings, root: Path = Path("/")) -> Iterator[Check]:
    """Check for the limits of a container."""
    if not any((root / name).exists() for name in (".dockerenv", "run/.containerenv")):
        return
    kind = file_system(settings.state_dir, (root / "proc/self/mountinfo").read_text(encoding="utf-8"))
    if kind == "overlay":
        yield Check(
            "container",
            "warn",
            f"{settings.state_dir} lies in the container's own layer: it goes with the container",
            f"mount a volume there: -v edbjobs:{settings.state_dir}",
        )
    first = (root / "proc/1/comm").read_text(encoding="utf-8").strip()
    if re.match(r"python|edbjobs", first):
        yield Check(
            "container",
            "warn",
            "the service is process 1: its end is the end of the container and of every solve",
            "run the container with --init and give the service a supervisor of its own in it",
        )
    else:
        text = "in a container: solves end with it, and a solve survives only a restart of the service within it"
        yield Check("container", "ok", text)
