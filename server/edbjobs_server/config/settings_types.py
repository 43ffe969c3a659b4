"""Types of the settings, and of the site's policy: and the checks whose errors describe what is expected."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path, PureWindowsPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import ErrorDetails

from edbjobs_server.core.limits import UserLimits

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")  # noqa: TRY004 (pydantic wants ValueError)
    return value


def _path(value: Path) -> Path:
    if any(ord(char) < 32 for char in str(value)):
        raise ValueError("expected a path without control characters")
    try:
        value = value.expanduser()
    except RuntimeError:
        raise ValueError("there is no such home folder") from None
    if not value.is_absolute():
        raise ValueError("expected an absolute path")
    return value


def _program(value: Path) -> Path:
    if not value.is_file():
        raise ValueError(f"there is no program {value}")
    if not os.access(value, os.X_OK):
        raise ValueError(f"{value} may not be executed by this account")
    return value


def _windows_program(value: PureWindowsPath) -> PureWindowsPath:
    if not value.is_absolute() or value.suffix.lower() != ".exe" or re.search(r'[<>"|?*%\x00-\x1f\x7f]', str(value)):
        raise ValueError(r"expected a program's full path on Windows, such as C:\AnsysEM\ansysedt.exe")
    return value


def _folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError(f"there is no folder {value}")
    return value


def _file(value: Path) -> Path:
    if not (value.is_file() and os.access(value, os.R_OK)):
        raise ValueError(f"{value} is no file that can be read")
    return value


def _line(value: str) -> str:
    if not value.strip() or not all(char.isprintable() or char == "\t" for char in value):
        raise ValueError("expected one line without control characters")
    return value


def _word(value: str) -> str:
    if not value or value.startswith("-") or "," in value or not all(char > " " for char in _line(value)):
        raise ValueError("expected a name without blanks and commas that does not start with '-'")
    return value


def credentials(file: Path) -> tuple[str, str]:
    """Read user and password from the two lines of a file that other accounts cannot read.

    Raises
    ------
    ValueError
        It cannot be read, others can read it, or it does not hold two lines.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            lines = stream.read().splitlines()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8") from error
    if sys.platform != "win32" and mode & 0o077:
        raise ValueError(f"{file} is open to others (mode {mode:04o}): chmod 600, and change the password")
    if len(lines) != 2 or not all(lines):
        raise ValueError(f"{file} must hold the user on its first line and the password on its second")
    return lines[0], lines[1]


def _credentials(file: Path) -> Path:
    credentials(file)
    return file


def _rest_url(value: str) -> str:
    parts = urlsplit(value.strip().rstrip("/"))
    if not value.strip():
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("expected https://HOST[:PORT] of the head node")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("expected https: the password is sent with every request")
    return parts.geturl()


def _split_paths(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _split_windows_paths(value: object) -> object:
    return [part.strip() for part in value.split(";") if part.strip()] if isinstance(value, str) else value


def _split_words(value: object) -> object:
    return [part for part in value.replace(",", " ").split() if part] if isinstance(value, str) else value


def none_of(value: object) -> object:
    """Read empty and ``none`` as None."""
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


SplitPaths = BeforeValidator(_split_paths)
SplitWindowsPaths = BeforeValidator(_split_windows_paths)
SplitWords = BeforeValidator(_split_words)
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=2**31 - 1)]
OptionalCount = Annotated[Count | None, BeforeValidator(none_of)]
OptionalBytes = Annotated[
    Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=2**63 - 1)] | None, BeforeValidator(none_of)
]
Number = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, allow_inf_nan=False)]
OptionalPercent = Annotated[Annotated[Number, Field(le=100)] | None, BeforeValidator(none_of)]
Seconds = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
AbsolutePath = Annotated[Path, AfterValidator(_path)]
OptionalPath = Annotated[AbsolutePath | None, BeforeValidator(none_of)]
Program = Annotated[AbsolutePath, AfterValidator(_program)]
WindowsProgram = Annotated[PureWindowsPath, AfterValidator(_windows_program)]
Folder = Annotated[AbsolutePath, AfterValidator(_folder)]
File = Annotated[AbsolutePath, AfterValidator(_file)]
Credentials = Annotated[AbsolutePath, AfterValidator(_credentials)]
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_*?][A-Za-z0-9_*?]*$")]
RestUrl = Annotated[str, AfterValidator(_rest_url)]
Line = Annotated[str, AfterValidator(_line)]
Word = Annotated[str, AfterValidator(_word)]


class UserLimitSettings(BaseModel):
    """Limits of one user, as ``edbjobs.v1.UserLimits``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_running_jobs: OptionalCount = None
    max_cores: OptionalCount = None
    max_priority: Annotated[int, BeforeValidator(_no_bool)] | None = None

    def limits(self) -> UserLimits:
        """Return the limits as the core's type."""
        return UserLimits(**self.model_dump())


def explain(item: ErrorDetails, where: str) -> str:
    """Return one sentence with the value, its place and what is wrong with it."""
    message = item["msg"].removeprefix("Value error, ")
    if message[1:2].islower():  # else it starts with an abbreviation or a name
        message = message[:1].lower() + message[1:]
    return f"{where}: {item['input']!r} is not allowed: {message}"
