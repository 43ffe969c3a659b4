"""The site's policy: rules of a host's administrators for every service on it.

It outranks the settings, which the account that runs the service chooses.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator
from pydantic_core import ErrorDetails

from edbjobs_server.config import settings_types as t
from edbjobs_server.config.settings import Settings, SettingsError, parse_toml
from edbjobs_server.core.cluster_policy import ClusterPolicy

SITE_FILE = (
    Path(os.environ.get("PROGRAMDATA", "C:\\ProgramData"), "edbjobs", "site.toml")
    if sys.platform == "win32"
    else Path("/etc/edbjobs/site.toml")
)


def _prefix(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("expected an absolute path as Linux has it")
    return value.rstrip("/") or "/"


def _scratch(value: str) -> str:
    if any(part in value for part in ('"', "`", "$(")):  # it stands between quotes in the script
        raise ValueError("expected a path, which may hold $VARIABLES but no quotes and commands")
    return value


def _unc(value: str) -> str:
    if not value.startswith("\\\\") or not value.strip("\\"):
        raise ValueError("expected a path such as \\\\SERVER\\SHARE")
    return value.rstrip("\\")


class SitePolicy(BaseModel):
    r"""Rules of a site; without its file there are none.

    Attributes
    ----------
    local_runs : bool or None
        Whether solves may run on the service's own host. None: unless it is a login node whose scheduler answers.
    login_nodes : tuple of str
        Host names, with ``*`` and ``?``, of login nodes; with or without their domain.
    min_poll_seconds : float
        Shortest interval at which the jobs on a cluster are polled; 0: the setting's.
    max_cluster_jobs : int
        Most jobs on a cluster at once; 0: the limit's.
    partitions : tuple of str
        Partitions or queues that jobs may name; empty: any.
    default_partition : str
        For jobs that name none; empty: the first of `partitions`, else the scheduler's default.
    accounts, default_account
        The same for the accounts that jobs are charged to.
    setup : tuple of str
        Lines of every batch script that come before AEDT, for example ``module load ansys-em/2025R2``.
    scratch : str
        Folder for AEDT's temporary files on each node; may hold the node's ``$VARIABLES``; empty: AEDT's choice.
    shared_dir : Path or None
        Folder for runs on a cluster, instead of the setting's; a leading ``~`` is the account's home folder.
    shared_roots : tuple of Path
        Folders projects of cluster jobs must lie in, instead of the setting's; empty: those of the setting.
    extra_options : tuple of str
        Names that ``SchedulerOptions.extra`` may have; empty: none.
    path_map : dict of str to str
        Paths of Windows nodes, as ``\\SERVER\SHARE``, by the Linux path that is the same folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    local_runs: StrictBool | None = None
    login_nodes: tuple[t.Word, ...] = ()
    min_poll_seconds: Annotated[t.Number, Field(le=3600)] = 0.0
    max_cluster_jobs: t.OptionalCount = None
    partitions: tuple[t.Word, ...] = ()
    default_partition: t.Word = ""
    accounts: tuple[t.Word, ...] = ()
    default_account: t.Word = ""
    setup: tuple[t.Line, ...] = ()
    scratch: Annotated[t.Line, AfterValidator(_scratch)] = ""
    shared_dir: t.AbsolutePath | None = None
    shared_roots: tuple[t.AbsolutePath, ...] = ()
    extra_options: tuple[t.Word, ...] = ()
    path_map: dict[Annotated[t.Line, AfterValidator(_prefix)], Annotated[t.Line, AfterValidator(_unc)]] = {}

    @model_validator(mode="after")
    def _defaults_are_allowed(self) -> SitePolicy:
        for default, allowed, names in (
            (self.default_partition, self.partitions, "partitions"),
            (self.default_account, self.accounts, "accounts"),
        ):
            if default and allowed and default not in allowed:
                raise ValueError(f"default_{names[:-1]}: {default!r} is not one of {names}")
        return self

    def local_allowed(self, hostname: str, scheduler_answers: bool) -> str:
        """Return why no solve may run on the service's own host; empty: it may."""
        advice = "submit it to the cluster: name its scheduler in the configuration"
        if self.local_runs is False:
            return f"by the site's policy no solve runs on {hostname}; {advice}"
        if self.local_runs is None and scheduler_answers and self._is_login_node(hostname):
            return f"{hostname} is a login node, where by the site's policy no solve runs; {advice}"
        return ""

    def _is_login_node(self, hostname: str) -> bool:
        name = hostname.lower()
        names = (name, name.partition(".")[0])
        return any(fnmatchcase(one, pattern.lower()) for pattern in self.login_nodes for one in names)

    def poll_seconds(self, requested: float) -> float:
        """Return the interval at which the jobs on a cluster are polled."""
        return max(requested, self.min_poll_seconds)

    def cluster_jobs(self, requested: int | None) -> int | None:
        """Return how many jobs may be on a cluster at once; None, of `requested` as well: no limit."""
        return min((limit for limit in (requested, self.max_cluster_jobs) if limit is not None), default=None)

    def shared_dir_of(self, settings: Settings) -> Path | None:
        """Return the folder for runs on a cluster."""
        return self.shared_dir or settings.shared_dir

    def shared_roots_of(self, settings: Settings) -> tuple[Path, ...]:
        """Return the folders projects of cluster jobs must lie in."""
        return self.shared_roots or tuple(settings.shared_roots)

    def cluster_policy(self, settings: Settings) -> ClusterPolicy:
        """Build the policy for cluster jobs; the shared roots are resolved, as projects are named by real paths."""
        return ClusterPolicy(
            partitions=self.partitions,
            default_partition=self.default_partition,
            accounts=self.accounts,
            default_account=self.default_account,
            extra_options=self.extra_options,
            shared_dir=self.shared_dir_of(settings),
            scratch=bool(self.scratch),
            shared_roots=tuple(Path(os.path.realpath(root)) for root in self.shared_roots_of(settings)),
        )

    def warnings(self, settings: Settings) -> list[str]:
        """Return a warning for each setting that the policy overrides."""
        return [
            f"setting {name}: the site's policy outranks {_text(given)}; {_text(used)} holds"
            for name, given, used in self._outranked(settings)
            if name in settings.model_fields_set and given != used
        ]

    def _outranked(self, settings: Settings) -> Iterator[tuple[str, object, object]]:
        yield "shared_dir", settings.shared_dir, self.shared_dir_of(settings)
        yield "shared_roots", tuple(settings.shared_roots), self.shared_roots_of(settings)
        seconds = settings.cluster_poll_seconds
        yield "cluster_poll_seconds", seconds, self.poll_seconds(seconds)
        jobs = settings.max_cluster_jobs
        yield "max_cluster_jobs", jobs, self.cluster_jobs(jobs)


def _text(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


def load_site_policy(path: Path = SITE_FILE) -> SitePolicy:
    """Read the site's policy, once at the start of the service.

    Parameters
    ----------
    path : Path
        TOML file; absent: there are no rules.

    Raises
    ------
    SettingsError
        It cannot be read, has a value that is not allowed, or may have been written by another account: it must
        belong to root or to the service's account, and not be writable by all. The service does not start if it
        cannot use a policy that exists.
    """
    what = f"site policy {path}"
    try:
        with open(path, "rb", opener=_open) as stream:
            _refuse_foreign(os.fstat(stream.fileno()), what)
            table = parse_toml(stream, what)
    except FileNotFoundError:
        if path.is_symlink():
            raise SettingsError(f"{what} is a link that leads nowhere; fix or remove it") from None
        return SitePolicy()
    except OSError as error:
        advice = "it must be a file that this account can read"
        raise SettingsError(f"{what} cannot be read: {error.strerror or error}; {advice}") from error
    try:
        return SitePolicy.model_validate(table)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, what) for item in error.errors())) from error


def _open(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe of that name must not keep the service waiting


def _refuse_foreign(status: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"{what} is no file")
    if sys.platform == "win32":  # rights are not in the mode there
        return
    if status.st_uid not in (0, os.geteuid()):
        raise SettingsError(f"{what} belongs to the account {status.st_uid}; it must be root's: chown root")
    if status.st_mode & stat.S_IWOTH:
        raise SettingsError(f"{what} can be written by everybody; close it with chmod o-w")


def _explain(item: ErrorDetails, what: str) -> str:
    if not item["loc"]:  # of the whole policy: starts with the name of the key
        return f"{what}: {item['msg'].removeprefix('Value error, ')}"
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{what}: there is no key {where}; there are {', '.join(SitePolicy.model_fields)}"
    return t.explain(item, f"{what}: {where}")
