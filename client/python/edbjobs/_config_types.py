"""Constrained types of the configuration models, and the texts of their errors."""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

__all__ = [
    "BatchOptions",
    "Delay",
    "EnvironmentMap",
    "FieldsError",
    "Grace",
    "HostName",
    "JobId",
    "LabelMap",
    "LicenseMap",
    "LimitDuration",
    "NodeList",
    "Number",
    "OptionText",
    "OptionalHostName",
    "ProjectPath",
    "RunTime",
    "SchedulerLicenses",
    "SelectorText",
    "Text",
    "field_errors",
    "is_absolute",
]

INT32_MAX = 2**31 - 1
MAX_COUNT = 1_000_000
MAX_BYTES = 2**60
MAX_LABEL_BYTES = 4096

# Line breaks and control characters of ASCII, Latin-1 and Unicode: none of them may reach a script or a
# command line, where a line break would start a new directive.
_NO_CONTROL = "\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029"
_TEXT = f"^[^{_NO_CONTROL}]*$"
# AEDT's batch options are written 'name'='value': a quote would end the value and start another option.
_OPTION = f"^[^{_NO_CONTROL}'\"]*$"
# Design, mode and setup are joined by ":" after -batchsolve, and a leading "-" would be read as an option.
_SELECTOR = f"^([^-:{_NO_CONTROL}'\"][^:{_NO_CONTROL}'\"]*)?$"
_JOB_ID = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_OPTIONAL_JOB_ID = "^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$"
_ENVIRONMENT_NAME = "^[A-Za-z_][A-Za-z0-9_]{0,254}$"
# ":" and "," separate the fields and hosts of AEDT's machine list.
_HOST = "^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$"
_OPTIONAL_HOST = "^([A-Za-z0-9][A-Za-z0-9._-]{0,252})?$"
_FEATURE = "^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$"
VERSION = r"^(20\d\d\.[1-9]|\d{3})?$"
EMAIL = r"^([^\s@,;'\"]+@[^\s@,;'\"]+)?$"
_SCHEDULER_LICENSE = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$"
# Ranges such as n[1-3,7] are one item; blanks would begin another one.
_NODES = f"^[^{_NO_CONTROL}\\s]+$"

_ADVICE = {
    _TEXT: "must not contain line breaks or control characters",
    _OPTION: "must not contain quotes, line breaks or control characters",
    _SELECTOR: "must not begin with '-' nor contain ':', quotes, line breaks or control characters",
    _JOB_ID: "must be 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit",
    _OPTIONAL_JOB_ID: "must be 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit",
    _ENVIRONMENT_NAME: "must be a variable's name: letters, digits and '_', not beginning with a digit",
    _HOST: "must be a host name or IPv4 address: letters, digits, '.', '_' and '-'",
    _OPTIONAL_HOST: "must be a host name or IPv4 address: letters, digits, '.', '_' and '-'",
    _FEATURE: "must be a license feature's name: letters, digits, '.', '_', '-' and '@'",
    VERSION: 'must be a release such as "2025.2" or "252"',
    EMAIL: "must be one e-mail address",
    _SCHEDULER_LICENSE: "must be a license's name, or name@server",
    _NODES: "must be a node's name or a range of names, without blanks",
}


def _no_bool(value: Any) -> Any:
    # In Python True is an int, but "cores: true" is a mistake, not one core.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic reports ValueError
    return value


def is_absolute(path: str) -> bool:
    """Return True if a path is absolute on POSIX, or on Windows with a drive or a server."""
    drive, rest = ntpath.splitdrive(path)
    return posixpath.isabs(path) or (bool(drive) and rest[:1] in ("\\", "/"))


def _project_path(path: str) -> str:
    if not is_absolute(path):
        raise ValueError("must be an absolute path on the service's host, such as /data/board.aedb")
    stripped = path.rstrip("\\/")
    if not stripped.lower().endswith((".aedt", ".aedtz", ".aedb")):
        raise ValueError("must be a .aedt or .aedtz file or a .aedb folder")
    return stripped


Number = Annotated[int, BeforeValidator(_no_bool)]
Text = Annotated[str, Field(pattern=_TEXT, max_length=255)]
LongText = Annotated[str, Field(pattern=_TEXT, max_length=32_768)]
PathText = Annotated[str, Field(pattern=_TEXT, max_length=4_096)]
OptionText = Annotated[str, Field(pattern=_OPTION, max_length=4_096)]
SelectorText = Annotated[str, Field(pattern=_SELECTOR, max_length=255)]
JobId = Annotated[str, Field(pattern=_OPTIONAL_JOB_ID)]
HostName = Annotated[str, Field(pattern=_HOST)]
OptionalHostName = Annotated[str, Field(pattern=_OPTIONAL_HOST)]
ProjectPath = Annotated[str, Field(pattern=_TEXT, max_length=4_096), AfterValidator(_project_path)]


def _seconds(value: Any) -> Any:
    """Accept the JSON form of a Duration, such as "7200s"."""
    if isinstance(value, str) and (match := re.fullmatch(r"(-?\d{1,12}(\.\d{1,9})?)s", value)):
        return float(match[1])
    return _no_bool(value)


# A Duration of the contract holds about 10,000 years; a year is more than any solve needs.
_YEAR = timedelta(days=366)
RunTime = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(0), le=_YEAR)]
LimitDuration = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=timedelta(0), le=_YEAR)]
Delay = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(0), le=timedelta(days=7))]
Grace = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(0), le=timedelta(hours=1))]


def _short_labels(labels: dict[str, str]) -> dict[str, str]:
    size = sum(len(text.encode(errors="surrogatepass")) for pair in labels.items() for text in pair)
    if size > MAX_LABEL_BYTES:
        raise ValueError(f"must have at most {MAX_LABEL_BYTES} bytes, keys and values together; it has {size}")
    return labels


def _named_once(options: dict[str, str]) -> dict[str, str]:
    names: set[str] = set()
    for name in options:
        if name.lower() in names:
            raise ValueError(f"must have {name!r} only once; AEDT takes names in any case")
        names.add(name.lower())
    return options


LabelMap = Annotated[
    dict[Annotated[str, Field(pattern=_JOB_ID)], Text], Field(max_length=64), AfterValidator(_short_labels)
]
EnvironmentMap = Annotated[dict[Annotated[str, Field(pattern=_ENVIRONMENT_NAME)], LongText], Field(max_length=256)]
LicenseMap = Annotated[
    dict[Annotated[str, Field(pattern=_FEATURE)], Annotated[Number, Field(ge=0, le=INT32_MAX)]],
    Field(max_length=64),
]
BatchOptions = Annotated[
    dict[Annotated[str, Field(pattern=_OPTION, min_length=1, max_length=255)], OptionText],
    Field(max_length=256),
    AfterValidator(_named_once),
]
NodeList = Annotated[
    tuple[Annotated[str, Field(pattern=_NODES, max_length=4_096)], ...],
    Field(max_length=1_000),
]
SchedulerLicenses = Annotated[
    dict[Annotated[str, Field(pattern=_SCHEDULER_LICENSE)], Annotated[Number, Field(ge=1, le=999_999_999)]],
    Field(max_length=64),
]


class FieldsError(ValueError):
    """What is wrong with values that are valid by themselves.

    Parameters
    ----------
    fields : mapping of str to str
        Error texts by field.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {what}" for name, what in fields.items()))
        self.fields = fields


def field_errors(
    error: ValidationError, prefix: str = "", advice: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return the error texts of a validation error by path of the field.

    Parameters
    ----------
    error : pydantic.ValidationError
        Error of a configuration model.
    prefix : str
        Put before each path, for example ``"config"``.
    advice : mapping of str to str
        What a text must be, by the pattern that it does not match, besides those of this module.

    Returns
    -------
    dict
        For example ``{"config.machines[0].cores": "must be a number, not true or false"}``.
    """
    found: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path = prefix
        cause = item.get("ctx", {}).get("error")
        for part in item["loc"]:
            if isinstance(part, int):
                path += f"[{part}]"
            elif part != "[key]":
                path += f".{part}" if path else part
        if isinstance(cause, FieldsError):
            for name, what in cause.fields.items():
                found.setdefault(f"{path}.{name}" if path else name, what)
        else:
            found.setdefault(path or "config", _error_text(item, {**_ADVICE, **advice}))
    return found


def _error_text(item: Any, advice: Mapping[str, str]) -> str:
    context = item.get("ctx", {})
    if item["type"] == "string_pattern_mismatch" and context.get("pattern") in advice:
        return advice[context["pattern"]]
    if item["type"] == "extra_forbidden":
        return "is not a field of the configuration"
    if item["type"] == "missing":
        return "is required"
    text = re.sub(r"^(Value error, |Input )", "", str(item["msg"]))
    return re.sub(r"^(String|Dictionary|Tuple|List|Value) should", "should", text)
