"""Words and constrained texts of the documented configuration, and the texts of their errors."""

from __future__ import annotations

from typing import Annotated

from edbjobs import _config_types as t
from edbjobs._enums import Word
from pydantic import Field, PlainSerializer, ValidationError

_TIME = r"^[0-9A-Za-z:.+-]{0,32}$"
_MEMORY = r"^(\d{1,12}(\.\d{1,3})? ?([KkMmGgTt]([Ii]?[Bb])?)?)?$"
_LICENSE = r"^[A-Za-z0-9][A-Za-z0-9._@-]*(:[1-9]\d{0,8})?$"
_ADVICE = {
    _TIME: "must be a time limit such as 24:00:00, 1-12:00:00 or a number of minutes",
    _MEMORY: 'must be a size such as "64GB"',
    _LICENSE: 'must be a license as "name" or "name:count"',
}


class SchedulerType(Word):
    """Where a job runs. With ``none``, the documented default, the service decides."""

    NONE = "none"
    LOCAL = "local"
    SLURM = "slurm"
    LSF = "lsf"
    PBS = "pbs"
    WINDOWS_HPC = "windows_hpc"


TimeText = Annotated[str, Field(pattern=_TIME)]
MemoryText = Annotated[str, Field(pattern=_MEMORY)]
LicenseText = Annotated[str, Field(pattern=_LICENSE, max_length=128)]
OptionalText = t.Text | None


# A job may be of a plug-in, which is no member: its name is written as it is.
SchedulerName = Annotated[SchedulerType, PlainSerializer(str)]


def field_errors(error: ValidationError, prefix: str = "") -> dict[str, str]:
    """Return the error texts of a documented configuration by path of the field, as `edbjobs.field_errors`."""
    return t.field_errors(error, prefix, _ADVICE)
