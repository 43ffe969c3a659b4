"""Settings of the service: command line, then ``EDBJOBS_*``, then a TOML file, then defaults."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic_settings
from edbjobs._endpoint import runtime_dir
from edbjobs._exceptions import TargetError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from edbjobs_server.addresses import address, host_name, network, split_address
from edbjobs_server.addresses import origin as checked_origin
from edbjobs_server.addresses import public_url as checked_url
from edbjobs_server.core.limits import UserLimits

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
    "min_memory_gb": "--min-memory",
    "min_disk_gb": "--min-disk",
    "project_roots": "--project-root",
    "licenses": "--license",
    "allowed_hosts": "--allowed-host",
    "trusted_proxies": "--trusted-proxy",
    "cors_origins": "--cors-origin",
}
_UNIX_PATH_BYTES = 107  # sun_path of unix(7), less its final NUL
_LIMITS = (
    "max_concurrent_jobs",
    "max_cores",
    "max_memory_mib",
    "max_cluster_jobs",
    "licenses",
    "max_cpu_percent",
    "min_memory_gb",
    "min_disk_gb",
    "default_user",
    "users",
)


class SettingsError(Exception):
    """The service cannot start as it is set up; the text is one line that says what to change."""


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")  # noqa: TRY004 (pydantic wants ValueError)
    return value


def _path(value: Path) -> Path:
    if any(ord(char) < 32 for char in str(value)):
        raise ValueError("a path must not hold control characters")
    value = value.expanduser()
    if not value.is_absolute():
        raise ValueError("an absolute path is wanted")
    return value


def _split_paths(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _split_words(value: object) -> object:
    return [part for part in value.replace(",", " ").split() if part] if isinstance(value, str) else value


def _program(value: Path) -> Path:
    if not value.is_file():
        raise ValueError(f"there is no program {value}")
    if not os.access(value, os.X_OK):
        raise ValueError(f"{value} may not be executed by this account")
    return value


def _optional_path(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


_Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=2**31 - 1)]
_Memory = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=2**53)]
_Number = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, allow_inf_nan=False)]
_Seconds = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
_Path = Annotated[Path, AfterValidator(_path)]
_Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_*?][A-Za-z0-9_*?]*$")]


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
    """Tell which settings file is read when none is named."""
    return _xdg("XDG_CONFIG_HOME", Path.home() / ".config") / "edbjobs" / "edbjobs.toml"


class UserCaps(BaseModel):
    """Caps of one user; names, units and the meaning of 0 are those of ``edbjobs.v1.UserLimits``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_running_jobs: _Count = 0
    max_cores: _Count = 0
    max_priority: Annotated[int, BeforeValidator(_no_bool)] | None = None

    def limits(self) -> UserLimits:
        """Make the core's value."""
        return UserLimits(self.max_running_jobs, self.max_cores, self.max_priority)


class Settings(BaseSettings):
    """Settings of the service. Use :func:`load_settings`, whose errors name where a bad value stands.

    Attributes
    ----------
    state_dir : Path
        Store, logs, runs and token; on a local disk.
    grpc : str
        ``address:port`` of the TCP door; port 0 takes a free one, empty: no TCP door.
    uds : Path or None
        Unix socket; none on Windows.
    http : str
        ``address:port`` of REST, Socket.IO and WebSocket; port 0 takes a free one, empty: none.
    public_url : str
        ``https://jobs.example.com``: where a proxy in front makes the HTTP door reachable. With it every HTTP
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
        Offer the stand-in, which solves nothing.
    max_concurrent_jobs, ..., users
        Limits. One given here is put in force at the start; of the others the stored value stays.
    project_roots : list of Path
        Folders projects must lie in; empty: any.
    environment_allow : list of str
        Patterns of variable names a job may set, beside the built-in ones.
    retention_days, retention_jobs
        Age and number up to which ended jobs are kept; 0: without end.
    transport_mode : {"insecure", "uds", "mtls"}
        ``uds``: no TCP door. ``mtls``: TCP with certificates of both sides.
    certificates : Path or None
        Folder with ca.crt, server.crt and server.key; default: ``ANSYS_GRPC_CERTIFICATES``.
    log_level : {"debug", "info", "warning", "error"}
        Least level that is logged.
    kill_leftovers_seconds : float
        How long what a run left may go on after its end.
    lock_wait_seconds : float
        How long a project's foreign lock is waited for.
    gate_event_seconds : float
        How long a gate is shut before an event tells so.
    telemetry_seconds : float
        Time between two samples of the host.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    state_dir: _Path = Field(default_factory=_default_state_dir)
    grpc: Annotated[str, AfterValidator(address)] = "127.0.0.1:18080"
    uds: Annotated[_Path | None, BeforeValidator(_optional_path)] = Field(default_factory=_default_uds)
    http: Annotated[str, AfterValidator(address)] = "127.0.0.1:8080"
    public_url: Annotated[str, AfterValidator(checked_url)] = ""
    allowed_hosts: Annotated[
        list[Annotated[str, AfterValidator(host_name)]], NoDecode, BeforeValidator(_split_words)
    ] = []
    trusted_proxies: Annotated[
        list[Annotated[str, AfterValidator(network)]], NoDecode, BeforeValidator(_split_words)
    ] = []
    cors_origins: Annotated[
        list[Annotated[str, AfterValidator(checked_origin)]], NoDecode, BeforeValidator(_split_words)
    ] = []
    ready_file: _Path | None = None

    solvers: Annotated[list[Annotated[_Path, AfterValidator(_program)]], NoDecode, BeforeValidator(_split_paths)] = []
    demo_solver: bool = False
    project_roots: Annotated[list[_Path], NoDecode, BeforeValidator(_split_paths)] = []
    environment_allow: Annotated[list[_Pattern], NoDecode, BeforeValidator(_split_words)] = []

    max_concurrent_jobs: _Count = 1
    max_cores: _Count = 0
    max_memory_mib: _Memory = 0
    max_cluster_jobs: _Count = 0
    licenses: dict[str, _Count] = {}
    max_cpu_percent: Annotated[_Number, Field(le=100)] = 0.0
    min_memory_gb: _Number = 0.0
    min_disk_gb: _Number = 0.0
    default_user: UserCaps = UserCaps()
    users: dict[str, UserCaps] = {}

    retention_days: _Number = 30.0
    retention_jobs: _Count = 100_000

    transport_mode: Literal["insecure", "uds", "mtls"] = "insecure"
    certificates: _Path | None = Field(default_factory=_default_certificates)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kill_leftovers_seconds: _Seconds = 10.0
    lock_wait_seconds: _Seconds = 600.0
    gate_event_seconds: _Seconds = 600.0
    telemetry_seconds: Annotated[_Seconds, Field(ge=0.1)] = 5.0

    @model_validator(mode="after")
    def _doors(self) -> Settings:
        if self.uds is not None and sys.platform == "win32":
            raise ValueError("uds: there are no Unix sockets here; leave it out")
        if self.uds is not None and len(os.fsencode(self.uds)) > _UNIX_PATH_BYTES:
            raise ValueError(f"uds: {self.uds} is longer than the {_UNIX_PATH_BYTES} bytes a socket's path may have")
        if self.transport_mode == "uds" and self.uds is None:
            raise ValueError("transport_mode: uds wants a Unix socket, but uds is off")
        for name in ("grpc", "http"):
            if self.transport_mode == "uds" and name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"transport_mode: uds opens no TCP door, but {name} names one; leave one out")
        if self.transport_mode == "mtls":
            self._check_certificates()
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        if not self.tcp and not self.web and self.uds is None:
            raise ValueError("grpc: neither a TCP address nor a Unix socket: nobody could reach the service")
        return self

    def _check_certificates(self) -> None:
        if self.certificates is None:
            raise ValueError("certificates: mtls wants a folder with ca.crt, server.crt and server.key")
        for name in ("ca.crt", "server.crt", "server.key"):
            if not os.access(self.certificates / name, os.R_OK):
                raise ValueError(f"certificates: {self.certificates / name} cannot be read")

    @property
    def tcp(self) -> tuple[str, int] | None:
        """Address and port of the TCP door; None: there is none."""
        return split_address(self.grpc) if self.grpc and self.transport_mode != "uds" else None

    @property
    def web(self) -> tuple[str, int] | None:
        """Address and port of the HTTP door; None: there is none."""
        return split_address(self.http) if self.http and self.transport_mode != "uds" else None

    def explicit_limits(self) -> dict[str, Any]:
        """Tell the limits that were given, as fields of :class:`edbjobs_server.core.limits.Limits`."""
        given: dict[str, Any] = {name: getattr(self, name) for name in _LIMITS if name in self.model_fields_set}
        if "default_user" in given:
            given["default_user"] = self.default_user.limits()
        if "users" in given:
            given["users"] = {user: caps.limits() for user, caps in self.users.items()}
        return given


class EmbeddedSettings(Settings):
    """Settings of a service inside a program, which reaches it without any door."""

    @model_validator(mode="after")
    def _reachable(self) -> EmbeddedSettings:
        return self


_PATHS = ("state_dir", "uds", "ready_file", "solvers", "project_roots", "certificates")


def load_settings(
    values: Mapping[str, Any] | None = None, config_file: Path | None = None, kind: type[Settings] = Settings
) -> Settings:
    """Read the settings.

    Parameters
    ----------
    values : dict, optional
        What the command line gave, by name of the setting; None values count as not given. Relative paths are
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
    """Tell the option of the command line that gives a setting."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def _from_here(name: str, value: Any) -> Any:
    if name not in _PATHS or (name == "uds" and _optional_path(value) is None):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [Path(item).expanduser().absolute() for item in value]
    return Path(value).expanduser().absolute()


def _variables() -> dict[str, str]:
    return {
        name[len(PREFIX) :].lower(): name
        for name in os.environ
        if name.upper().startswith(PREFIX) and name.upper() not in OTHER_VARIABLES
    }


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            table: dict[str, Any] = tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"settings file {file} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from error
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
    if not item["loc"]:  # of the whole model: begins with the name of the setting
        name, _, message = message.partition(": ")
        return f"setting {origins.get(name, name)}: {message}"
    name, *rest = (str(part) for part in item["loc"])
    where = origins.get(name, name) + "".join(f".{part}" for part in rest)
    return f"setting {where}: {item['input']!r} is not allowed: {message[:1].lower()}{message[1:]}"
