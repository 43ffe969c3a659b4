"""Settings of the service: command line, then ``EDBJOBS_*``, then a TOML file, then defaults."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import pydantic_settings
from edbjobs._endpoint import runtime_dir
from edbjobs._exceptions import TargetError
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from edbjobs_server.config import settings_types as t
from edbjobs_server.config.addresses import address, host_name, network, split_address
from edbjobs_server.config.addresses import origin as checked_origin
from edbjobs_server.config.addresses import public_url as checked_url
from edbjobs_server.core.limits import Limits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "EDBJOBS_"
# Variables of the client, the runs, and the tests; not settings of the service.
OTHER_VARIABLES = frozenset(
    {
        "EDBJOBS_TARGET",
        "EDBJOBS_TOKEN",
        "EDBJOBS_RUNTIME_DIR",
        "EDBJOBS_FAULT",
        "EDBJOBS_CI",
        "EDBJOBS_RUN",
    }
)
# Options whose name on the command line is not the setting's.
FLAGS = {
    "solvers": "--solver",
    "project_roots": "--project-root",
    "shared_roots": "--shared-root",
    "licenses": "--license",
    "allowed_hosts": "--allowed-host",
    "trusted_proxies": "--trusted-proxy",
    "cors_origins": "--cors-origin",
}
_UNIX_PATH_BYTES = 107  # sun_path of unix(7), less its final NUL


class SettingsError(Exception):
    """Raised if the settings do not allow a start; the text is one line with what to change."""


def _default_state_dir() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "edbjobs"
    return _xdg("XDG_STATE_HOME", Path.home() / ".local" / "state") / "edbjobs"


def _xdg(variable: str, default: Path) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if os.path.isabs(value) else default  # the XDG rule: a relative value is ignored


def _default_uds() -> Path | None:
    if sys.platform == "win32":
        return None
    return runtime_dir() / "edbjobs.sock"


def _default_certificates() -> Path | None:
    value = os.environ.get("ANSYS_GRPC_CERTIFICATES", "")
    return Path(value).absolute() if value else None


def default_config_file() -> Path:
    """Return the settings file that is read when none is named."""
    return _xdg("XDG_CONFIG_HOME", Path.home() / ".config") / "edbjobs" / "edbjobs.toml"


class Settings(BaseSettings):
    """Settings of the service. Use :func:`load_settings`, whose errors name the source of a bad value.

    Attributes
    ----------
    state_dir : Path
        Store, logs, runs and token; on a local disk.
    grpc : str
        ``address:port`` of the TCP endpoint; port 0 takes a free one, empty: no TCP endpoint.
    uds : Path or None
        Unix socket; none on Windows.
    http : str
        ``address:port`` of REST, Socket.IO and WebSocket; port 0 takes a free one, empty: none.
    public_url : str
        ``https://jobs.example.com``: address at which a proxy makes the HTTP endpoint reachable. With it every HTTP
        request needs the token, because all of them come from the proxy.
    allowed_hosts : list of str
        Host names that requests may be addressed to, beside this host's own.
    trusted_proxies : list of str
        Addresses or networks whose ``X-Forwarded-For`` is believed.
    cors_origins : list of str
        Origins of web pages that may make gRPC-Web calls with the token, beside the service's own.
    ready_file : Path or None
        Written when the service answers.
    solvers : list of Path
        Programs that may be run beside the installed releases.
    demo_solver : bool
        Offer the demo solver, which solves nothing.
    scheduler : str
        Cluster that jobs can be submitted to: ``slurm``, ``lsf``, ``pbs``, ``windows_hpc`` or the name of a plug-in;
        ``none``; ``auto``: those that are installed.
    shared_dir : Path or None
        Folder for runs on a cluster, which its nodes see at the same path; None: no run goes there.
    shared_roots : list of Path
        Folders projects of cluster jobs must lie in, because the nodes see them as well; empty: anywhere.
    templates_dir : Path or None
        Batch scripts of the site's own; default: ``templates`` beside the settings file, if there.
    cluster_poll_seconds : float
        Interval at which the jobs on a cluster are polled, 1 to 3600; reports of the runs themselves arrive sooner.
    hpc_url : str
        ``https://HOST``: head node of Windows HPC Pack, whose REST service is used.
    hpc_credentials : Path or None
        File with user and password for it, on two lines, which other accounts cannot read.
    hpc_ca : Path or None
        File with the certificates it is checked against; default: the system's.
    hpc_solvers : list of PureWindowsPath
        Programs on its nodes, as these see them; empty: those of this host that the nodes see as well.
    max_local_jobs, ..., users
        Limits; "none": no limit. One given here is put in force at the start; of the others the stored value stays.
    project_roots : list of Path
        Folders projects must lie in; empty: any.
    environment_allow : list of str
        Patterns of variable names a job may set, beside the built-in ones.
    retention_days, retention_jobs
        Age and number up to which ended jobs are kept; 0: without end.
    transport_mode : {"insecure", "uds", "mtls"}
        ``uds``: no TCP endpoint. ``mtls``: TCP with certificates of both sides.
    certificates : Path or None
        Folder with ca.crt, server.crt and server.key; default: ``ANSYS_GRPC_CERTIFICATES``.
    log_level : {"debug", "info", "warning", "error"}
        Least level that is logged.
    kill_leftovers_seconds : float
        How long what a run left may go on after its end.
    lock_wait_seconds : float
        How long a project's foreign lock is waited for.
    gate_event_seconds : float
        How long a gate is closed before an event reports it.
    telemetry_seconds : float
        Time between two samples of the host.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    state_dir: t.AbsolutePath = Field(default_factory=_default_state_dir)
    grpc: Annotated[str, AfterValidator(address)] = "127.0.0.1:18080"
    uds: t.OptionalPath = Field(default_factory=_default_uds)
    http: Annotated[str, AfterValidator(address)] = "127.0.0.1:8080"
    public_url: Annotated[str, AfterValidator(checked_url)] = ""
    allowed_hosts: Annotated[list[Annotated[str, AfterValidator(host_name)]], NoDecode, t.SplitWords] = []
    trusted_proxies: Annotated[list[Annotated[str, AfterValidator(network)]], NoDecode, t.SplitWords] = []
    cors_origins: Annotated[list[Annotated[str, AfterValidator(checked_origin)]], NoDecode, t.SplitWords] = []
    ready_file: t.AbsolutePath | None = None

    solvers: Annotated[list[t.Program], NoDecode, t.SplitPaths] = []
    demo_solver: bool = False
    project_roots: Annotated[list[t.AbsolutePath], NoDecode, t.SplitPaths] = []
    environment_allow: Annotated[list[t.Pattern], NoDecode, t.SplitWords] = []

    scheduler: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = "auto"
    shared_dir: t.OptionalPath = None
    shared_roots: Annotated[list[t.AbsolutePath], NoDecode, t.SplitPaths] = []
    templates_dir: t.Folder | None = None
    cluster_poll_seconds: Annotated[t.Seconds, Field(ge=1, le=3600)] = 30.0
    hpc_url: t.RestUrl = ""
    hpc_credentials: t.Credentials | None = None
    hpc_ca: t.File | None = None
    hpc_solvers: Annotated[list[t.WindowsProgram], NoDecode, t.SplitWindowsPaths] = []

    max_local_jobs: t.OptionalCount = 1
    max_cores: t.OptionalCount = None
    max_memory_bytes: t.OptionalBytes = None
    max_cluster_jobs: t.OptionalCount = None
    licenses: dict[str, t.Count] = {}
    max_cpu_percent: t.OptionalPercent = None
    min_free_memory_bytes: t.OptionalBytes = None
    min_free_disk_bytes: t.OptionalBytes = None
    default_user: t.UserLimitSettings = t.UserLimitSettings()
    users: dict[str, t.UserLimitSettings] = {}

    retention_days: t.Number = 30.0
    retention_jobs: t.Count = 100_000

    transport_mode: Literal["insecure", "uds", "mtls"] = "insecure"
    certificates: t.AbsolutePath | None = Field(default_factory=_default_certificates)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kill_leftovers_seconds: t.Seconds = 10.0
    lock_wait_seconds: t.Seconds = 600.0
    gate_event_seconds: t.Seconds = 600.0
    telemetry_seconds: Annotated[t.Seconds, Field(ge=0.1)] = 5.0

    @model_validator(mode="after")
    def _endpoints(self) -> Settings:
        if self.uds is not None and sys.platform == "win32":
            raise ValueError("uds: there are no Unix sockets here; leave it out")
        if self.uds is not None and len(os.fsencode(self.uds)) > _UNIX_PATH_BYTES:
            raise ValueError(f"uds: {self.uds} is longer than the {_UNIX_PATH_BYTES} bytes a socket's path may have")
        if self.transport_mode == "uds" and self.uds is None:
            raise ValueError("transport_mode: uds needs a Unix socket, but uds is off")
        for name in ("grpc", "http"):
            if self.transport_mode == "uds" and name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"transport_mode: uds opens no TCP endpoint, but {name} names one; leave one out")
        if self.transport_mode == "mtls":
            self._check_certificates()
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        if not self.tcp and not self.web and self.uds is None:
            raise ValueError("grpc: neither a TCP address nor a Unix socket: the service would be unreachable; set one")
        return self

    @model_validator(mode="after")
    def _windows_hpc(self) -> Settings:
        if self.scheduler == "windows_hpc" and not self.hpc_url:
            raise ValueError("scheduler: windows_hpc needs hpc_url, the address of the head node")
        if self.hpc_url and self.hpc_credentials is None:
            raise ValueError("hpc_url: needs hpc_credentials, a file with user and password")
        return self

    def _check_certificates(self) -> None:
        if self.certificates is None:
            raise ValueError("certificates: mtls needs a folder with ca.crt, server.crt and server.key")
        for name in ("ca.crt", "server.crt", "server.key"):
            if not os.access(self.certificates / name, os.R_OK):
                raise ValueError(f"certificates: {self.certificates / name} cannot be read")

    @property
    def tcp(self) -> tuple[str, int] | None:
        """Address and port of the TCP endpoint; None: there is none."""
        return split_address(self.grpc) if self.grpc and self.transport_mode != "uds" else None

    @property
    def web(self) -> tuple[str, int] | None:
        """Address and port of the HTTP endpoint; None: there is none."""
        return split_address(self.http) if self.http and self.transport_mode != "uds" else None

    def explicit_limits(self) -> dict[str, Any]:
        """Return the limits that were given, as fields of :class:`edbjobs_server.core.limits.Limits`."""
        names = self.model_fields_set.intersection(Limits.__dataclass_fields__)
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        if "default_user" in given:
            given["default_user"] = self.default_user.limits() if self.default_user.model_fields_set else None
        if "users" in given:
            given["users"] = {user: limits.limits() for user, limits in self.users.items()}
        return given


class EmbeddedSettings(Settings):
    """Settings of a service inside a program, which calls it without any endpoint."""

    @model_validator(mode="after")
    def _reachable(self) -> EmbeddedSettings:
        return self


_PATHS = (
    *("state_dir", "uds", "ready_file", "solvers", "project_roots", "certificates"),
    *("shared_dir", "shared_roots", "templates_dir", "hpc_credentials", "hpc_ca"),
)


def load_settings(
    values: Mapping[str, Any] | None = None, config_file: Path | None = None, kind: type[Settings] = Settings
) -> Settings:
    """Read the settings.

    Parameters
    ----------
    values : dict, optional
        Values of the command line, by name of the setting; None values count as not given. Relative paths are
        taken from the working directory; elsewhere paths must be absolute.
    config_file : Path, optional
        TOML file that must exist; default: the one of :func:`default_config_file`, if there.
    kind : type
        `Settings` or `EmbeddedSettings`.

    Raises
    ------
    SettingsError
        A value is not allowed, a name is unknown, or the file cannot be read.
    """
    given = {name: _from_here(name, value) for name, value in (values or {}).items() if value is not None}
    variables = _variables()
    file = config_file if config_file is not None else default_config_file()
    table = _read_toml(file) if config_file is not None or file.is_file() else {}
    origins = {name: f"{name} in {file}" for name in table} | variables
    origins |= {name: flag(name) for name in given}
    _refuse_unknown(origins)
    # The file's values go in as arguments, which come before the environment: leave out what that has.
    arguments = {name: value for name, value in table.items() if name not in variables} | given
    templates = file.absolute().parent / "templates"
    if "templates_dir" not in origins and templates.is_dir():
        arguments["templates_dir"] = templates
    try:
        return kind(**arguments)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, origins) for item in error.errors())) from error
    except TargetError as error:
        raise SettingsError(str(error)) from error
    except pydantic_settings.SettingsError as error:
        name = next((name for name in variables if f'"{name}"' in str(error)), "")
        raise SettingsError(f"setting {variables.get(name, name)}: not JSON: {error.__cause__}") from error


def flag(name: str) -> str:
    """Return the command line option of a setting."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def _from_here(name: str, value: Any) -> Any:
    if name not in _PATHS or t.none_of(value) is None:
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_absolute(item) for item in value]
    return _absolute(value)


def _absolute(path: str | Path) -> Path:
    return Path(path) if str(path).startswith("~") else Path(path).absolute()


def _variables() -> dict[str, str]:
    return {
        name[len(PREFIX) :].lower(): name
        for name in os.environ
        if name.upper().startswith(PREFIX) and name.upper() not in OTHER_VARIABLES
    }


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return parse_toml(stream, f"settings file {file}")
    except OSError as error:
        raise SettingsError(f"settings file {file} cannot be read: {error.strerror or error}") from error


def parse_toml(stream: BinaryIO, what: str) -> dict[str, Any]:
    """Read a TOML file, or raise SettingsError that names it."""
    try:
        table: dict[str, Any] = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{what} is not TOML: {error}") from error
    return table


def _refuse_unknown(origins: Mapping[str, str]) -> None:
    for name, origin in origins.items():
        if name in Settings.model_fields:
            continue
        near = difflib.get_close_matches(name, [*Settings.model_fields, "target", "token"], 1)
        hint = f"did you mean {near[0]}?" if near else "the names are those of `edbjobs serve --help`"
        raise SettingsError(f"there is no setting {origin}; {hint}")


def _explain(item: ErrorDetails, origins: Mapping[str, str]) -> str:
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:  # of the whole model: starts with the name of the setting
        name, _, message = message.partition(": ")
        return f"setting {origins.get(name, name)}: {message}"
    name, *rest = (str(part) for part in item["loc"])
    return t.explain(item, "setting " + ".".join([origins.get(name, name), *rest]))
